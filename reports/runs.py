"""Runs as reports read them: what a run's record says its tables were measured on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pifr.errors import DataError
from protocols.runs import Run, load_runs
from reports.tables import DataSet

# What says where and how fast a run was made, or what every table prints anyway.
_UNTOLD = (
    *("data", "out", "store", "labels", "device", "workers", "batch_size"),
    *("protocol", "settings", "recognizers", "frontalizers", "fusions"),
)
_PROPER_NAMES = {"cfp": "CFP", "multipie": "Multi-PIE"}


@dataclass(frozen=True, slots=True, eq=False)
class MeasuredRun(Run):
    """A run whose record says which data set was measured and whether it is synthetic."""

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
    def settings(self) -> dict[str, str]:
        """The configuration in words: detector, alignment, switches of the protocol."""
        return _flat(self.record.get("configuration") or {})

    def conditions(self) -> str:
        """Settings and versions as one sentence for captions; empty where the record has neither."""
        settings = "; ".join(f"{key} {value}" for key, value in self.settings.items())
        versions = ", ".join(f"{key} {value}" for key, value in sorted((self.record.get("versions") or {}).items()))
        return " ".join(f"{part}." for part in (settings, versions) if part)


def read_runs(folders: Sequence[str | Path]) -> list[MeasuredRun]:
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
        if not run.tables:
            raise DataError(f"'{run.folder}' holds no table: a run is the folder that 'pifr evaluate --out' wrote")
        found.append(MeasuredRun(run.label, run.folder, run.tables, run.record))
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
