"""Pose-invariant face recognition by SRTC-Net face frontalization (PIFR).

The names below are imported on first use, so that ``import pifr`` loads neither torch nor OpenCV.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pifr.faces import FaceCrops as FaceCrops
    from pifr.faces import FaceFinder as FaceFinder
    from pifr.frontalizer import Frontalizer as Frontalizer
    from pifr.images import read_image as read_image
    from pifr.plugin import FrontalizedRecognizer as FrontalizedRecognizer

__version__ = "0.2.0"

_LAZY = {
    "FaceCrops": "pifr.faces",
    "FaceFinder": "pifr.faces",
    "Frontalizer": "pifr.frontalizer",
    "FrontalizedRecognizer": "pifr.plugin",
    "read_image": "pifr.images",
}

__all__ = ["__version__", *_LAZY]


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module 'pifr' has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
