"""What batches of faces share: rows are chosen, moved, joined and checked in one way."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from numbers import Integral
from typing import Any, Self, TypeVar

import numpy as np
import torch
from torch import Tensor

Index = slice | Sequence[int] | Sequence[bool] | np.ndarray | Tensor

STATUSES = ("ok", "fallback", "failed")

_Batch = TypeVar("_Batch")


class Rows:
    """Base of frozen dataclasses of B faces.

    Fields are tensors, tuples of words, and dataclasses of tensors (a `Camera`), all of B rows; `status` and `reason`
    are among them.
    """

    __slots__ = ()
    status: tuple[str, ...]
    reason: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.status)

    def __repr__(self) -> str:
        counts = [f"{self.status.count(word)} {word}" for word in STATUSES if word in self.status]
        return f"{type(self).__name__}({len(self)}: {', '.join(counts) or 'empty'})"

    def __getitem__(self, index: Index) -> Self:
        """The faces at a slice, a boolean mask of length B, or a list of positions; always a batch.

        Raises:
            TypeError: a single position.
            IndexError: a mask of another length, or a position that does not exist.
        """
        positions = positions_of(index, len(self), type(self).__name__)
        rows = torch.tensor(positions, dtype=torch.long, device=next(tensors_of(self)).device)
        return changed(self, lambda tensor: tensor[rows], lambda words: tuple(words[i] for i in positions))

    def to(self, device: torch.device | str) -> Self:
        """The same faces with all tensors on a device."""
        return changed(self, lambda tensor: tensor.to(device))


def in_batches(faces: _Batch, batch_size: int) -> Iterator[_Batch]:
    """Faces, `batch_size` at a time; as they are where these are all. Raises ValueError if that is less than 1."""
    check_batch_size(batch_size)
    if 0 < len(faces) <= batch_size:
        return iter((faces,))  # choosing rows would copy them
    return (faces[start : start + batch_size] for start in range(0, len(faces), batch_size))


def check_batch_size(batch_size: int) -> None:
    """Raises ValueError if a number of faces at a time is no whole number, or less than 1."""
    if not isinstance(batch_size, Integral) or batch_size < 1:
        raise ValueError(f"batch_size is {batch_size!r}: a whole number of 1 or more is needed")


def check_rows(batch: Any, shapes: dict[str, tuple[int, ...]]) -> None:
    """Checks a dataclass of B rows: tensors, status and reason.

    Args:
        batch: with `status` and `reason`.
        shapes: of one row, by field; all are float32.

    Raises:
        ValueError: one is not as it has to be; the message names it.
    """
    owner, count = type(batch).__name__, len(batch.status)
    for name, shape in shapes.items():
        value = getattr(batch, name)
        if tuple(value.shape) != (count, *shape) or value.dtype != torch.float32:
            raise ValueError(
                f"{owner}.{name} is {value.dtype} {tuple(value.shape)}, not torch.float32 {(count, *shape)}"
            )
    for name in ("status", "reason"):
        if not isinstance(getattr(batch, name), tuple):
            raise ValueError(f"{owner}.{name} is a {type(getattr(batch, name)).__name__}, not a tuple of words")
    if len(batch.reason) != count:
        raise ValueError(f"{owner}.reason has {len(batch.reason)} entries, status {count}")
    if not set(batch.status) <= set(STATUSES):
        raise ValueError(f"{owner}.status holds {set(batch.status)}: use 'ok', 'fallback' or 'failed'")


def positions_of(index: Index, count: int, owner: str) -> list[int]:
    """The rows that a slice, a boolean mask of length `count`, or a list of positions chooses.

    Args:
        index: what was asked for.
        count: number of rows.
        owner: the class that is indexed, for the message.

    Raises:
        TypeError: a single position, for a batch stays a batch; or positions that are no whole numbers.
        IndexError: a mask of another length, or a position that does not exist.
    """
    if isinstance(index, slice):
        return list(range(count))[index]
    chosen = torch.as_tensor(index, device="cpu")
    if chosen.is_floating_point() and chosen.numel():
        raise TypeError(f"{owner} is indexed by whole numbers, not by {chosen.dtype}")
    if chosen.ndim != 1:
        raise TypeError(f"{owner} is indexed by a slice, a mask or a list; use [i:i+1] for one face")
    if chosen.dtype == torch.bool:
        if len(chosen) != count:
            raise IndexError(f"a mask of length {len(chosen)} cannot choose from {count} faces")
        return chosen.nonzero()[:, 0].tolist()
    return [range(count)[position] for position in chosen.long().tolist()]


def tensors_of(batch: Any) -> Iterator[Tensor]:
    """All tensors of a dataclass, also those of the dataclasses that it holds."""
    for field in fields(batch):
        value = getattr(batch, field.name)
        if isinstance(value, Tensor):
            yield value
        elif not isinstance(value, tuple):
            yield from tensors_of(value)


def changed(
    batch: _Batch,
    of_tensors: Callable[[Tensor], Tensor],
    of_words: Callable[[tuple[str, ...]], tuple[str, ...]] = lambda words: words,
) -> _Batch:
    """The dataclass with all its tensors and tuples of words changed, also those of the dataclasses that it holds."""
    return joined([batch], lambda tensors: of_tensors(tensors[0]), lambda words: of_words(words[0]))


def joined(
    batches: Sequence[_Batch],
    of_tensors: Callable[[list[Tensor]], Tensor] = torch.cat,
    of_words: Callable[[list[tuple[str, ...]]], tuple[str, ...]] = lambda words: sum(words, ()),
) -> _Batch:
    """One dataclass of one or more: field by field, tensors and tuples of words are joined."""

    def join(values: list[Any]) -> Any:
        if isinstance(values[0], Tensor):
            return of_tensors(values)
        return of_words(values) if isinstance(values[0], tuple) else joined(values, of_tensors, of_words)

    names = [field.name for field in fields(batches[0])]
    return type(batches[0])(**{name: join([getattr(batch, name) for batch in batches]) for name in names})
