"""Fits the face model to the landmarks of a photo.

The paper takes cameras and shapes from Deep3DFace; here pose and coefficients are fitted jointly to landmarks of
MediaPipe Face Mesh or of C-Net (`landmark_sources`), whose errors are far from independent: both place each landmark a
millimetre or two beside the vertex it is linked to, and pull whole regions of a face towards what they expect. Both
errors are known from drawn people (`LandmarkNoise`) and estimated along. A smooth residual then makes the model pass
through what is left.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import torch

from pifr.assets import ASSETS
from pifr.geometry.camera import angles_from_rotation
from pifr.geometry.face_model import load_face_model
from pifr.support.files import file_sha256, write_arrays
from pifr.training.landmark_sources import load_links

IDENTITY_PRECISION, EXPRESSION_PRECISION = 1.0, 8.0
"""Of the coefficients' normal priors; the model states that of the identity."""
NOISE_MODES = 80
INDEPENDENT_NOISE_MM = 0.5
"""Added to what the modes leave: real photos stray in ways that drawn people do not."""
ROUNDS, UNSIGNED_ROUNDS = 7, 3
POSE_PARAMETERS = 6
"""Rotation vector, log scale, translation."""
EXPRESSION_LIMITS = (-0.3, 1.1)
RESIDUAL_SMOOTHING_MM = 5.0

_RECIPE = 1  # raise it when fits change while landmarks, links, noise and face model do not


@dataclass(frozen=True, slots=True)
class PhotoFit:
    """The face model fitted to one photo by a scaled orthographic camera.

    Attributes:
        identity: float32 (50,), N(0, 1) coefficients. expression: float32 (57,).
        scale: pixels per mm. rotation: 3 x 3. translation: pixels; image x = s X + tx, y = -s Y + ty.
        residual: float32 L x 2 pixels, what remains at the linked vertices of landmark minus projected model when the
            landmarks' bias and shared errors are taken off.
    """

    identity: np.ndarray
    expression: np.ndarray
    scale: float
    rotation: np.ndarray
    translation: np.ndarray
    residual: np.ndarray

    @property
    def angles(self) -> tuple[float, float, float]:
        """Yaw, pitch, roll in degrees (docs/architecture.md)."""
        yaw, pitch, roll = angles_from_rotation(torch.from_numpy(self.rotation)[None])[0].tolist()
        return yaw, pitch, roll

    @property
    def residual_mm(self) -> float:
        """Mean landmark residual in mm: the fit's quality, lower is better."""
        return float(np.linalg.norm(self.residual, axis=1).mean() / self.scale)

    def project(self, points: np.ndarray) -> np.ndarray:
        """Model points V x 3 mm to V x 3: image x, image y, depth (larger is nearer), all in pixels."""
        turned = points @ self.rotation.T * self.scale
        return np.column_stack(
            [turned[:, 0] + self.translation[0], -turned[:, 1] + self.translation[1], turned[:, 2]]
        ).astype(np.float32)


@dataclass(frozen=True, slots=True)
class LandmarkNoise:
    """How the landmarks of a source err: statistics of many people, in mm, L linked landmarks.

    Attributes:
        bias: L x 3, from the linked vertex to where the landmark lies, in the model frame.
        modes: K x L x 2, errors that landmarks share, one standard deviation each; in the image, y up, roll undone.
        deviation: (L,), standard deviation of what each landmark errs by itself, along x and along y.
    """

    bias: np.ndarray
    modes: np.ndarray
    deviation: np.ndarray


def estimate_noise(errors: np.ndarray, rotations: np.ndarray) -> LandmarkNoise:
    """Noise from people whose shape and pose are known.

    Args:
        errors: n x L x 2 mm, landmark minus projected vertex, y up, roll undone; n > `NOISE_MODES`.
        rotations: n x 3 x 3 of the heads, roll undone.
    """
    # e = P R b for every person; pose varies little, so that depth is held back.
    information = np.einsum("nia,nib->ab", rotations[:, :2], rotations[:, :2]) + np.diag([0, 0, 0.02 * len(errors)])
    seen = np.einsum("nia,nli->la", rotations[:, :2], errors)
    bias = np.linalg.solve(information, seen.T).T
    scatter = (errors - np.einsum("nia,la->nli", rotations[:, :2], bias)).reshape(len(errors), -1)
    _, singular, directions = np.linalg.svd(scatter, full_matrices=False)
    directions = directions[:NOISE_MODES]
    modes = directions * singular[:NOISE_MODES, None] / np.sqrt(len(errors))
    own = (scatter - scatter @ directions.T @ directions).reshape(errors.shape)
    deviation = np.sqrt((own**2).mean((0, 2)) + INDEPENDENT_NOISE_MM**2)
    return LandmarkNoise(bias, modes.reshape(-1, *errors.shape[1:]), deviation)


def write_landmark_noise(noise: LandmarkNoise, path: Path) -> None:
    """Write the file that `load_landmark_noise` reads."""
    write_arrays(path, {key: value.astype(np.float32) for key, value in asdict(noise).items()})


def noise_file(source: str) -> str:
    """Name of the file among the package's sources that holds the noise of a landmark source."""
    return f"landmark_noise-{source}.npz"


def load_landmark_noise(source: str) -> LandmarkNoise:
    """The shipped noise of a landmark source, of drawn people; `benchmarks.registration.calibrate` recomputes it."""
    with np.load(ASSETS / "sources" / noise_file(source)) as archive:
        return LandmarkNoise(**{key: archive[key].astype(np.float64) for key in ("bias", "modes", "deviation")})


def fitter_fingerprint(source: str) -> str:
    """Changes whenever the same landmarks may give another fit."""
    files = (ASSETS / "face_model.npz", ASSETS / "sources" / "links.json", ASSETS / "sources" / noise_file(source))
    return "|".join([*(file_sha256(file)[:16] for file in files), f"v{_RECIPE}"])


class LandmarkFitter:
    """Maximum a posteriori pose, identity, expression and shared landmark errors, by Gauss-Newton steps.

    Args:
        noise: of the landmarks.
    """

    def __init__(self, noise: LandmarkNoise) -> None:
        model = load_face_model()
        self.vertices = load_links()[1]
        self.noise = noise
        if len(self.noise.bias) != len(self.vertices):
            raise ValueError(f"the noise is of {len(self.noise.bias)} landmarks, {len(self.vertices)} are linked")
        self._mean = model.mean[self.vertices] + self.noise.bias
        self._modes = np.concatenate([model.identity, model.expression])[:, self.vertices].astype(np.float64)
        identities, expressions = len(model.identity), len(model.expression)
        self._identity = slice(0, identities)
        self._expression = slice(identities, identities + expressions)
        self._shape = slice(0, identities + expressions)
        self._errors = slice(identities + expressions, None)
        self._precision = np.concatenate([
            np.full(identities, IDENTITY_PRECISION),
            np.full(expressions, EXPRESSION_PRECISION),
            np.ones(len(self.noise.modes)),
        ])  # fmt: skip

    def fit(self, points: np.ndarray) -> PhotoFit:
        """Fit to the linked landmarks, L x 2 image pixels."""
        target = points * [1.0, -1.0]
        coefficients = np.zeros(len(self._precision))
        active = np.ones(len(self._precision), bool)
        information = np.repeat(1 / self.noise.deviation**2, 2)
        scale, rotation, translation = _weak_perspective(self._mean, target)
        for round_ in range(ROUNDS):
            if round_ == UNSIGNED_ROUNDS:
                # Blend shapes do not run backwards: those that would are held at zero from here on.
                active[self._expression] = coefficients[self._expression] > 0
                coefficients[~active] = 0
            turned, errors = self._turned(coefficients, rotation)
            left = (target - translation) / scale - turned[:, :2] - np.tensordot(coefficients[self._errors], errors, 1)
            modes = np.concatenate([self._modes @ rotation[:2].T, errors])[active]
            design = np.concatenate([_pose_derivatives(turned), modes]).reshape(-1, left.size)
            precision = np.concatenate([np.zeros(POSE_PARAMETERS), self._precision[active]])
            now = np.concatenate([np.zeros(POSE_PARAMETERS), coefficients[active]])
            step = np.linalg.solve(
                (design * information) @ design.T + np.diag(precision),
                design @ (information * left.ravel()) - precision * now,
            )
            rotation = cv2.Rodrigues(step[:3])[0] @ rotation
            translation = translation + scale * step[4:6]
            scale *= np.exp(np.clip(step[3], -0.3, 0.3))
            coefficients[active] += step[POSE_PARAMETERS:]
            lower, upper = EXPRESSION_LIMITS
            expression = coefficients[self._expression]
            np.clip(expression, lower if round_ < UNSIGNED_ROUNDS else 0, upper, out=expression)
        turned, errors = self._turned(coefficients, rotation)
        explained = turned[:, :2] + np.tensordot(coefficients[self._errors], errors, 1)
        residual = (target - (scale * explained + translation)) * [1.0, -1.0]
        return PhotoFit(
            coefficients[self._identity].astype(np.float32),
            coefficients[self._expression].astype(np.float32),
            float(scale),
            rotation,
            translation * [1.0, -1.0],
            residual.astype(np.float32),
        )

    def _turned(self, coefficients: np.ndarray, rotation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Landmarks L x 3 and shared errors K x L x 2, mm, as the camera sees them."""
        shape = self._mean + np.tensordot(coefficients[self._shape], self._modes, 1)
        axis = rotation[:2, 1]
        cosine, sine = axis[1] / np.hypot(*axis), axis[0] / np.hypot(*axis)
        return shape @ rotation.T, self.noise.modes @ np.array([[cosine, -sine], [sine, cosine]])


def _pose_derivatives(points: np.ndarray) -> np.ndarray:
    """6 x L x 2: how turned points L x 3 move in the image with a rotation vector, log scale and translation."""
    x, y, z = points.T
    zero, one = np.zeros(len(points)), np.ones(len(points))
    return np.stack([
        np.column_stack(columns) for columns in ((zero, -z), (z, zero), (-y, x), (x, y), (one, zero), (zero, one))
    ])  # fmt: skip


def _weak_perspective(points: np.ndarray, target: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Scale, rotation 3 x 3 and translation with target (y up) = scale * points @ rotation[:2].T + translation."""
    centre, target_centre = points.mean(0), target.mean(0)
    affine = np.linalg.lstsq(points - centre, target - target_centre, rcond=None)[0].T
    u, singular, vt = np.linalg.svd(affine, full_matrices=False)
    scale, top = singular.mean(), u @ vt
    rotation = np.vstack([top, np.cross(top[0], top[1])])
    return scale, rotation, target_centre - scale * top @ centre


@lru_cache(maxsize=1)
def residual_spread() -> np.ndarray:
    """float32 V x L: spreads residuals at the linked vertices smoothly over the head (linear radial basis)."""
    model, vertices = load_face_model(), load_links()[1]
    nodes = model.mean[vertices].astype(np.float64)
    kernel = -np.linalg.norm(nodes[:, None] - nodes[None], axis=2) + RESIDUAL_SMOOTHING_MM * np.eye(len(nodes))
    border = np.ones((len(nodes), 1))
    system = np.block([[kernel, border], [border.T, np.zeros((1, 1))]])
    distances = np.linalg.norm(model.mean[:, None].astype(np.float32) - nodes[None].astype(np.float32), axis=2)
    evaluation = np.column_stack([-distances, np.ones(len(model.mean))])
    return np.linalg.solve(system.T, evaluation.T).T[:, : len(nodes)].astype(np.float32)


@lru_cache(maxsize=2)
def load_fitter(source: str) -> LandmarkFitter:
    """One fitter a landmark source and process."""
    return LandmarkFitter(load_landmark_noise(source))
