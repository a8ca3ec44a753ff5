"""What batches of faces share: how they are indexed, and how they present themselves."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

Index = slice | Sequence[int] | Sequence[bool] | np.ndarray | Tensor

STATUSES = ("ok", "fallback", "failed")


def positions_of(index: Index, count: int, owner: str) -> list[int]:
    """The rows that a slice, a boolean mask of length `count`, or a list of positions chooses.

    Args:
        index: what was asked for.
        count: number of rows.
        owner: the class that is indexed, for the message.

    Raises:
        TypeError: a single position; a batch stays a batch.
        IndexError: a mask of another length, or a position that does not exist.
    """
    if isinstance(index, slice):
        return list(range(count))[index]
    chosen = torch.as_tensor(index, device="cpu")
    if chosen.ndim != 1:
        raise TypeError(f"{owner} is indexed by a slice, a mask or a list; use [i:i+1] for one face")
    if chosen.dtype == torch.bool:
        if len(chosen) != count:
            raise IndexError(f"a mask of length {len(chosen)} cannot choose from {count} faces")
        return chosen.nonzero()[:, 0].tolist()
    return [range(count)[position] for position in chosen.long().tolist()]


def describe(owner: str, status: Sequence[str]) -> str:
    """`repr` of a batch: how many rows have which status."""
    counts = [f"{status.count(word)} {word}" for word in STATUSES if word in status]
    return f"{owner}({len(status)}: {', '.join(counts) or 'empty'})"


def check_status(status: Sequence[str], owner: str) -> None:
    """Raises ValueError if there is a status that is none of `STATUSES`."""
    if not set(status) <= set(STATUSES):
        raise ValueError(f"{owner}.status holds {set(status)}: use 'ok', 'fallback' or 'failed'")
