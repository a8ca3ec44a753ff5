"""The five landmarks that detectors give: where they lie on average, and which head pose they tell of."""

import numpy as np
import torch
from torch import Tensor

from pifr.geometry.camera import fit_camera
from pifr.support.devices import inference

# Median landmarks of YuNet in its crops of 247 frontal portraits, made symmetric.
_NOMINAL = ((104.9, 111.0), (150.1, 111.0), (127.5, 136.2), (108.3, 156.8), (146.7, 156.8))

# The five landmarks of the template's mean face (pifr.geometry.template), millimetres in the model frame.
_MEAN_FACE = ((-32.9, 30.8, 22.9), (32.9, 30.8, 22.9), (0.0, 0.3, 59.1), (-25.5, -39.1, 30.9), (25.5, -39.1, 30.9))


def nominal_landmarks() -> Tensor:
    """Where the five landmarks lie in a face crop on average: 5 x 2 float32. They stand in for unknown landmarks."""
    return torch.tensor(_NOMINAL, dtype=torch.float32, device="cpu")


def with_nominal_landmarks(landmarks: Tensor) -> Tensor:
    """Landmarks B x 5 x 2 of face crops, the nominal ones for each face that has a NaN among its own."""
    unknown = landmarks.isnan().flatten(1).any(1)[:, None, None]
    return torch.where(unknown, nominal_landmarks().to(landmarks), landmarks)


def five_of_68(points: np.ndarray) -> np.ndarray:
    """The five landmarks among Multi-PIE's 68 (68 x D): 5 x D, an eye being the middle of its contour."""
    return np.stack([points[36:42].mean(0), points[42:48].mean(0), points[30], points[48], points[54]])


@inference()
def angles_from_landmarks(landmarks: Tensor) -> Tensor:
    """Rough pose of faces of which only five landmarks are known: the one that fits a mean face best.

    Args:
        landmarks: B x 5 x 2 in pixels.

    Returns:
        B x 3 float32 degrees: yaw, positive when the nose points to the right of the image, pitch, and roll,
        clockwise; NaN where a landmark is NaN, or all are one point. A detector's landmarks of profiles put roll 8
        degrees off (median).
    """
    unknown = landmarks.isnan().flatten(1).any(1)
    pixels = landmarks.float().nan_to_num(0.0).transpose(1, 2)
    positions = pixels.new_tensor(_MEAN_FACE).T[None]
    weights = pixels.new_ones(len(landmarks), 5)
    fit = fit_camera(positions, pixels, weights, robust_steps=0)
    return fit.camera.angles().masked_fill((unknown | ~fit.valid)[:, None], torch.nan)


def roll_from_landmarks(landmarks: np.ndarray) -> float:
    """Roll of one face, 5 x 2 pixels, as `angles_from_landmarks` reads it."""
    return angles_from_landmarks(torch.from_numpy(landmarks)[None])[0, 2].item()
