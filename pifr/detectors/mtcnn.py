"""MTCNN, as facenet-pytorch ships it."""

import hashlib
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import torch

from pifr.detectors.base import NO_FACE, Detections

_RECIPE = 2  # part of the fingerprint: raise it when the same image may give other faces


class Mtcnn:
    """facenet-pytorch's MTCNN (Zhang et al., SPL 2016); its weights come with that package.

    It looks at the image scaled down. If that shows no face, or small faces are asked for as well, it looks again at up
    to 2,000 pixels, which takes several times as long.

    Args:
        padding: on each side, as a fraction of the longer side.
        side: longer side of the padded image in the first look, to which it is scaled down, never up.
    """

    missing = "no_face"
    by_name = False

    _LARGEST_VIEW = 2000
    """Longer side of the padded image in the second look, pixels, at most."""

    def __init__(self, padding: float = 0.2, side: int = 480) -> None:
        from pifr.support.torchvision_operators import ensure_operators

        ensure_operators()
        import facenet_pytorch

        self.padding, self.side = padding, side
        weights = _package_digest(facenet_pytorch.__file__)
        self.fingerprint = f"mtcnn-{weights}(padding={padding:g},side={side})v{_RECIPE}"
        # It is made in torch's default type and on its default device, which are the caller's to set.
        with torch.device("cpu"):
            self._network = facenet_pytorch.MTCNN(keep_all=True, post_process=False, min_face_size=40).float()

    def __call__(self, image: np.ndarray, name: str | Path = "", every: bool = False) -> Detections:
        padded, margin = _pad(image, self.padding)
        found = self._look(padded, margin, self.side)
        if (every or not len(found.boxes)) and min(max(padded.shape[:2]), self._LARGEST_VIEW) > self.side:
            finer = self._look(padded, margin, self._LARGEST_VIEW)
            return finer if len(finer.boxes) else found
        return found

    def _look(self, padded: np.ndarray, margin: int, side: int) -> Detections:
        """Faces that a padded image shows at a longer side of `side` at most, in pixels of the image itself."""
        factor = 1.0
        if max(padded.shape[:2]) > side:
            padded, factor = _shrunk(padded, side)
        if min(padded.shape[:2]) < self._network.min_face_size:
            return NO_FACE  # the network's image pyramid would be empty, which facenet-pytorch does not expect
        with torch.device("cpu"):
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


def _pad(image: np.ndarray, fraction: float) -> tuple[np.ndarray, int]:
    """Replicate the border by a fraction of the longer side: detectors miss profiles that touch the frame."""
    margin = int(max(image.shape[:2]) * fraction)
    return cv2.copyMakeBorder(image, margin, margin, margin, margin, cv2.BORDER_REPLICATE), margin


def _shrunk(image: np.ndarray, side: int) -> tuple[np.ndarray, float]:
    """Bring the longer side down to `side`; the factor is new size / old size."""
    factor = side / max(image.shape[:2])
    size = [max(round(length * factor), 1) for length in image.shape[1::-1]]
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA), factor
