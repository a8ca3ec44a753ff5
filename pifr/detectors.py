"""Face detectors: a box and five landmarks for each face of an image."""

import csv
import hashlib
from functools import cache
from pathlib import Path
from typing import NamedTuple, Protocol

import cv2
import numpy as np

from pifr.alignment import ARCFACE_112
from pifr.errors import DataError, UnknownNameError
from pifr.zoo import ZOO


class Detections(NamedTuple):
    """The faces of one image, in its pixels."""

    boxes: np.ndarray
    """N x 4 float64: left, top, right, bottom."""
    landmarks: np.ndarray
    """N x 5 x 2 float64 (x, y): image-left eye, image-right eye, nose tip, image-left and image-right mouth corner."""
    scores: np.ndarray
    """N float64, higher is surer."""


class Detector(Protocol):
    """Finds faces. A detector is used by one thread at a time; each worker loads its own."""

    fingerprint: str
    """Changes whenever the same image may give other faces."""
    missing: str
    """The reason that is recorded where nothing is found."""

    def __call__(self, image: np.ndarray, name: str | Path = "") -> Detections:
        """Faces of one uint8 H x W x 3 RGB image, in any order, possibly none; `name` is what the user calls it."""
        ...


LANDMARK_BOX_RATIO = 2.7
"""Side of the box around faces of which only the landmarks are known, over the longer side of their extent:
the median of YuNet's boxes on 247 frontal portraits."""

NO_FACE = Detections(np.zeros((0, 4)), np.zeros((0, 5, 2)), np.zeros(0))


def load_detector(name: str) -> Detector:
    """Make the detector that a configuration names.

    Args:
        name: "yunet", "mtcnn", "aligned" for images that are aligned faces already, or "file:PATH" for landmarks from a
            CSV file.

    Raises:
        UnknownNameError: no such detector.
        WeightsError: its weights have not been fetched.
        DataError: the landmark file is missing or malformed.
    """
    kind, _, argument = name.partition(":")
    if kind == "file":
        return LandmarkFile(argument)
    if name not in DETECTORS:
        raise UnknownNameError("detector", name, [*DETECTORS, "file:PATH"])
    return DETECTORS[name]()


def _pad(image: np.ndarray, fraction: float) -> tuple[np.ndarray, int]:
    """Replicate the border by a fraction of the longer side: detectors miss profiles that touch the frame."""
    margin = int(max(image.shape[:2]) * fraction)
    return cv2.copyMakeBorder(image, margin, margin, margin, margin, cv2.BORDER_REPLICATE), margin


def _resize(image: np.ndarray, side: int) -> tuple[np.ndarray, float]:
    """Bring the longer side to `side`; the factor is new size / old size."""
    factor = side / max(image.shape[:2])
    size = [max(round(length * factor), 1) for length in image.shape[1::-1]]
    interpolation = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    return cv2.resize(image, size, interpolation=interpolation), factor


class YuNet:
    """OpenCV's YuNet (Wu, Peng, Yu: YuNet, a tiny millisecond-level face detector, MIR 2023), int8 weights.

    On CFP-like crops it needs room around the head: the image is padded by its replicated border, then scaled so that
    the face has the size that the network was trained for.

    Args:
        padding: on each side, as a fraction of the longer side.
        side: longer side of what the network sees, in pixels.
        threshold: least score.
    """

    missing = "no_face"

    def __init__(self, padding: float = 0.4, side: int = 320, threshold: float = 0.5) -> None:
        weights = ZOO["yunet"]
        self.padding, self.side = padding, side
        self.fingerprint = f"yunet-{weights.sha256[:12]}(padding={padding:g},side={side},threshold={threshold:g})"
        file = str(weights.path())
        level = cv2.utils.logging.getLogLevel()
        cv2.utils.logging.setLogLevel(2)  # OpenCV 5 warns at each load that its new engine takes no target
        self._network = cv2.FaceDetectorYN.create(file, "", (side, side), threshold, 0.3, 100)
        cv2.utils.logging.setLogLevel(level)

    def __call__(self, image: np.ndarray, name: str | Path = "") -> Detections:
        padded, margin = _pad(image, self.padding)
        small, factor = _resize(padded, self.side)
        self._network.setInputSize(small.shape[1::-1])
        _, faces = self._network.detect(small[:, :, ::-1])
        if faces is None:
            return NO_FACE
        faces = faces.astype(np.float64)
        # The network's coordinates are continuous (0 at the image's edge), ours have a pixel's centre at 0.
        boxes = np.concatenate([faces[:, :2], faces[:, :2] + faces[:, 2:4]], 1) / factor - 0.5 - margin
        landmarks = faces[:, 4:14].reshape(-1, 5, 2) / factor - 0.5 - margin
        return Detections(boxes, landmarks, faces[:, 14])


class Mtcnn:
    """facenet-pytorch's MTCNN (Zhang et al., SPL 2016); its weights come with that package.

    Args:
        padding: on each side, as a fraction of the longer side.
        side: the padded image is scaled down to this longer side, never up.
    """

    missing = "no_face"

    def __init__(self, padding: float = 0.2, side: int = 480) -> None:
        from pifr._torchvision import ensure_operators

        ensure_operators()
        import facenet_pytorch

        self.padding, self.side = padding, side
        self.fingerprint = f"mtcnn-{_package_digest(facenet_pytorch.__file__)}(padding={padding:g},side={side})"
        self._network = facenet_pytorch.MTCNN(keep_all=True, post_process=False, min_face_size=40)

    def __call__(self, image: np.ndarray, name: str | Path = "") -> Detections:
        padded, margin = _pad(image, self.padding)
        factor = 1.0
        if max(padded.shape[:2]) > self.side:
            padded, factor = _resize(padded, self.side)
        if min(padded.shape[:2]) < self._network.min_face_size:
            return NO_FACE  # the network's image pyramid would be empty, which facenet-pytorch does not expect
        boxes, scores, landmarks = self._network.detect(padded, landmarks=True)
        if boxes is None:
            return NO_FACE
        boxes = (np.asarray(boxes, np.float64) + 0.5) / factor - 0.5 - margin
        landmarks = (np.asarray(landmarks, np.float64) + 0.5) / factor - 0.5 - margin
        return Detections(boxes, landmarks, np.asarray(scores, np.float64))


@cache
def _package_digest(init_file: str) -> str:
    """Twelve hex digits for the three networks that lie in facenet-pytorch's data folder."""
    digest = hashlib.sha256()
    for part in ("pnet.pt", "rnet.pt", "onet.pt"):
        digest.update((Path(init_file).parent / "data" / part).read_bytes())
    return digest.hexdigest()[:12]


class LandmarkFile:
    """Five landmarks an image, from a CSV file with the columns path, x1, y1, ..., x5, y5; no detector runs.

    A relative path is looked up from the folder of the CSV file. Coordinates are pixels with the centre of the first at
    (0, 0). An image that is not in the file, or whose coordinates are empty, has no face. Several lines for one image
    are several faces.

    Raises:
        DataError: the file is missing, has other columns, or a line does not hold ten numbers; names the line.
    """

    missing = "no_landmarks"
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
        place = str(self._folder.resolve()).encode()
        self.fingerprint = f"file-{hashlib.sha256(content + place).hexdigest()[:12]}"
        self._points: dict[Path, list[np.ndarray]] = {}
        for row in reader:
            values = [row[column] for column in self.COLUMNS[1:]]
            if not any(values):
                continue
            try:
                points = np.array([float(value) for value in values]).reshape(5, 2)
            except (TypeError, ValueError) as error:
                raise DataError(f"landmark file '{path}', line {reader.line_num}: ten numbers are needed") from error
            if not np.isfinite(points).all():
                raise DataError(f"landmark file '{path}', line {reader.line_num}: a coordinate is not finite")
            self._points.setdefault(self._key(row["path"]), []).append(points)

    def _key(self, name: str | Path) -> Path:
        return (self._folder / name).resolve()

    def __call__(self, image: np.ndarray, name: str | Path = "") -> Detections:
        points = np.array(self._points.get(self._key(name), [])).reshape(-1, 5, 2)
        if not len(points):
            return NO_FACE
        return Detections(_landmark_boxes(points), points, np.ones(len(points)))


class Aligned:
    """No detector: the whole image is one face that is aligned to ArcFace's template, as in InsightFace's packed sets.

    Its landmarks are the template's, scaled to the image. An image that is not square is the middle of the square, as
    crops of 96 x 112 are.
    """

    missing = "no_face"
    fingerprint = f"aligned-{ARCFACE_112.name}"

    def __call__(self, image: np.ndarray, name: str | Path = "") -> Detections:
        size = np.array(image.shape[1::-1])
        points = ARCFACE_112.scaled(int(size.max())).numpy()[None] - (size.max() - size) / 2
        return Detections(_landmark_boxes(points), points, np.ones(1))


def _landmark_boxes(landmarks: np.ndarray) -> np.ndarray:
    """The box that a detector would put around five landmarks: N x 5 x 2 -> N x 4."""
    low, high = landmarks.min(1), landmarks.max(1)
    centre, half = (low + high) / 2, (high - low).max(1, keepdims=True) * LANDMARK_BOX_RATIO / 2
    return np.concatenate([centre - half, centre + half], 1)


DETECTORS: dict[str, type[Detector]] = {"yunet": YuNet, "mtcnn": Mtcnn, "aligned": Aligned}
