"""Annotated landmarks: CFP's fiducials, Multi-PIE's label files, or a plain CSV."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from pifr.errors import DataError
from protocols.landmarks import SCHEMES, Annotation
from protocols.multipie import CAMERA_YAW, MultiPie, image_path


def read_cfp(root: str | Path, view: str = "profile") -> list[Annotation]:
    """CFP's fiducials, `Data/Fiducials/NNN/<view>/MM.txt`: thirty lines `x,y`; one side of the face.

    Args:
        root: folder with `Data`.
        view: `profile` or `frontal`.

    Raises:
        DataError: a file does not hold thirty points, or there are none at all.
    """
    folder = Path(root) / "Data" / "Fiducials"
    found = []
    for path in sorted(folder.glob(f"*/{view}/*.txt")):
        sample = path.relative_to(folder).with_suffix(".jpg").as_posix()
        points = _read_points(path, SCHEMES["cfp30"].count)
        found.append(
            Annotation(sample, Path(root) / "Data" / "Images" / sample, sample.partition("/")[0], view, "cfp30", points)
        )
    if not found:
        raise DataError(f"no fiducials '{folder}/NNN/{view}/MM.txt'")
    return found


def read_multipie(root: str | Path, labels: str | Path, session: int = 1, smallest_yaw: int = 60) -> list[Annotation]:
    """Multi-PIE's label files `<subject>_<session>_<recording>_<camera>_<shot>_lm.mat`, 39 or 68 points each.

    The files hold MATLAB coordinates, whose first pixel is (1, 1). `.txt` and `.pts` with a point a line are read
    likewise.

    Args:
        root: folder with `session01` or with `data`.
        labels: folder that holds the files, at any depth.
        session: the paper measures session 1.
        smallest_yaw: degrees; the paper: "extreme poses [±60°, ±90°]", which is taken for a range.

    Raises:
        DataError: a file has neither 39 nor 68 points, or none fits the selection.
    """
    images = MultiPie(root).image_root
    cameras = {name.replace("_", ""): name for name in CAMERA_YAW}
    pattern = re.compile(r"(\d{3})_(\d{2})_(\d{2})_(\d{3})_(\d{2})(?:_lm)?")
    found = []
    for path in sorted(file for file in Path(labels).rglob("*") if file.suffix in (".mat", ".txt", ".pts")):
        match = pattern.fullmatch(path.stem)
        if not match or match[4] not in cameras:
            continue
        subject, number, recording, camera, shot = match.groups()
        yaw = CAMERA_YAW[cameras[camera]]
        if int(number) != session or abs(yaw) < smallest_yaw:
            continue
        points = _read_points(path) - 1
        scheme = {39: "multipie39", 68: "multipie68"}.get(len(points))
        if scheme is None:
            raise DataError(f"'{path}' holds {len(points)} points, not 39 or 68")
        sample = image_path(subject, session, recording, cameras[camera], shot)
        found.append(Annotation(sample, images / sample, subject, cameras[camera], scheme, points, float(yaw)))
    if not found:
        raise DataError(f"no label of session {session} at |yaw| >= {smallest_yaw} in '{labels}'")
    return found


def read_csv(path: str | Path) -> list[Annotation]:
    """A plain CSV with one point a line.

    Columns `path` (relative to the CSV), `landmark` (from 1), `x`, `y` (first pixel: (0, 0)), and
    if wanted `scheme` (a name of `SCHEMES`, by default `multipie68`), `subject`, `view`, `yaw`.

    Raises:
        DataError: a column is missing, or a line names an unknown scheme or landmark.
    """
    import pandas as pd

    path = Path(path)
    try:
        table = pd.read_csv(path, dtype={"path": str, "subject": str, "view": str, "scheme": str})
        missing = {"path", "landmark", "x", "y"} - set(table.columns)
        if missing:
            raise DataError(f"'{path}' lacks the columns {', '.join(sorted(missing))}")
        numbers = ["landmark", "x", "y", *({"yaw"} & set(table.columns))]
        table[numbers] = table[numbers].apply(pd.to_numeric)
    except (OSError, ValueError) as error:
        raise DataError(f"'{path}' cannot be read as CSV: {error}") from error
    defaults = {"scheme": "multipie68", "subject": "", "view": "", "yaw": np.nan}
    table = table.assign(**{name: table.get(name, value) for name, value in defaults.items()}).fillna(defaults)
    found = []
    for name, rows in table.groupby("path", sort=True):
        first = rows.iloc[0]
        scheme = SCHEMES.get(first.scheme)
        if scheme is None or not rows.landmark.isin(range(1, scheme.count + 1)).all():
            allowed = ", ".join(f"{known.name} (1 to {known.count})" for known in SCHEMES.values())
            raise DataError(f"'{path}': {name} has a landmark outside its scheme {first.scheme!r}; known: {allowed}")
        points = np.full((scheme.count, 2), np.nan)
        points[rows.landmark.to_numpy(int) - 1] = rows[["x", "y"]].to_numpy(np.float64)
        image = path.parent / str(name)
        found.append(
            Annotation(str(name), image, str(first.subject), str(first["view"]), scheme.name, points, float(first.yaw))
        )
    return found


def _read_points(path: Path, count: int | None = None) -> np.ndarray:
    try:
        if path.suffix == ".mat":
            from scipy.io import loadmat

            points = np.asarray(loadmat(path)["pts"], np.float64)
        else:
            points = np.array(re.findall(r"^\s*([-+.\deE]+)[,\s]+([-+.\deE]+)\s*$", path.read_text(), re.M), np.float64)
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"'{path}' cannot be read as landmarks: {error}") from error
    if points.ndim != 2 or points.shape[1] != 2 or (count and len(points) != count):
        raise DataError(f"'{path}' holds points of shape {points.shape}, not ({count or 'n'}, 2)")
    return points
