"""Which recognizers there are, and how one is made from its name."""

import os
import sys
import warnings
from collections.abc import Callable
from copy import copy
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import torch

from feature_extractors.base import Precision, Recognizer, RecognizerConfig
from pifr.errors import CheckpointError, ConfigError, UnknownNameError
from pifr.support.devices import usable_device
from pifr.support.files import file_sha256

Builder = Callable[[RecognizerConfig, Path | None, str | torch.device, Precision], Recognizer]
"""Makes a recognizer from its configuration, its weight file (None if it names none), a device and a precision."""

_BUILT_IN = ("lightcnn", "onnx", "resnet", "facenet", "dlib")
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
            in ONNX form (see `feature_extractors.onnx.read_config`); "python:FILE.py:FUNCTION" for what a function of
            yours makes from a device: FUNCTION(device) -> Recognizer. The file is run.
        device: where it runs.
        precision: see `ModuleRecognizer`; networks in ONNX form run in their own.

    Raises:
        UnknownNameError: says which names are close.
        WeightsError: the weights are not here, or not what was published; says what to type.
        CheckpointError: the checkpoint does not fit; names the first mismatch.
        ConfigError: the device cannot be used here.
    """
    _discover()
    name = os.fspath(name)  # of a path, the hint below says how to load it
    device = usable_device(device)
    kind, _, path = name.partition(":")
    if kind == "onnx":
        from feature_extractors.onnx import load_onnx

        if not path:
            raise UnknownNameError("recognizer", name, _RECOGNIZERS, "'onnx:PATH' needs the path of an ONNX file")
        return load_onnx(Path(path).expanduser(), device)
    if kind == "python":
        return _made_by(path, device)
    if kind not in _RECOGNIZERS:
        hint = "'pifr models' lists all; 'onnx:PATH' and 'python:FILE.py:FUNCTION' load your own"
        raise UnknownNameError("recognizer", name, _RECOGNIZERS, hint)
    config, builder = _RECOGNIZERS[kind]
    file = Path(path).expanduser() if path else None
    if file is not None and not file.is_file():
        raise CheckpointError(f"checkpoint '{file}' does not exist")
    if file is None and config.weights is not None:
        file = config.weights.path()
    return builder(config, file, device, precision)


def _made_by(place: str, device: torch.device) -> Recognizer:
    """What a function in a Python file of the user's makes; `place` is FILE.py:FUNCTION."""
    path, _, function = place.rpartition(":")
    file = Path(path).expanduser()
    if file.suffix != ".py" or not file.is_file():
        raise ConfigError(
            f"recognizer 'python:{place}': name an existing file and a function in it, python:FILE.py:NAME"
        )
    if (folder := str(file.resolve().parent)) not in sys.path:
        sys.path.append(folder)  # what lies beside it can be imported, as by 'python FILE.py'
    spec = spec_from_file_location(f"pifr_user_{file.stem}", file)
    module = sys.modules[spec.name] = module_from_spec(spec)  # dataclasses and pickle look there
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever is wrong with the user's file
        raise ConfigError(f"'{file}' cannot be run: {type(error).__name__}: {error}") from error
    if not callable(make := getattr(module, function, None)):
        raise ConfigError(f"'{file}' has no function {function!r} that takes a device and returns a recognizer")
    try:
        recognizer = make(device)
    except Exception as error:
        raise ConfigError(f"{function!r} of '{file}', given a device: {type(error).__name__}: {error}") from error
    if lacking := [name for name in ("config", "embed", "fingerprint") if getattr(recognizer, name, None) is None]:
        raise ConfigError(
            f"what {function!r} of '{file}' returns lacks {', '.join(lacking)}: a network becomes a recognizer by "
            "ModuleRecognizer(network, config)"
        )
    # A copy, for the function may keep what it returns. What it does with its weights is written in that file, though
    # not in what the file imports.
    recognizer = copy(recognizer)
    recognizer.fingerprint += f"-{file_sha256(file)[:12]}-{function}"
    return recognizer


@cache
def _discover() -> None:
    for module in _BUILT_IN:
        import_module(f"feature_extractors.{module}")
    for entry in entry_points(group="pifr.recognizers"):
        try:
            entry.load()
        except Exception as error:  # whatever is wrong with another package must not stop this one
            warnings.warn(f"recognizer {entry.name!r} of {entry.value} could not be loaded: {error}", stacklevel=2)
