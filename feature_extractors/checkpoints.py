"""Reading checkpoints that others wrote, and saying exactly why one does not fit."""

import pickle
from pathlib import Path

import torch
from torch import Tensor, nn

from feature_extractors.base import ModuleRecognizer, Precision, RecognizerConfig
from pifr.errors import CheckpointError
from pifr.support.files import file_sha256


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """Read the parameters of a checkpoint, without running anything that it may contain.

    Args:
        path: written by torch.save (parameters, or a dictionary that holds them as "state_dict") or .safetensors.

    Returns:
        Parameter name -> tensor on the CPU; the prefix "module." of torch.nn.DataParallel is taken off.

    Raises:
        CheckpointError: the file cannot be read, or holds no parameters.
    """
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            content = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"checkpoint '{path}' does not exist") from error
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"checkpoint '{path}' is damaged, or holds more than tensors, which is not loaded for safety: save its "
            f"state_dict alone with torch.save"
        ) from error
    except Exception as error:  # the readers' own errors have no common base
        raise CheckpointError(f"checkpoint '{path}' cannot be read: {error}") from error
    state = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError(f"checkpoint '{path}' holds no parameters: a state_dict is needed")
    return {name.removeprefix("module."): value for name, value in state.items()}


def load_strictly(
    network: nn.Module, state: dict[str, Tensor], source: str | Path, ignored: tuple[str, ...] = ()
) -> None:
    """Load parameters that fit a network in every name and shape.

    Args:
        network: the network.
        state: parameter name -> tensor.
        source: what to call the checkpoint in messages.
        ignored: prefixes of entries that the network does not have on purpose (a classifier).

    Raises:
        CheckpointError: names the first entry that is missing, unknown or of another shape, and counts the rest.
    """
    own = network.state_dict()
    # Checkpoints older than torch 0.4.1 lack this counter, and inference does not read it.
    counters = {name for name in own if name.endswith("num_batches_tracked")}
    given = {name: value for name, value in state.items() if not name.startswith(ignored)} if ignored else dict(state)
    mismatches = [
        f"{name!r} has the shape {tuple(given[name].shape)} where the network has {tuple(value.shape)}"
        if name in given
        else f"{name!r} is missing"
        for name, value in own.items()
        if (name not in given and name not in counters) or (name in given and given[name].shape != value.shape)
    ]
    mismatches += [f"{name!r} is not a part of the network" for name in given if name not in own]
    if mismatches:
        more = f" (and {len(mismatches) - 1} more differences)" if len(mismatches) > 1 else ""
        raise CheckpointError(f"checkpoint '{source}' does not fit {type(network).__name__}: {mismatches[0]}{more}")
    network.load_state_dict({name: own[name] for name in counters} | given)


def recognizer_of(
    network: nn.Module,
    config: RecognizerConfig,
    file: Path,
    device: str | torch.device,
    precision: Precision,
    *,
    ignored: tuple[str, ...] = (),
    state: dict[str, Tensor] | None = None,
) -> ModuleRecognizer:
    """A network with a checkpoint's parameters as a recognizer whose fingerprint is the file's hash.

    Args:
        network: the network.
        config: its input and its name.
        file: the checkpoint.
        device, precision: as for `ModuleRecognizer`.
        ignored: as for `load_strictly`.
        state: the checkpoint's content, if it was read before.

    Raises:
        CheckpointError: as `read_checkpoint` and `load_strictly`.
    """
    network = network.float()  # whatever torch's default is
    load_strictly(network, read_checkpoint(file) if state is None else state, file, ignored)
    return ModuleRecognizer(network, config, f"{config.name}-{file_sha256(file)[:16]}", device, precision)
