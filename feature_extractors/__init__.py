"""Recognizers: batches of aligned faces in, embeddings that are compared by their cosine out.

The names below are imported on first use, so that `import feature_extractors` does not load torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from feature_extractors.base import ModuleRecognizer as ModuleRecognizer
    from feature_extractors.base import Recognizer as Recognizer
    from feature_extractors.base import RecognizerConfig as RecognizerConfig
    from feature_extractors.registry import list_recognizers as list_recognizers
    from feature_extractors.registry import load_recognizer as load_recognizer
    from feature_extractors.registry import register as register

_LAZY = {
    "ModuleRecognizer": "feature_extractors.base",
    "Recognizer": "feature_extractors.base",
    "RecognizerConfig": "feature_extractors.base",
    "list_recognizers": "feature_extractors.registry",
    "load_recognizer": "feature_extractors.registry",
    "register": "feature_extractors.registry",
}

__all__ = list(_LAZY)


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module 'feature_extractors' has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
