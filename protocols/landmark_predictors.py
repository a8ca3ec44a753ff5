"""Who predicts landmarks: C-Net and MediaPipe's Face Mesh, both as Multi-PIE's 68 points."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from protocols.landmarks import LandmarkPredictor, Prediction
from protocols.predictors import Predictors

if TYPE_CHECKING:
    from pifr.faces import FaceCrops


class MediaPipeLandmarks:
    """MediaPipe's Face Mesh on the crop's central three quarters (1.5 times the detector's box), upright, one pass.

    Args:
        model: as `pifr.detectors.face_mesh.FaceMesh` takes it, whose errors this raises.
    """

    name = "mediapipe"

    def __init__(self, model: Path | None = None) -> None:
        from pifr.detectors.face_mesh import FaceMesh

        self._mesh = FaceMesh(model)
        self.fingerprint = self._mesh.fingerprint

    def mesh(self, faces: FaceCrops) -> tuple[np.ndarray, np.ndarray]:
        """The 468 points, float32 B x 468 x 3 in crop pixels (z grows away from the camera), and presence logits (B,).

        Both are NaN where there is no face crop.
        """
        points = np.full((len(faces), 468, 3), np.nan, np.float32)
        presence = np.full(len(faces), np.nan, np.float32)
        side = faces.pixels.shape[-1]
        pixels = (faces.pixels.permute(0, 2, 3, 1).cpu().numpy() * 255).round().astype(np.uint8)
        for k in np.flatnonzero(faces.usable.cpu().numpy()):
            found = self._mesh(np.ascontiguousarray(pixels[k]), np.full(2, side / 2), 0.75 * side, passes=1)
            points[k], presence[k] = found.points, found.presence
        return points, presence

    def __call__(self, faces: FaceCrops) -> Prediction:
        points, presence = self.mesh(faces)
        to_image = faces.crop_to_image.cpu().numpy()
        in_image = points[:, MEDIAPIPE_68, :2] @ to_image[:, :, :2].transpose(0, 2, 1) + to_image[:, None, :, 2]
        # A logit below zero is a score under one half: by its own judgement there is no face.
        reason = tuple("low_presence" if logit < 0 else "" for logit in presence)
        return Prediction(in_image.astype(np.float32), np.full(len(faces), np.nan, np.float32), reason)


class CNetLandmarks:
    """C-Net: where the fitted shape projects a landmark, moved by what the predicted PNCC says around it.

    Args:
        device: where the networks run.
    """

    name = "cnet"

    def __init__(self, device: str = "cpu") -> None:
        from pifr.locator import FaceLocator

        self._locate = FaceLocator.from_pretrained(device=device)
        self.fingerprint = self._locate.fingerprint

    def __call__(self, faces: FaceCrops) -> Prediction:
        located = self._locate(faces)
        points, yaw = located.landmarks("multipie68", "image").cpu().numpy(), located.yaw.cpu().numpy()
        reason = tuple("" if found else "no_prediction" for found in np.isfinite(points).all(axis=(1, 2)))
        return Prediction(points, yaw, reason)


LANDMARK_PREDICTORS: Predictors[LandmarkPredictor] = Predictors(
    "landmark predictor", {"cnet": CNetLandmarks, "mediapipe": lambda device: MediaPipeLandmarks()}
)


MEDIAPIPE_68: tuple[int, ...] = (
    *(162, 234, 93, 58, 172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 323, 454, 389),
    *(71, 63, 105, 66, 107, 336, 296, 334, 293, 301),
    *(168, 197, 5, 4, 75, 97, 2, 326, 305),
    *(33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380),
    *(61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181),
    *(78, 82, 13, 312, 308, 317, 14, 87),
)
"""Vertices of Face Mesh nearest to Multi-PIE's 68 points."""
