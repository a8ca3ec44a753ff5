"""MediaPipe Face Mesh: 468 landmarks of a face in a photo.

It is the landmark source for near-frontal training photos (the paper uses Deep3DFace), and a baseline of the landmark
and shape protocols. Near frontal it is excellent; on true profiles it hallucinates a pose of about 60 degrees, so the
frontalizer never uses it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from pifr.errors import require_extra
from pifr.support.files import file_sha256
from pifr.zoo import find_weights

INPUT_SIZE = 192
SQUARE_OVER_EXTENT = 1.4
"""Side of the crop over the longer side of the landmarks' box, as MediaPipe tracks faces."""
SQUARE_OVER_FIVE_POINTS = 2.9
"""Side of the first crop over the longer side of the five points' box."""
EYE_CORNERS = (33, 133, 362, 263)
"""Outer and inner corner of the image-left eye, inner and outer of the image-right."""
LIPS = (
    61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291, 146, 91, 181, 84, 17, 314, 405, 321, 375,
    78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308, 95, 88, 178, 87, 14, 317, 402, 318, 324,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class FaceMeshLandmarks:
    """`points`: 468 x 3 float32, image pixels (z in the same unit, smaller is nearer); `presence`: logit of a face."""

    points: np.ndarray
    presence: float


class FaceMesh:
    """Runs `face_landmark.tflite` by LiteRT on one face at a time.

    Args:
        model: path of the tflite file; None: what `pifr models fetch face-mesh` fetched.

    Attributes:
        fingerprint: changes with the file.

    Raises:
        MissingExtraError: LiteRT is not installed.
        WeightsError: the model was not fetched.
    """

    def __init__(self, model: Path | None = None):
        require_extra("MediaPipe Face Mesh", "train", "ai_edge_litert")
        from ai_edge_litert.interpreter import Interpreter

        file = find_weights("face-mesh").path() if model is None else model
        self.fingerprint = f"face-mesh-{file_sha256(file)[:12]}"
        self._interpreter = Interpreter(str(file), num_threads=1)
        self._interpreter.allocate_tensors()
        self._input = self._interpreter.get_input_details()[0]["index"]
        outputs = self._interpreter.get_output_details()
        by_size = sorted(outputs, key=lambda output: -int(np.prod(output["shape"])))
        self._landmarks, self._presence = by_size[0]["index"], by_size[1]["index"]

    def from_five_points(self, image: np.ndarray, five_points: np.ndarray, passes: int = 2) -> FaceMeshLandmarks:
        """Landmarks of the face with the given five points (5 x 2 pixels) in an RGB uint8 image."""
        eyes = five_points[1] - five_points[0]
        side = float(np.ptp(five_points, axis=0).max()) * SQUARE_OVER_FIVE_POINTS
        return self(image, five_points.mean(0), side, float(np.arctan2(eyes[1], eyes[0])), passes)

    def __call__(
        self, image: np.ndarray, centre: np.ndarray, side: float, angle: float = 0.0, passes: int = 2
    ) -> FaceMeshLandmarks:
        """Landmarks in a rotated square of the image; each further pass crops around the last one's landmarks.

        Args:
            image: uint8 H x W x 3 RGB.
            centre: x, y of the square in pixels. side: its side in pixels. angle: of the eye line, radians.
        """
        for _ in range(passes):
            scale = INPUT_SIZE / side
            linear = scale * np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
            to_crop = np.column_stack([linear, INPUT_SIZE / 2 - linear @ centre])
            crop = cv2.warpAffine(image, to_crop, (INPUT_SIZE, INPUT_SIZE), borderMode=cv2.BORDER_REPLICATE)
            self._interpreter.set_tensor(self._input, crop[None].astype(np.float32) / 255)
            self._interpreter.invoke()
            points = self._interpreter.get_tensor(self._landmarks).reshape(-1, 3)
            presence = float(self._interpreter.get_tensor(self._presence).ravel()[0])

            to_image = cv2.invertAffineTransform(to_crop)
            in_image = points[:, :2] @ to_image[:, :2].T + to_image[:, 2]
            eyes = in_image[EYE_CORNERS[3]] - in_image[EYE_CORNERS[0]]
            angle = float(np.arctan2(eyes[1], eyes[0]))
            lower, upper = points[:, :2].min(0), points[:, :2].max(0)
            centre = to_image[:, :2] @ ((lower + upper) / 2) + to_image[:, 2]
            side = float((upper - lower).max()) / scale * SQUARE_OVER_EXTENT
        return FaceMeshLandmarks(np.column_stack([in_image, points[:, 2] / scale]).astype(np.float32), presence)
