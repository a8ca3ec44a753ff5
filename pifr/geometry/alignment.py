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
        points: five (x, y) in pixels of that square, pixel centres at whole numbers, order as in `Detections`: the eye
            and the corner of the mouth on the image's left come before those on its right.

    Raises:
        ValueError: the points are no such five: pairs of numbers, a tenth of the square or more apart, no mirror image.
    """

    name: str
    size: int
    points: tuple[tuple[float, float], ...]

    def __post_init__(self) -> None:
        if np.shape(self.points) != (5, 2):
            raise ValueError(f"template {self.name!r}: points have shape {np.shape(self.points)}, not (5, 2)")
        if not all(isinstance(number, Real) and isfinite(number) for point in self.points for number in point):
            raise ValueError(f"template {self.name!r}: points are {self.points}, not pairs of numbers")
        points = np.asarray(self.points, float)
        if np.ptp(points, axis=0).max() < self.size / 10:
            raise ValueError(
                f"template {self.name!r}: points are less than a tenth of the {self.size} x {self.size} square apart: "
                "they are given in its pixels"
            )
        if handedness(points) <= 0:
            raise ValueError(
                f"template {self.name!r}: its points are a mirror image: the order is the eye on the image's left, the "
                "other eye, the nose, the corner of the mouth on the image's left, the other corner"
            )

    def scaled(self, size: int) -> Tensor:
        """The points for an output of another size: 5 x 2 float64. Resizing an image moves them the same way."""
        points = torch.tensor(self.points, dtype=torch.float64, device="cpu")
        return (points + 0.5) * (size / self.size) - 0.5


def handedness(points: np.ndarray) -> float:
    """The signed area of eyes and mouth over their squared extent: negative if left and right are exchanged.

    However a face is rolled, it is positive; near zero for profiles, whose eyes lie behind each other.

    Args:
        points: 5 x 2, order as in `Detections`, y down.
    """
    across, down = points[1] - points[0], points[3:].mean(0) - points[:2].mean(0)
    return float((across[0] * down[1] - across[1] * down[0]) / np.ptp(points, axis=0).max() ** 2)


ARCFACE_112 = AlignmentTemplate(
    "arcface-112",
    112,
    ((38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041)),
)
"""The template of ArcFace and InsightFace (insightface/utils/face_align.py, `arcface_dst`)."""

LIGHTCNN_128 = AlignmentTemplate(
    "lightcnn-128",
    128,
    ((42.71, 40.0), (84.29, 40.0), (63.5, 63.76), (46.29, 88.0), (80.71, 88.0)),
)
"""The authors' crop: eyes level at y = 40, 48 pixels from between the eyes to the middle of the mouth. Their readme
fixes only these two; the points are ArcFace's, levelled, scaled to them and centred."""

FACENET_160 = AlignmentTemplate(
    "facenet-160",
    160,
    ((41.8, 59.1), (117.2, 59.1), (79.5, 91.7), (48.9, 122.9), (110.1, 122.9)),
)
"""Median landmarks, made symmetric, in facenet-pytorch's own crops (MTCNN box, no margin, squeezed into 160 x 160) of
100 frontal portraits. The similarity that fits them best stands for that crop, so that a frontalized face, on which no
detector runs, is cut alike."""

DLIB_150 = AlignmentTemplate(
    "dlib-150",
    150,
    ((47.0, 45.4), (100.2, 45.4), (73.6, 76.3), (51.0, 99.9), (96.2, 99.9)),
)
"""Median landmarks of YuNet, made symmetric, in dlib's own chips (`get_face_chip` of 150 pixels, padding 0.25, by its
five-point predictor) of 223 frontal portraits."""

DREAM_224 = AlignmentTemplate(
    "dream-224",
    224,
    ((71.8, 86.1), (151.2, 86.1), (111.5, 131.4), (78.6, 177.8), (144.4, 177.8)),
)
"""The authors' input: CelebA's aligned 178 x 218 pictures, of which the 110 x 110 around (89, 124) are scaled to 224
(CaffeCrop in their selfDefine.py). CelebA aligns eye centres, to about (69, 111) and (108, 111); the other points are
ArcFace's at that distance of the eyes."""

TEMPLATES = {each.name: each for each in (ARCFACE_112, LIGHTCNN_128, FACENET_160, DLIB_150, DREAM_224)}
"""By name, as a file beside an ONNX file may call them."""
