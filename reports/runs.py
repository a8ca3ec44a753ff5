"""Runs as reports read them: whatever tables a run's folder holds, and what its record says they were measured on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pifr.errors import DataError
from pifr.files import read_table
from protocols.runs import TABLES, load_runs
from reports.tables import DataSet

if TYPE_CHECKING:
    import pandas as pd

OTHER_TABLES = tuple(name for name in TABLES if name != "scores")
"""Tables that a run may hold beside or in place of its scores, each as `<name>.parquet`."""

# What says where and how fast a run was made, or what every table prints anyway.
_UNTOLD = (
    *("data", "out", "store", "labels", "device", "workers", "batch_size"),
    *("protocol", "settings", "recognizers", "frontalizers", "fusions"),
)
_PROPER_NAMES = {"cfp": "CFP", "multipie": "Multi-PIE"}


@dataclass(frozen=True, slots=True, eq=False)
class RunTables:
    """One run.

    Attributes:
        label: the folder's name, longer where several runs share it.
        record: `run.json`.
        tables: the run's tables by name: "scores" and `OTHER_TABLES`.
    """

    label: str
    record: Mapping[str, Any]
    tables: Mapping[str, pd.DataFrame]

    @property
    def name(self) -> str:
        """Name of the data set."""
        name = str(self.record["dataset"]["name"])
        return _PROPER_NAMES.get(name, name)

    @property
    def synthetic(self) -> bool:
        """Whether the people of the data set do not exist."""
        return bool(self.record["dataset"]["synthetic"])

    @property
    def data_set(self) -> DataSet:
        """The data set as a whole, with the counts that the record states."""
        counts = self.record["dataset"].get("counts") or {}
        detail = ", ".join(f"{value:,} {key}" for key, value in counts.items() if isinstance(value, int))
        return DataSet(self.name, "", self.synthetic, detail=detail)

    @property
    def passes(self) -> dict[str, int]:
        """Recognizer passes a face, by frontalizer."""
        return {name: int(count) for name, count in (self.record.get("views") or {}).items()}

    @property
    def settings(self) -> dict[str, str]:
        """The configuration in words: detector, alignment, switches of the protocol."""
        return _flat(self.record.get("configuration") or {})

    def conditions(self) -> str:
        """Settings and versions as one sentence for captions; empty where the record has neither."""
        settings = "; ".join(f"{key} {value}" for key, value in self.settings.items())
        versions = ", ".join(f"{key} {value}" for key, value in sorted((self.record.get("versions") or {}).items()))
        return " ".join(f"{part}." for part in (settings, versions) if part)


def read_runs(folders: Sequence[str | Path]) -> list[RunTables]:
    """Read runs with all their tables.

    Raises:
        DataError: as `protocols.runs.load_runs`; or a run holds no table, or does not say what was measured and whether
            it is synthetic.
    """
    found = []
    for run in load_runs(folders):
        data_set = run.record.get("dataset")
        if not isinstance(data_set, dict) or "name" not in data_set or not isinstance(data_set.get("synthetic"), bool):
            raise DataError(
                f"'{run.folder / 'run.json'}' does not say which data set was measured and whether it is synthetic: "
                "without it no figure of this run can be put into a table"
            )
        files = {name: run.folder / f"{name}.parquet" for name in OTHER_TABLES}
        tables = {} if run.scores is None else {"scores": run.scores}
        tables |= {name: read_table(file) for name, file in files.items() if file.is_file()}
        if not tables:
            raise DataError(f"'{run.folder}' holds no table: a run is the folder that 'pifr evaluate --out' wrote")
        found.append(RunTables(run.label, run.record, tables))
    return found


def _flat(configuration: Mapping[str, Any]) -> dict[str, str]:
    settings: dict[str, str] = {}
    for key, value in configuration.items():
        if key in _UNTOLD or value is None or value == "":
            continue
        if isinstance(value, Mapping):
            settings |= _flat(value)
        else:
            text = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
            settings[key.replace("_", " ")] = text
    return settings
