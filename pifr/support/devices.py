"""Where tensors live, and how they are computed."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

from pifr.errors import ConfigError


@contextmanager
def inference() -> Iterator[None]:
    """Without gradients, and in this library's own precision, whatever autocast surrounds the caller.

    Results are ordinary tensors, which those of `torch.inference_mode` are not, even within it: they can be changed and
    trained on.
    """
    accelerator = torch.accelerator.current_accelerator()  # whether it can be used is not asked: that would start CUDA
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))  # turns gradients on
        stack.enter_context(torch.no_grad())
        for device in {"cpu", "cpu" if accelerator is None else accelerator.type}:
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        yield


def usable_device(device: torch.device | str) -> torch.device:
    """The device of a name ("cpu", "cuda", "cuda:1", "mps", ...), known to work here.

    Raises:
        ConfigError: there is no such device, or this torch cannot use it.
    """
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        why = str(error).splitlines()[0]
        raise ConfigError(f"device {str(device)!r} cannot be used here ({why}): 'cpu' always can") from error
    return found
