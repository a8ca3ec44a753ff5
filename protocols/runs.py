"""A run on disk: a table of what was measured, as `scores.parquet`, and `run.json` with how it came about."""

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import pifr
from pifr.errors import DataError
from pifr.support.files import file_sha256, read_table, write_whole
from protocols.base import SCORE_COLUMNS, DatasetStatement, read_dataset

if TYPE_CHECKING:
    import pandas as pd

SCORES_FILE = "scores.parquet"
TABLES = ("scores", "identification", "landmarks", "shape")
"""Names of the tables that runs of all protocols write."""
RECORD_FILE = "run.json"
_UNFINISHED = '{"unfinished": true}\n'
"""Record of a folder in which another run is being replaced."""

_PACKAGES = ("torch", "numpy", "onnxruntime", "opencv-python-headless", "pandas")


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """A run as its files tell it.

    Attributes:
        label: how tables call it: the folder's name, longer where several runs share it.
        folder: where it lies.
        tables: by their names in `TABLES`.
        record: `run.json`; empty where there is none.
    """

    label: str
    folder: Path
    tables: Mapping[str, "pd.DataFrame"]
    record: Mapping[str, Any] = field(default_factory=dict)

    @property
    def scores(self) -> "pd.DataFrame | None":
        """Columns `SCORE_COLUMNS`; None for a run of a protocol that compares no faces (landmarks, shape) or keeps
        ranks in place of scores (identification)."""
        return self.tables.get("scores")

    @property
    def passes(self) -> dict[str, int]:
        """Recognizer passes a face by frontalizer; empty where the run has no record."""
        return {name: int(count) for name, count in (self.record.get("views") or {}).items()}


def begin_record(protocol: str, root: Path, counts: dict[str, int], name: str = "") -> dict[str, Any]:
    """What `run.json` says of every run: what was measured, when, and by which versions.

    Args:
        protocol: its name.
        root: of the data set.
        counts: how much of it was used ({"images": 36}).
        name: of a data set that does not state its own; by default the protocol's.

    Raises:
        DataError: as `read_dataset`.
    """
    dataset = read_dataset(root) or DatasetStatement(name or protocol, synthetic=False)
    return {
        "pifr_version": pifr.__version__,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "protocol": protocol,
        "dataset": {
            "name": dataset.name,
            "synthetic": dataset.synthetic,
            "root": str(root.resolve()),
            "counts": counts,
        },
        "versions": {"python": platform.python_version()} | {package: _version(package) for package in _PACKAGES},
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:  # another distribution may bring the same module
        return None


def save_run(
    folder: str | Path, table: "pd.DataFrame", record: dict[str, Any], *, file: str = SCORES_FILE, csv: bool = False
) -> None:
    """Write a run; each file appears whole or not at all, the record last, and it names the table that it is about.

    Args:
        folder: made if it does not exist; the tables of an earlier run in it, of whatever protocol, are replaced. Where
            no `run.json` says that there was one, other files are let alone.
        table: columns `SCORE_COLUMNS`, or what another protocol measures.
        record: what `run.json` will hold, with the table's name and SHA-256 as `table`.
        file: name of the table's Parquet file.
        csv: write the table as CSV as well, under the same name with the suffix `.csv`.

    Raises:
        DataError: the folder cannot be written.
    """
    folder, record_file = Path(folder), Path(folder) / RECORD_FILE
    json.dumps(record)  # raises what it has to before anything is replaced
    try:
        folder.mkdir(parents=True, exist_ok=True)
        earlier = record_file.exists()

        def write_table(name: Path) -> None:
            nonlocal record
            table.to_parquet(name, index=False, compression="zstd")
            record = record | {"table": {"file": file, "sha256": file_sha256(name)}}
            # No other record must tell of this table, should this be killed before its own is written.
            write_whole(record_file, lambda name: name.write_text(_UNFINISHED, encoding="utf-8"))

        write_whole(folder / file, write_table)
        if csv:
            target = (folder / file).with_suffix(".csv")
            write_whole(target, lambda name: table.to_csv(name, index=False, lineterminator="\n"))
        for stale in (folder / f"{name}.{suffix}" for name in TABLES for suffix in ("parquet", "csv")):
            if earlier and (stale.stem != Path(file).stem or (stale.suffix == ".csv" and not csv)):
                stale.unlink(missing_ok=True)
        content = json.dumps(record, indent=2, ensure_ascii=False) + "\n"
        write_whole(record_file, lambda name: name.write_text(content, encoding="utf-8"))
    except OSError as error:
        raise DataError(f"the run cannot be written to '{folder}': {error.strerror or error}") from error


def load_run(folder: str | Path, label: str | None = None) -> Run:
    """Read a run from its folder, or from a `scores.parquet` alone.

    Raises:
        DataError: there is neither a score table nor a record, one of them is damaged or is not the other's, or
            `save_run` was killed.
    """
    folder = Path(folder)
    if folder.suffix == ".parquet":
        folder, file = folder.parent, folder
    else:
        file = folder / SCORES_FILE
    record_file = folder / RECORD_FILE
    if folder.is_file():
        raise DataError(f"'{folder}' is a file: a run is the folder that 'pifr evaluate --out' wrote")
    if not file.is_file() and not record_file.is_file():
        raise DataError(f"'{file}' does not exist: a run is the folder that 'pifr evaluate --out' wrote")
    try:
        record = json.loads(record_file.read_text(encoding="utf-8")) if record_file.is_file() else {}
    except (OSError, ValueError) as error:
        raise DataError(f"'{record_file}' is not JSON ({error})") from error
    parts = ("dataset", "views", "table")
    if not isinstance(record, dict) or any(not isinstance(record.get(key, {}), dict) for key in parts):
        raise DataError(f"'{record_file}' is not the record of a run: it, its {', '.join(parts)} must be tables")
    if not all(isinstance(count, int) for count in record.get("views", {}).values()):
        raise DataError(f"'{record_file}' is not the record of a run: its views are numbers of recognizer passes")
    if record.get("unfinished"):
        raise DataError(f"'{folder}' holds half a run, for its writer was stopped: give the same command again")
    if about := record.get("table"):
        _check_table(folder, about)
    tables = {"scores": _read_scores(file)} if file.is_file() else {}
    files = {name: folder / f"{name}.parquet" for name in TABLES if name != "scores"}
    tables |= {name: read_table(other) for name, other in files.items() if other.is_file()}
    return Run(label or folder.resolve().name, folder, tables, record)


def _check_table(folder: Path, about: Mapping[str, Any]) -> None:
    """Raises DataError if a folder does not hold the table that its record is about."""
    file, digest = about.get("file"), about.get("sha256")
    if not isinstance(file, str) or not (folder / file).is_file():
        raise DataError(f"'{folder}' lacks the table that its {RECORD_FILE} is about, {file}: run it again")
    if file_sha256(folder / file) != digest:
        raise DataError(f"'{folder}' holds another {file} than its {RECORD_FILE} is about: run it again")


def load_runs(folders: Sequence[str | Path]) -> list[Run]:
    """Read several runs; those that share a folder name are told apart by their parent's.

    Raises:
        DataError: as `load_run`, or if a run is given twice.
    """
    paths = [Path(folder).resolve() for folder in folders]
    if len(set(paths)) < len(paths):
        raise DataError("the same run is given twice")
    parts = 1
    labels = [path.name for path in paths]
    while len(set(labels)) < len(labels):
        parts += 1
        labels = ["/".join(path.parts[-parts:]) for path in paths]
    return [load_run(path, label) for path, label in zip(paths, labels, strict=True)]


def _read_scores(file: Path) -> "pd.DataFrame":
    from pandas.api.types import is_numeric_dtype

    scores = read_table(file)
    missing = [column for column in SCORE_COLUMNS if column not in scores.columns]
    if missing:
        raise DataError(f"'{file}' is not a score table: it has no column {', '.join(missing)}")
    if scores.empty:
        raise DataError(f"'{file}' holds no comparisons")
    if not is_numeric_dtype(scores["score"]):
        raise DataError(f"'{file}' is not a score table: its scores are {scores['score'].dtype}, not numbers")
    if np.isinf(scores["score"].to_numpy(float, na_value=np.nan)).any():
        raise DataError(f"'{file}' holds infinite scores: those of failed comparisons are NaN, their status 'failed'")
    return scores
