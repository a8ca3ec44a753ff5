"""Which recognizers there are, and how one is made from its name."""

import warnings
from collections.abc import Callable
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path

import torch

from feature_extractors.base import Precision, Recognizer, RecognizerConfig
from pifr.devices import usable_device
from pifr.errors import CheckpointError, UnknownNameError

Builder = Callable[[RecognizerConfig, Path, str | torch.device, Precision], Recognizer]
"""Makes a recognizer from its configuration, its weight file, a device and a precision."""

_BUILT_IN = ("lightcnn", "onnx", "resnet", "facenet")
_RECOGNIZERS: dict[str, tuple[RecognizerConfig, Builder]] = {}


def register(config: RecognizerConfig) -> Callable[[Builder], Builder]:
    """Decorator that makes a recognizer known by `config.name`.

    A package of yours joins by an entry point in the group "pifr.recognizers" that names the decorated function.
    """

    def add(builder: Builder) -> Builder:
        _RECOGNIZERS[config.name] = (config, builder)
        return builder

    return add


def list_recognizers() -> dict[str, RecognizerConfig]:
    """Every registered recognizer by name; 'onnx:PATH' loads others."""
    _discover()
    return {name: config for name, (config, _) in _RECOGNIZERS.items()}


def load_recognizer(name: str, device: str | torch.device = "cpu", precision: Precision = "float32") -> Recognizer:
    """Make a recognizer.

    Args:
        name: a name in `list_recognizers`; "NAME:PATH" to read a checkpoint of your own; "onnx:PATH" for any network
            in ONNX form (see `feature_extractors.onnx.read_config`).
        device: where it runs.
        precision: see `ModuleRecognizer`; networks in ONNX form run in their own.

    Raises:
        UnknownNameError: says which names are close.
        WeightsError: the weights are not here, or not what was published; says what to type.
        CheckpointError: the checkpoint does not fit; names the first mismatch.
        ConfigError: the device cannot be used here.
    """
    _discover()
    device = usable_device(device)
    kind, _, path = name.partition(":")
    if kind == "onnx":
        from feature_extractors.onnx import load_onnx

        if not path:
            raise UnknownNameError("recognizer", name, _RECOGNIZERS, "'onnx:PATH' needs the path of an ONNX file")
        return load_onnx(Path(path), device)
    if kind not in _RECOGNIZERS:
        hint = "'pifr models' lists all; 'onnx:PATH' loads a file of your own"
        raise UnknownNameError("recognizer", name, _RECOGNIZERS, hint)
    config, builder = _RECOGNIZERS[kind]
    if path:
        file = Path(path)
        if not file.is_file():
            raise CheckpointError(f"checkpoint '{file}' does not exist")
    elif config.weights is None:
        raise CheckpointError(f"recognizer {kind!r} has no weights of its own: use '{kind}:PATH'")
    else:
        file = config.weights.path()
    return builder(config, file, device, precision)


@cache
def _discover() -> None:
    for module in _BUILT_IN:
        import_module(f"feature_extractors.{module}")
    for entry in entry_points(group="pifr.recognizers"):
        try:
            entry.load()
        except Exception as error:  # whatever is wrong with another package must not stop this one
            warnings.warn(f"recognizer {entry.name!r} of {entry.value} could not be loaded: {error}", stacklevel=2)
