"""Where recognizers want a face to lie."""

from dataclasses import dataclass
from math import isfinite
from numbers import Real

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class AlignmentTemplate:
    """Where a recognizer wants the five landmarks.

    Attributes:
        name: part of keys and reports.
        size: side of the square that the points are given for, in pixels.
        points: five (x, y), pixel centres at whole numbers, order as in `Detections`.
    """

    name: str
    size: int
    points: tuple[tuple[float, float], ...]

    def __post_init__(self) -> None:
        if np.shape(self.points) != (5, 2):
            raise ValueError(f"template {self.name!r}: points have shape {np.shape(self.points)}, not (5, 2)")
        if not all(isinstance(number, Real) and isfinite(number) for point in self.points for number in point):
            raise ValueError(f"template {self.name!r}: points are {self.points}, not pairs of numbers")

    def scaled(self, size: int) -> Tensor:
        """The points for an output of another size: 5 x 2 float64. Resizing an image moves them the same way."""
        points = torch.tensor(self.points, dtype=torch.float64, device="cpu")
        return (points + 0.5) * (size / self.size) - 0.5


ARCFACE_112 = AlignmentTemplate(
    "arcface-112",
    112,
    ((38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041)),
)
"""The template of ArcFace and InsightFace (insightface/utils/face_align.py, `arcface_dst`)."""
