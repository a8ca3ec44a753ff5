"""YuNet, looking at a photo as often as it needs."""

from pathlib import Path
from threading import Lock
from typing import NamedTuple

import cv2
import numpy as np

from pifr.detectors.base import NO_FACE, Detections
from pifr.geometry.five_landmarks import roll_from_landmarks
from pifr.zoo import ZOO

_RECIPE = 3  # part of the fingerprint: raise it when the same image may give other faces

_CANDIDATES = 5000
"""How many boxes are kept before those of one face become one: some ten a face."""


class _Face(NamedTuple):
    """One face that YuNet found, in pixels of the image."""

    centre: np.ndarray
    sides: np.ndarray
    """Width and height of the box, which is upright in the view that showed it."""
    landmarks: np.ndarray
    score: float
    zoom: float
    """View pixels an image pixel."""

    @property
    def size(self) -> float:
        return float(self.sides.max())


class YuNet:
    """OpenCV's YuNet (Wu, Peng, Yu: YuNet, a tiny millisecond-level face detector, MIR 2023), int8 weights.

    One pass of it does not find both a profile that fills the frame and a small one in a large photo, misses heads that
    are rolled, and gives landmarks that are level whatever a small head's roll (`pifr bench detection` measures it). So
    the image is looked at as a whole, first coarsely, then finer as long as no face is found for sure; then turned. At
    last faces are looked at closely, which makes their boxes and landmarks better, and finds out some that are none.

    Args:
        threshold: least score of a face.
        sure: score from which a face is not looked for any further.
        close_below: faces that are smaller than this in the look that found them, in pixels, are looked at closely, and
            so are those that are rolled or not sure. Infinite: all of them, which takes twice as long.
    """

    missing = "no_face"
    by_name = False

    _FACE_FILLS_FRAME = 178
    """Longer side of the image in the first look, pixels; each further look doubles it."""
    _LARGEST_VIEW = 2000
    """Longer side of the image in the finest look, pixels, at most."""
    _MARGIN = 71
    """Pixels of repeated border around each look: YuNet misses profiles that touch the frame."""
    _ROLLS = (45.0, -45.0, 90.0, -90.0)
    """Degrees by which the image is turned where no face was found for sure."""
    _CLOSE_FACE, _CLOSE_VIEW = 240, 528
    """Side of the face and of the view when a face is looked at closely, pixels."""
    _LEVEL = 15.0
    """Degrees of roll up to which the landmarks can be trusted to follow it."""
    _DOUBTFUL = 0.25
    """Faces whose score is this much lower than the best one's are mistakes: hair, hands and ears, mostly."""

    def __init__(self, threshold: float = 0.5, sure: float = 0.75, close_below: float = 64.0) -> None:
        weights = ZOO["yunet"]
        self.threshold, self.sure, self.close_below = threshold, sure, close_below
        settings = f"threshold={threshold:g},sure={sure:g},close_below={close_below:g}"
        self.fingerprint = f"yunet-{weights.sha256[:12]}({settings})v{_RECIPE}"
        file = str(weights.path())
        level = cv2.utils.logging.getLogLevel()
        cv2.utils.logging.setLogLevel(2)  # OpenCV 5 warns at each load that its new engine takes no target
        # Close looks may be less sure than the threshold, for what they look at has been found already.
        self._network = cv2.FaceDetectorYN.create(file, "", (320, 320), min(0.3, threshold), 0.3, _CANDIDATES)
        cv2.utils.logging.setLogLevel(level)
        self._lock = Lock()

    def __reduce__(self) -> tuple[type["YuNet"], tuple[float, float, float]]:
        # OpenCV's network cannot be copied or sent to another process.
        return YuNet, (self.threshold, self.sure, self.close_below)

    def __call__(self, image: np.ndarray, name: str | Path = "", every: bool = False) -> Detections:
        found = _distinct(self._search(image, every))
        confirmed = [known for face in found if (known := self._confirmed(image, face))]
        faces = _distinct(confirmed or found)
        if not faces:
            return NO_FACE
        # The surest comes first.
        faces = [face for face in faces if face.score >= faces[0].score - self._DOUBTFUL]
        boxes = [np.concatenate([face.centre - face.sides / 2, face.centre + face.sides / 2]) for face in faces]
        return Detections(
            np.stack(boxes),
            np.stack([face.landmarks for face in faces]),
            np.array([face.score for face in faces]),
        )

    def _search(self, image: np.ndarray, every: bool) -> list[_Face]:
        """Faces in the whole image, the same one several times if several looks show it."""
        longest = max(image.shape[:2])
        coarse = self._FACE_FILLS_FRAME / longest
        zooms = [coarse]
        # Twice as large as it is, a photo shows no more; a tiny one is given one finer look nevertheless.
        while zooms[-1] < max(1, 2 * coarse) and 2 * zooms[-1] * longest <= self._LARGEST_VIEW:
            zooms.append(2 * zooms[-1])
        faces: list[_Face] = []
        for zoom in zooms:
            faces += self._look_at_all(image, zoom)
            if self._is_sure(faces) and not every:
                break
        if not self._is_sure(faces):
            for roll in self._ROLLS:
                faces += self._look_at_all(image, coarse, roll) + self._look_at_all(image, 2 * coarse, roll)
        return faces

    def _is_sure(self, faces: list[_Face]) -> bool:
        return any(face.score >= self.sure for face in faces)

    def _look_at_all(self, image: np.ndarray, zoom: float, roll: float = 0.0) -> list[_Face]:
        height, width = image.shape[:2]
        cosine, sine = abs(np.cos(np.radians(roll))), abs(np.sin(np.radians(roll)))
        turned = np.array([width * cosine + height * sine, width * sine + height * cosine])
        size = np.ceil(zoom * turned).astype(int) + 2 * self._MARGIN
        faces = self._look(image, np.array([width - 1, height - 1]) / 2, zoom, size, roll)
        return [face for face in faces if face.score >= self.threshold]

    def _confirmed(self, image: np.ndarray, face: _Face) -> _Face | None:
        """The face, better known if need be; None if it is none after all."""
        roll = roll_from_landmarks(face.landmarks)
        large = face.size * face.zoom >= self.close_below
        if large and face.score >= self.sure and abs(roll) <= self._LEVEL:
            return face
        # Small, level heads seem to be rolled by as much as 30 degrees.
        return self._look_closely(image, face, roll if abs(roll) > 2 * self._LEVEL else 0.0)

    def _look_closely(self, image: np.ndarray, face: _Face, roll: float) -> _Face | None:
        """The face seen large, turned level by its roll (degrees) and by what is left of that; None if it is gone."""
        best = None
        for _ in range(3):
            size = np.full(2, self._CLOSE_VIEW)
            seen = self._look(image, face.centre, self._CLOSE_FACE / face.size, size, roll)
            seen = [other for other in seen if _same(face, other) and 0.5 < other.size / face.size < 2]
            if not seen:
                break
            face = max(seen, key=lambda other: other.score - np.linalg.norm(other.centre - face.centre) / face.size)
            if best is not None and face.score < best.score - 0.1:
                break
            best, looked_at = face, roll
            roll = roll_from_landmarks(face.landmarks)
            if abs((roll - looked_at + 180) % 360 - 180) <= self._LEVEL:
                break
        return best

    def _look(self, image: np.ndarray, centre: np.ndarray, zoom: float, size: np.ndarray, roll: float) -> list[_Face]:
        """Faces in one view of the image, above the network's own low threshold; arguments as `_view`."""
        view, to_image = _view(image, centre, zoom, size, roll)
        with self._lock:
            self._network.setInputSize(view.shape[1::-1])
            _, found = self._network.detect(view[:, :, ::-1].copy())
        if found is None:
            return []
        found = found.astype(np.float64)
        # The network's coordinates are continuous (0 at the image's edge), ours have a pixel's centre at 0.
        centres = found[:, :2] + found[:, 2:4] / 2 - 0.5
        points = np.concatenate([centres[:, None], found[:, 4:14].reshape(-1, 5, 2) - 0.5], 1)
        points = points @ to_image[:, :2].T + to_image[:, 2]
        return [
            _Face(at[0], sides / zoom, at[1:], float(score), zoom)
            for at, sides, score in zip(points, found[:, 2:4], found[:, 14], strict=True)
        ]


def _view(
    image: np.ndarray, centre: np.ndarray, zoom: float, size: np.ndarray, roll: float
) -> tuple[np.ndarray, np.ndarray]:
    """What a look shows: an upright rectangle in heads of a given roll, the image's border repeated beyond it.

    Args:
        image: uint8 H x W x 3.
        centre: (x, y) of the image in the view's middle. zoom: view pixels an image pixel. size: width and height of
            the view. roll: degrees clockwise.

    Returns:
        uint8 h x w x 3, and the map 2 x 3 from its pixels to those of the image.
    """
    cosine, sine = np.cos(np.radians(roll)) / zoom, np.sin(np.radians(roll)) / zoom
    linear = np.array([[cosine, -sine], [sine, cosine]])
    to_image = np.column_stack([linear, centre - linear @ ((size - 1) / 2)])
    # Only what the view may show is shrunk, and averaged where it is.
    reach = np.hypot(*size) / 2 / zoom + 2
    whole = np.array(image.shape[1::-1])
    low = np.clip(np.floor(centre - reach), 0, whole - 1).astype(int)
    high = np.clip(np.ceil(centre + reach), low + 1, whole).astype(int)
    part = image[low[1] : high[1], low[0] : high[0]]
    if zoom < 1:
        part = cv2.resize(part, np.maximum(np.round((high - low) * zoom), 1).astype(int), interpolation=cv2.INTER_AREA)
    factor = np.array(part.shape[1::-1]) / (high - low)
    to_part = np.column_stack([factor[:, None] * linear, factor * (to_image[:, 2] - low + 0.5) - 0.5])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(part, to_part, size.tolist(), flags=flags, borderMode=cv2.BORDER_REPLICATE), to_image


def _same(face: _Face, other: _Face) -> bool:
    return bool(np.linalg.norm(face.centre - other.centre) < max(face.size, other.size) / 2)


def _distinct(faces: list[_Face]) -> list[_Face]:
    """Each face once, as the surest look shows it; the surest face first."""
    kept: list[_Face] = []
    for face in sorted(faces, key=lambda face: -face.score):
        if not any(_same(face, other) for other in kept):
            kept.append(face)
    return kept
