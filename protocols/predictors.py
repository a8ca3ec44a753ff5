"""Predictors by the names that users type: of landmarks (`protocols.landmarks`), of shapes (`protocols.shape`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from pifr.errors import UnknownNameError

P = TypeVar("P")


@dataclass(frozen=True, slots=True)
class Predictors(Generic[P]):
    """Predictors of one kind.

    Attributes:
        kind: as a message names it ("landmark predictor").
        makers: by name, what makes a predictor from the device that its networks run on.
    """

    kind: str
    makers: Mapping[str, Callable[[str], P]]

    def load(self, name: str, device: str = "cpu") -> P:
        """The predictor of this name.

        Raises:
            UnknownNameError: there is none.
            WeightsError, MissingExtraError: it cannot be used on this machine.
        """
        if name not in self.makers:
            raise UnknownNameError(self.kind, name, self.makers)
        return self.makers[name](device)
