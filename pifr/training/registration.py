"""Registers near-frontal photos by the face model: the first half of the data road (docs/architecture.md).

Landmarks come from `landmark_sources`, the fit from `landmark_fit`. A photo that does not fit is rejected with a
reason, never silently used.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pifr.errors import DataError, ImageError
from pifr.faces import FaceFinder
from pifr.geometry.face_model import load_face_model
from pifr.geometry.five_landmarks import five_of_68
from pifr.images import IMAGE_SUFFIXES, read_image
from pifr.support.files import claim_folder, file_sha256, read_table, write_whole
from pifr.support.workers import start_worker, usable_cores
from pifr.training.landmark_fit import PhotoFit, fitter_fingerprint, load_fitter
from pifr.training.landmark_sources import LandmarkSource, five_points_in_photo, load_landmark_source
from pifr.zoo import find_weights

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)

CHUNK = 64
"""Photos a part file holds: what a killed run loses at most, a process."""

MAX_RESIDUAL_MM = 1.0
"""Of 2,759 photos none leaves more than 0.6."""
MAX_FIVE_POINT_DISTANCE_MM = 17.0
"""Wide, for the detector errs more than the fit on turned and dark faces."""
MAX_YAW_DEGREES = 45.0
MAX_IDENTITY = 4.5


def find_photos(folder: Path, sets: Sequence[str] = ()) -> list[Path]:
    """Image files under `folder`, relative, sorted; only those of the given sets (first folder level), if any.

    Raises:
        DataError: if there is none.
    """
    photos = sorted(
        path.relative_to(folder)
        for path in folder.rglob("*")
        if path.suffix.lower() in IMAGE_SUFFIXES and (not sets or path.relative_to(folder).parts[0] in sets)
    )
    if not photos:
        raise DataError(f"'{folder}': no photos ({', '.join(sorted(IMAGE_SUFFIXES))}) of sets {list(sets) or 'any'}")
    require_sets(sets, {path.parts[0] for path in photos}, folder)
    return photos


def require_sets(sets: Sequence[str], known: Iterable[str], folder: Path) -> None:
    """Raises DataError if a set is asked for that there is not."""
    if missing := sorted(set(sets) - set(known)):
        raise DataError(f"'{folder}' has no photos of the set {missing[0]!r}")


def register(
    photos: Path, out: Path, *, sets: Sequence[str] = (), workers: int = 0, landmarks: str = "cnet"
) -> Iterator[tuple[int, int]]:
    """Register every photo under `photos`; yields (done, total) after each part.

    Writes `out/parts/part-NNNN.parquet` (atomically, one a chunk of photos; finished parts are skipped when run
    again) and at the end `out/registration.parquet`: photo, set, status, reason, quality figures and the fit.

    Args:
        photos: folder; its first folder level names the sets. sets: keep these only. workers: processes, 0: all cores.
        landmarks: the landmark source, "cnet" or "face-mesh".

    Raises:
        UnknownNameError: there is no such source.
        DataError: there are no photos, or no face in any, or `out` holds the registration of others (by names and
            sizes of their files), or by other networks.
    """
    import pandas as pd

    find_weights("yunet").fetch()
    source = load_landmark_source(landmarks)  # what is wrong with it shows, and is fetched, before processes start
    names = find_photos(photos, sets)
    parts = out / "parts"
    parts.mkdir(parents=True, exist_ok=True)
    sizes = (f"{name} {(photos / name).stat().st_size}" for name in names)
    manifest = {
        "photos_sha256": hashlib.sha256("\n".join(sizes).encode()).hexdigest(),
        "landmarks": source.fingerprint,
        "fit": fitter_fingerprint(landmarks),
        "faces": _face_finder().fingerprint,
    }
    claim_folder(parts / "manifest.json", manifest)
    chunks = [names[begin : begin + CHUNK] for begin in range(0, len(names), CHUNK)]
    paths = [parts / f"part-{k:04d}.parquet" for k in range(len(chunks))]
    todo = [(photos, chunk, path, landmarks) for chunk, path in zip(chunks, paths, strict=True) if not path.exists()]
    done = len(chunks) - len(todo)
    with ProcessPoolExecutor(workers or usable_cores(), get_context("spawn"), start_worker) as pool:
        for _ in pool.map(_register_chunk, todo):
            done += 1
            yield min(done * CHUNK, len(names)), len(names)
    remedy = "delete it, and 'pifr train register' makes it anew"
    table = pd.concat([read_table(path, remedy) for path in paths], ignore_index=True)
    write_whole(out / "registration.parquet", table.to_parquet)
    if "residual_mm" not in table:
        raise DataError(f"'{photos}': no face could be fitted: {summary(table)}")


def read_registration(folder: Path) -> pd.DataFrame:
    """The fits that `pifr train register` wrote, a row a photo.

    Raises:
        DataError: there are none, they are damaged, or an earlier version wrote them.
    """
    file = folder / "registration.parquet"
    if not file.is_file():
        raise DataError(f"'{file}' does not exist: 'pifr train register' writes it")
    table = read_table(file, "register the photos again")
    if lacking := {"photo", "set", "status", "reason", "residual_mm", "sha256"} - set(table):
        raise DataError(f"'{file}' has no column {min(lacking)}: register the photos again, with this version")
    return table


def summary(table: pd.DataFrame) -> str:
    """How many photos of a registration were accepted, and how many were not for which reason, in one line."""
    counts = table.loc[table["status"] != "ok", "reason"].value_counts()
    rejected = ", ".join(f"{reason} {count:,}" for reason, count in counts.items())
    accepted = f"{len(table) - counts.sum():,} of {len(table):,} photos"
    return f"{accepted}, rejected: {rejected}" if rejected else accepted


def _register_chunk(task: tuple[Path, list[Path], Path, str]) -> None:
    import pandas as pd

    photos, chunk, path, landmarks = task
    source, finder = _landmark_source(landmarks), _face_finder()
    rows = [_register_photo(photos / name, name, source, finder) for name in chunk]
    write_whole(path, pd.DataFrame(rows).to_parquet)


@lru_cache(maxsize=1)
def _landmark_source(name: str) -> LandmarkSource:
    return load_landmark_source(name)


@lru_cache(maxsize=1)
def _face_finder() -> FaceFinder:
    return FaceFinder(detector="yunet", policy="central")


def _register_photo(path: Path, name: Path, source: LandmarkSource, finder: FaceFinder) -> dict:
    """The row of one photo."""
    row = {"photo": name.as_posix(), "set": name.parts[0] if len(name.parts) > 1 else ""}
    try:
        image = read_image(path)
    except ImageError:
        return row | {"status": "rejected", "reason": "unreadable"}
    return row | {"sha256": file_sha256(path)} | register_image(image, source, finder)


def register_image(image: np.ndarray, source: LandmarkSource, finder: FaceFinder) -> dict:
    """Register one uint8 RGB image: `status` "ok" or "rejected", `reason`, quality figures and the fit's fields."""
    faces = finder([image])
    if faces.status[0] != "ok":
        return {"status": "rejected", "reason": faces.reason[0]}
    found = source(image, faces)
    if found.reason:
        return {"status": "rejected", "reason": found.reason}
    fit = load_fitter(source.name).fit(found.points)
    yaw, pitch, roll = fit.angles
    disagreement = _five_point_distance(fit, five_points_in_photo(faces))
    checks = {
        "poor_fit": fit.residual_mm > MAX_RESIDUAL_MM,
        "landmarks_disagree": disagreement > MAX_FIVE_POINT_DISTANCE_MM,
        "profile": abs(yaw) > MAX_YAW_DEGREES,
        "unlikely_shape": float(np.abs(fit.identity).max()) > MAX_IDENTITY,
    }
    reason = next((name for name, failed in checks.items() if failed), "")
    quality = {"residual_mm": fit.residual_mm, "five_point_mm": disagreement}
    fields = {key: np.ravel(value).tolist() if np.ndim(value) else value for key, value in asdict(fit).items()}
    status = {"status": "rejected" if reason else "ok", "reason": reason}
    return status | quality | {"yaw": yaw, "pitch": pitch, "roll": roll} | fields


def _five_point_distance(fit: PhotoFit, five_points: np.ndarray) -> float:
    """Mean distance in mm between the detector's five points (5 x 2 pixels) and the same five of the fit."""
    model = load_face_model()
    points = fit.project(model.vertices(fit.identity, fit.expression)[model.landmarks68])[:, :2]
    return float(np.linalg.norm(five_of_68(points) - five_points, axis=1).mean() / fit.scale)


def registered_photo(photos: Path, row) -> np.ndarray:
    """The photo, uint8 RGB, that a row of `registration.parquet` (a Series or a named tuple) was registered from.

    Raises:
        DataError: there is another one under its name by now, which the fit says nothing of.
        ImageError: it cannot be read.
    """
    path = photos / row.photo
    image = read_image(path)
    if file_sha256(path) != row.sha256:
        raise DataError(f"'{path}' is not the file that was registered: register the photos as they are now")
    return image


def read_fit(row) -> PhotoFit:
    """The fit in a row of `registration.parquet` (a Series or a named tuple)."""
    return PhotoFit(
        np.array(row.identity, np.float32),
        np.array(row.expression, np.float32),
        float(row.scale),
        np.array(row.rotation).reshape(3, 3),
        np.array(row.translation),
        np.array(row.residual, np.float32).reshape(-1, 2),
    )
