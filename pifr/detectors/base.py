"""What a detector is, and what it finds."""

from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np


class Detections(NamedTuple):
    """The faces of one image, in its pixels."""

    boxes: np.ndarray
    """N x 4 float64: left, top, right, bottom."""
    landmarks: np.ndarray
    """N x 5 x 2 float64 (x, y): image-left eye, image-right eye, nose tip, image-left and image-right mouth corner."""
    scores: np.ndarray
    """N float64, higher is surer."""


NO_FACE = Detections(np.zeros((0, 4)), np.zeros((0, 5, 2)), np.zeros(0))


class Detector(Protocol):
    """Finds faces. Several threads may share one; each process loads its own."""

    fingerprint: str
    """Changes whenever the same image may give other faces."""
    missing: str
    """The reason that is recorded where nothing is found."""
    by_name: bool
    """Whether what is found depends on the image's name."""

    def __call__(self, image: np.ndarray, name: str | Path = "", every: bool = False) -> Detections:
        """Faces of one image, in any order, possibly none.

        Args:
            image: uint8 H x W x 3 RGB.
            name: what the user calls it.
            every: look for small faces beside large ones as well, instead of stopping at the first that is sure.
        """
        ...


LANDMARK_BOX_RATIO = 2.7
"""Side of the box around faces of which only the landmarks are known, over the longer side of their extent:
the median of YuNet's boxes on 247 frontal portraits."""


def landmark_boxes(landmarks: np.ndarray) -> np.ndarray:
    """The box that a detector would put around five landmarks: N x 5 x 2 -> N x 4."""
    low, high = landmarks.min(1), landmarks.max(1)
    centre, half = (low + high) / 2, (high - low).max(1, keepdims=True) * LANDMARK_BOX_RATIO / 2
    return np.concatenate([centre - half, centre + half], 1)
