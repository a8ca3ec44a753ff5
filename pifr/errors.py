"""What can go wrong for a user. Every message says what happened, to what, and what to do about it.

The command line prints the message of a `PifrError` in one line and exits with status 1; any other exception is a bug
and keeps its traceback.
"""

from collections.abc import Iterable
from difflib import get_close_matches
from importlib.util import find_spec


class PifrError(Exception):
    """Base of every error that a user, not a programmer, can put right."""


class ImageError(PifrError):
    """A file or a byte string is not an image that can be used."""


class WeightsError(PifrError):
    """Weights are missing, could not be fetched, or differ from their published SHA-256."""


class CheckpointError(PifrError):
    """A checkpoint does not fit the network that it was given for."""


class DataError(PifrError):
    """A data set, a protocol or a landmark file is not laid out as it should be."""


class ConfigError(PifrError):
    """A configuration names an unknown key or holds a value that is not allowed."""


class UnknownNameError(PifrError):
    """No such recognizer, detector, frontalizer, protocol, ...; says which names are close and where all are listed.

    Args:
        kind: what is named, as a person would say it ("recognizer").
        name: the name that was asked for.
        known: the names that exist.
        hint: one more sentence, without a final stop ("'pifr models' lists all").
    """

    def __init__(self, kind: str, name: str, known: Iterable[str], hint: str = "") -> None:
        known = sorted(known)
        close = get_close_matches(name, known, n=3, cutoff=0.5)
        advice = (
            f"Did you mean {' or '.join(map(repr, close))}?"
            if close
            else f"There are {', '.join(map(repr, known)) or 'none'}."
        )
        super().__init__(f"no {kind} {name!r}. {advice}" + (f" {hint}." if hint else ""))
        self.kind, self.name, self.known = kind, name, tuple(known)


class MissingExtraError(PifrError):
    """A package is needed that only an optional extra installs.

    Args:
        purpose: what needs it ("landmarks on training photos").
        package: the package that could not be imported.
        extra: the extra of pifr that brings it.
    """

    def __init__(self, purpose: str, package: str, extra: str) -> None:
        super().__init__(f"{purpose} needs the package {package!r}: pip install '.[{extra}]' in pifr's checkout")


def require_extra(purpose: str, extra: str, *packages: str) -> None:
    """Raises MissingExtraError, whose arguments these are, if a package that an extra of pifr brings is missing."""
    for package in packages:
        if find_spec(package) is None:
            raise MissingExtraError(purpose, package, extra)
