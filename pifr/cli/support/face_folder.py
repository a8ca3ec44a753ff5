"""The folder that `pifr frontalize` fills: its table of faces, the names of its files, and what an earlier call wrote.

A folder may be used again: the faces of a photo that was there before are replaced, all else stays as it is.
"""

import csv
from collections.abc import Iterable
from contextlib import suppress
from itertools import count
from pathlib import Path, PurePosixPath

from pifr.errors import DataError
from pifr.support.files import write_whole

COLUMNS = (
    *("path", "name", "picture", "status", "reason", "left", "top", "right", "bottom"),
    *("yaw", "visible_fraction", "residual_mm"),
)
"""Of faces.csv."""


class FacesTable:
    """faces.csv. Rows of a photo stay until it is looked at again.

    Rows are appended to the file as they are added, so that it claims all files of faces, even if this process is
    killed; those that were renewed go on leaving, whatever happened.

    Args:
        file: may exist.
        paths: photos that are looked at, as the table writes them.

    Raises:
        DataError: the file is there and is no such table.
    """

    def __init__(self, file: Path, paths: Iterable[str]) -> None:
        self._file, self._old = file, set(paths)
        self._rows: dict[str, list[dict[str, str]]] = {}
        for row in self._read() if file.exists() else ():
            self._rows.setdefault(row["path"], []).append(row)

    def __enter__(self) -> None:
        write_whole(self._file, self._write)
        self._appended = self._file.open("a", newline="", encoding="utf-8")

    def __exit__(self, *_: object) -> None:
        self._appended.close()
        write_whole(self._file, self._write)

    def renew(self, path: str) -> list[dict[str, str]]:
        """Takes the rows of a photo from an earlier call out; there are none at its second face."""
        if path not in self._old:
            return []
        self._old.remove(path)
        return self._rows.pop(path, [])

    def add(self, row: dict[str, str]) -> None:
        """A face whose files are about to be written."""
        self._rows.setdefault(row["path"], []).append(row)
        csv.DictWriter(self._appended, COLUMNS).writerow(row)
        self._appended.flush()

    def _write(self, part: Path) -> None:
        with part.open("w", newline="", encoding="utf-8") as table:
            rows = csv.DictWriter(table, COLUMNS)
            rows.writeheader()
            rows.writerows(row for of_photo in self._rows.values() for row in of_photo)

    def _read(self) -> list[dict[str, str]]:
        with self._file.open(newline="", encoding="utf-8", errors="replace") as table:
            rows = csv.DictReader(table)
            if tuple(rows.fieldnames or ()) != COLUMNS:
                raise DataError(f"'{self._file}' is no table of this command: choose another folder by --out")
            return [row for row in rows if None not in row.values()]  # the last one may have been cut off


class FreeNames:
    """Names of faces: their file's; numbered where that, or what `remove_face` would remove with it, is taken.

    Args:
        taken: names that are taken before.
    """

    def __init__(self, taken: set[str]) -> None:
        self._taken = set(taken)

    def __call__(self, file: str) -> str:
        candidates = (file if number == 1 else f"{file}-{number}" for number in count(1))
        name = next(candidate for candidate in candidates if self._taken.isdisjoint(self._written(candidate)))
        self._taken.update(self._written(name))
        return name

    def release(self, names: set[str]) -> None:
        """These files are gone."""
        self._taken -= names

    def _written(self, name: str) -> set[str]:
        return {_name(file) for files in _files(name) for file in files}


def names_below(out: Path) -> set[str]:
    """Names of the files in the output folder, which nothing may replace."""
    return {path.relative_to(out).with_suffix("").as_posix() for path in out.rglob("*") if path.is_file()}


def _files(name: str) -> tuple[list[str], list[str]]:
    """All that is ever written of a face, below the output folder: its picture and mesh; its steps."""
    from pifr.export.mesh import MESH_FORMATS
    from pifr.export.panels import PANELS

    beside = [name + end for end in (".png", "_texture.png", ".mtl", *(f".{form}" for form in MESH_FORMATS))]
    return beside, [f"{name}/{panel}.png" for panel in PANELS]


def _name(file: str) -> str:
    return PurePosixPath(file).with_suffix("").as_posix()


def remove_face(out: Path, row: dict[str, str]) -> set[str]:
    """Removes what an earlier call wrote of a face, and returns the names that are free then."""
    beside, steps = _files(row["name"])
    files = (beside if row["picture"] else []) + (steps if row["status"] != "failed" else [])
    for file in files:
        (out / file).unlink(missing_ok=True)
    with suppress(OSError):  # not there, or not empty
        (out / row["name"]).rmdir()
    return {_name(file) for file in files}
