"""Where tensors live."""

import torch

from pifr.errors import ConfigError


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
