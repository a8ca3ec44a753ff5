"""What a protocol is, and the columns of the score table. A protocol is data: it knows no detector, no recognizer."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

from pifr.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

Progress = Callable[[int, int], None]
"""Called with how many (images, subjects, ...) are done and how many there are to do."""

SAMPLE_COLUMNS = ("sample", "path", "subject", "role")
"""Of `VerificationProtocol.samples`: an identifier that the protocol makes up; where its file is; who is seen on it (""
where the protocol does not say); "reference", "probe" or "both". A protocol may add more."""

COMPARISON = ["fold", "probe", "reference"]
"""Columns that tell a comparison of a setting from the others."""

COMPARISON_COLUMNS = (*COMPARISON, "probe_subject", "reference_subject", "same")
"""Of `VerificationProtocol.comparisons`; `probe` and `reference` are samples."""

SCORE_COLUMNS = (
    "protocol",
    "setting",
    *COMPARISON_COLUMNS,
    "recognizer",
    "frontalizer",
    "fusion",
    "score",
    "status",
    "reason",
    "yaw",
)
"""Of `scores.parquet`, one row a comparison and system. `score` is float64, NaN where `status` is "failed". `reason`
is what `write_reason` makes and `read_reason` reads. `yaw` is the probe's, in degrees, NaN where unknown."""


class Incident(NamedTuple):
    """What became of one side of a comparison that failed or fell back, and the machine-readable word that says why."""

    side: Literal["probe", "reference"]
    outcome: Literal["failed", "fallback"]
    why: str


def write_reason(incidents: Iterable[Incident]) -> str:
    """The `reason` of a comparison: "probe:no_face", "reference:fallback:no_face", both joined by ";", or ""."""
    return ";".join(f"{side}:{'fallback:' if outcome == 'fallback' else ''}{why}" for side, outcome, why in incidents)


def read_reason(reason: str) -> list[Incident]:
    """What `write_reason` wrote."""
    incidents = []
    for part in filter(None, reason.split(";")):
        side, _, stated = part.partition(":")
        why = stated.removeprefix("fallback:")
        incidents.append(Incident(side, "failed" if why == stated else "fallback", why))
    return incidents


SYSTEM = ("recognizer", "frontalizer", "fusion")
"""What makes a system."""


class VerificationProtocol(Protocol):
    """Images and comparisons of a data set. `protocols.cfp.Cfp` is the plainest example.

    One whose images are crops that are aligned to ArcFace's template already says so by an attribute `aligned = True`;
    no detector is then run on them unless an experiment names one.
    """

    name: str
    root: Path

    @property
    def settings(self) -> tuple[str, ...]:
        """Names of its settings, such as FF and FP."""
        ...

    def validate(self) -> list[str]:
        """Everything that keeps the data from being used, one line each; empty for a sound data set."""
        ...

    def samples(self, setting: str) -> "pd.DataFrame":
        """One row an image, columns `SAMPLE_COLUMNS`, in a fixed order."""
        ...

    def comparisons(self, setting: str) -> "pd.DataFrame":
        """One row a comparison, columns `COMPARISON_COLUMNS`, in a fixed order."""
        ...

    def read(self, path: str) -> bytes:
        """Content of the image at a `path` of `samples`. Raises OSError where it cannot be read."""
        ...


@dataclass(frozen=True, slots=True)
class DatasetStatement:
    """What a data set says about itself."""

    name: str
    synthetic: bool


DATASET_FILE = "dataset.json"


def read_dataset(root: str | Path) -> DatasetStatement | None:
    """What a data set says about itself in its `dataset.json`, `{"name": "...", "synthetic": true}`; None without one.

    Generated sets carry it, and so should sets of one's own in a published layout, lest they be taken for the original.

    Raises:
        DataError: the file is there but is not such a record.
    """
    file = Path(root) / DATASET_FILE
    if not file.is_file():
        return None
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        name, synthetic = record["name"], record["synthetic"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"'{file}' is not a record with 'name' and 'synthetic' ({error!r})") from error
    if not isinstance(name, str) or not isinstance(synthetic, bool):
        raise DataError(
            f"'{file}': 'name' must be a text and 'synthetic' true or false, not {name!r} and {synthetic!r}"
        )
    return DatasetStatement(name, synthetic)


class Validated(Protocol):
    """A protocol whose data can be checked before anything is computed."""

    name: str
    root: Path

    def validate(self) -> list[str]:
        """What is wrong with the data, a line each."""
        ...


def require_valid(protocol: Validated, limit: int = 20) -> None:
    """Raise `DataError` with what `validate` found, `limit` lines at most, or with what `read_dataset` finds wrong."""
    read_dataset(protocol.root)
    problems = protocol.validate()
    if problems:
        more = [f"... and {len(problems) - limit} more"] if len(problems) > limit else []
        raise DataError(
            "\n  ".join([f"{protocol.name}: the data in '{protocol.root}' cannot be used:", *problems[:limit], *more])
        )


def read_lines(file: Path, problems: list[str]) -> Sequence[tuple[int, str]]:
    """Numbered lines of a text file; what is wrong with it (missing, undecodable, blank lines) is added to `problems`.

    A missing newline at the end is fine, and so is a blank line at the very end; one in between is not: whatever wrote
    the file may have lost a line there.
    """
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        problems.append(f"{file}: {getattr(error, 'strerror', None) or error}")
        return []
    while lines and not lines[-1].strip():
        lines.pop()
    numbered = [(number, line.strip()) for number, line in enumerate(lines, 1)]
    problems.extend(f"{file}:{number}: blank line" for number, line in numbered if not line)
    return [(number, line) for number, line in numbered if line]
