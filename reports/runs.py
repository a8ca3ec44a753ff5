"""Runs as reports read them: whatever tables a run's folder holds, and what its record says they were measured on."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pifr.errors import DataError
from reports.tables import DataSet

if TYPE_CHECKING:
    import pandas as pd

TABLES = ("scores", "identification", "landmarks", "shape")
"""Tables that a run may hold, each as `<name>.parquet`."""


@dataclass(frozen=True, slots=True, eq=False)
class RunTables:
    """One run.

    Attributes:
        label: the folder's name, longer where several runs share it.
        record: `run.json`.
        tables: the run's tables by name, see `TABLES`.
    """

    label: str
    record: Mapping[str, Any]
    tables: Mapping[str, pd.DataFrame]

    @property
    def name(self) -> str:
        """Name of the data set."""
        return str(self.record["dataset"]["name"])

    @property
    def synthetic(self) -> bool:
        """Whether the people of the data set do not exist."""
        return bool(self.record["dataset"]["synthetic"])

    @property
    def data_set(self) -> DataSet:
        """The data set as a whole, with the counts that the record states."""
        counts = self.record["dataset"].get("counts") or {}
        return DataSet(self.name, "", self.synthetic, detail=", ".join(f"{v:,} {k}" for k, v in _numbers(counts)))

    @property
    def passes(self) -> dict[str, int]:
        """Recognizer passes a face, by frontalizer."""
        return {name: int(count) for name, count in (self.record.get("views") or {}).items()}

    def conditions(self) -> str:
        """Alignment, other plain settings and versions, as one sentence for captions."""
        settings = [f"{key} {value}" for key, value in plain_settings(self.record).items()]
        versions = [f"{key} {value}" for key, value in sorted((self.record.get("versions") or {}).items())]
        parts = ["; ".join(settings), ", ".join(versions)]
        return ". ".join(part for part in parts if part) + "." if any(parts) else ""


def read_runs(folders: Sequence[str | Path]) -> list[RunTables]:
    """Read runs; those that share a folder name are told apart by their parents' names.

    Raises:
        DataError: a run is given twice, holds no table, or does not say whether its data are real or synthetic.
    """
    import pandas as pd

    from protocols.runs import load_run

    paths = [Path(folder).resolve() for folder in folders]
    if len(set(paths)) < len(paths):
        raise DataError("the same run is given twice")
    runs = []
    for path, label in zip(paths, _labels(paths), strict=True):
        record = _record(path)
        tables = {
            name: load_run(path).scores if name == "scores" else pd.read_parquet(path / f"{name}.parquet")
            for name in TABLES
            if (path / f"{name}.parquet").is_file()
        }
        if not tables:
            raise DataError(f"'{path}' holds no table: a run is the folder that 'pifr evaluate --out' wrote")
        runs.append(RunTables(label, record, tables))
    return runs


def plain_settings(record: Mapping[str, Any]) -> dict[str, str]:
    """The run's configuration without lists, places on disk, and what the tables print anyway."""
    hidden = {"data", "out", "store", "recognizers", "frontalizers", "fusions", "protocol", "device", "workers"}
    configuration = record.get("configuration") or {}
    return {
        key.replace("_", " "): str(value)
        for key, value in configuration.items()
        if key not in hidden and isinstance(value, (str, int, float)) and value != ""
    }


def _labels(paths: Sequence[Path]) -> list[str]:
    parts = 1
    while len(labels := {"/".join(path.parts[-parts:]) for path in paths}) < len(paths):
        parts += 1
    assert labels
    return ["/".join(path.parts[-parts:]) for path in paths]


def _record(folder: Path) -> dict[str, Any]:
    file = folder / "run.json"
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        record["dataset"]["name"], record["dataset"]["synthetic"]
    except (OSError, ValueError) as error:
        raise DataError(f"'{file}' cannot be read ({error}): without it nobody knows what was measured") from error
    except (KeyError, TypeError) as error:
        raise DataError(f"'{file}' does not say which data set was measured and whether it is synthetic") from error
    return record


def _numbers(counts: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    return ((str(key), value) for key, value in counts.items() if isinstance(value, int))
