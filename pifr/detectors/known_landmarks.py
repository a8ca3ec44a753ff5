"""Where no network has to look: landmarks from a file, and faces that are aligned already."""

import csv
import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pifr.detectors.base import NO_FACE, Detections, landmark_boxes
from pifr.errors import DataError
from pifr.geometry.alignment import ARCFACE_112, handedness

log = logging.getLogger(__name__)

_EXCHANGED = -0.2
"""`handedness` of landmarks in the wrong order, clearly: a profile's hidden eye may be placed on either side."""

_RECIPE = 2  # part of a landmark file's fingerprint: raise it when the same image may give other faces


class LandmarkFile:
    """Five landmarks an image, from a CSV file with the columns path, x1, y1, ..., x5, y5; no detector runs.

    Their order is the eye on the image's left, the other eye, the nose, the corner of the mouth on the image's left,
    the other corner.

    A relative path is looked up from the folder of the CSV file. Coordinates are pixels with the centre of the first at
    (0, 0). An image that is not in the file, or whose coordinates are empty, has no face. Several lines for one image
    are several faces. Landmarks that are more than two of the image's longer sides apart are no face of it.

    Raises:
        DataError: the file is missing or has other columns, or a line names no image, does not hold ten numbers, puts
            all landmarks into one pixel, or clearly exchanges left and right; names the line.
    """

    missing = "no_landmarks"
    by_name = True
    COLUMNS = ("path", *(f"{axis}{number}" for number in range(1, 6) for axis in "xy"))

    def __init__(self, path: str | Path) -> None:
        path = Path(path)
        try:
            content = path.read_bytes()
            text = content.decode("utf-8-sig")
        except OSError as error:
            raise DataError(f"landmark file '{path}' cannot be read: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise DataError(f"landmark file '{path}' is not UTF-8 text") from error
        reader = csv.DictReader(text.splitlines())
        if missing := [column for column in self.COLUMNS if column not in (reader.fieldnames or ())]:
            raise DataError(f"landmark file '{path}' lacks the columns {', '.join(missing)}: its first line names them")
        self._folder = path.parent
        # The folder decides which images are found: a failure that came of a misplaced file must not outlive it.
        folder = str(self._folder.resolve()).encode()
        self.fingerprint = f"file-{hashlib.sha256(content + folder).hexdigest()[:12]}v{_RECIPE}"
        self._points: dict[Path, list[np.ndarray]] = {}
        for row in reader:
            values = [row[column] for column in self.COLUMNS[1:]]
            if not any(values):
                continue
            place = f"landmark file '{path}', line {reader.line_num}"
            points = _five_points(values, place)
            if not row["path"]:
                raise DataError(f"{place}: the path is missing")
            self._points.setdefault(self._key(row["path"]), []).append(points)

    def _key(self, name: str | Path) -> Path:
        return (self._folder / name).resolve()

    def __call__(self, image: np.ndarray, name: str | Path = "", every: bool = False) -> Detections:
        points = np.array(self._points.get(self._key(name), [])).reshape(-1, 5, 2)
        # The square around such landmarks may be larger than the memory.
        possible = np.ptp(points, axis=1).max(1) <= 2 * max(image.shape[:2])
        if not possible.all():
            size = " x ".join(map(str, image.shape[1::-1]))
            log.warning("'%s' has landmarks that are too far apart for its %s pixels: taken for none", name, size)
        points = points[possible]
        if not len(points):
            return NO_FACE
        return Detections(landmark_boxes(points), points, np.ones(len(points)))


def _five_points(values: Sequence[str], place: str) -> np.ndarray:
    """Landmarks of one line, 5 x 2; raises DataError, which names the place, if they are none."""
    try:
        points = np.array([float(value) for value in values]).reshape(5, 2)
    except (TypeError, ValueError) as error:
        raise DataError(f"{place}: ten numbers are needed") from error
    if not np.isfinite(points).all():
        raise DataError(f"{place}: a coordinate is not finite")
    if np.ptp(points, axis=0).max() < 1:
        raise DataError(f"{place}: all landmarks lie in one pixel; where there is no face, leave coordinates empty")
    if handedness(points) < _EXCHANGED:
        raise DataError(
            f"{place}: left and right are exchanged: the order is the eye on the image's left, the other eye, the nose,"
            " the corner of the mouth on the image's left, the other corner"
        )
    return points


class Aligned:
    """No detector: the whole image is one face that is aligned to ArcFace's template, as in InsightFace's packed sets.

    Its landmarks are the template's, scaled to the image. An image that is not square is the middle of the square, as
    crops of 96 x 112 are. The box is as large as makes a face crop of a 112 x 112 image a copy of its pixels, so that
    recognizers of that size see what the file holds.
    """

    _BOX = 128 / 112
    """Its side over the image's; YuNet's boxes of such faces are a tenth smaller."""

    missing = "no_face"
    by_name = False
    fingerprint = f"aligned-{ARCFACE_112.name}-v2"

    def __call__(self, image: np.ndarray, name: str | Path = "", every: bool = False) -> Detections:
        size = np.array(image.shape[1::-1])
        points = ARCFACE_112.scaled(int(size.max())).numpy()[None] - (size.max() - size) / 2
        middle, half = (size - 1) / 2, self._BOX * size.max() / 2
        return Detections(np.concatenate([middle - half, middle + half])[None], points, np.ones(1))
