"""From a drawn person to a file's pixels: what stands behind and before them, and what a camera does to the light."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from protocols.synthetic.scene import Light, Scene, View

GAMMA = 2.2


@dataclass(frozen=True, slots=True)
class Exposure:
    """What a camera does to linear light.

    Attributes:
        gain: RGB factors (exposure and white balance).
        blur: standard deviation of focus and motion, pixels.
        noise: standard deviation of the sensor's noise, fraction of white.
    """

    gain: tuple[float, float, float]
    blur: float
    noise: float


def develop(light: np.ndarray, exposure: Exposure, rng: np.random.Generator) -> np.ndarray:
    """Linear RGB float32 H x W x 3 to a picture, uint8 RGB."""
    exposed = light * np.asarray(exposure.gain, np.float32)
    if exposure.blur > 0.05:
        exposed = cv2.GaussianBlur(exposed, (0, 0), exposure.blur)
    signal = np.clip(exposed, 0, 1) ** (1 / GAMMA)
    noisy = signal + exposure.noise * rng.standard_normal(signal.shape, np.float32)
    return np.round(255 * np.clip(noisy, 0, 1)).astype(np.uint8)


def random_exposure(rng: np.random.Generator) -> Exposure:
    """A snapshot's: over- and underexposed, tinted, soft and noisy to a varying degree."""
    tint = np.exp(rng.normal(0, 0.08, 3))
    gain = tint * np.exp(rng.normal(0.2, 0.3))
    return Exposure(tuple(map(float, gain)), float(rng.exponential(0.5)), float(rng.uniform(0.005, 0.04)))


def random_light(rng: np.random.Generator) -> Light:
    """One or two lamps somewhere before or beside the person, and light from everywhere."""
    ambient = rng.uniform(0.12, 0.5) * np.exp(rng.normal(0, 0.06, 3))
    lamps = []
    for strength in rng.uniform(0.3, 1.0, rng.integers(1, 3)):
        direction = rng.normal(size=3) * [1.0, 0.6, 0.7] + [0, 0.4, 0.5]
        direction /= np.linalg.norm(direction)
        colour = strength * np.exp(rng.normal(0, 0.08, 3))
        lamps.append((tuple(map(float, direction)), tuple(map(float, colour))))
    return Light(tuple(map(float, ambient)), tuple(lamps))


def clutter(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """A background without a face: soft colours with edges, stripes and lights; linear RGB float32 H x W x 3."""
    coarse = _muted(rng.uniform(0, 0.6, (4, 4, 3)))
    picture = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    for _ in range(rng.integers(2, 9)):
        colour = tuple(map(float, _muted(rng.uniform(0, 0.9, 3) ** 1.5)))
        centre = tuple(int(c) for c in rng.uniform(0, [width, height]))
        if rng.random() < 0.5:
            box = cv2.boxPoints(
                (centre, tuple(rng.uniform(0.05, 0.6, 2) * [width, height]), float(rng.uniform(0, 180)))
            )
            cv2.fillConvexPoly(picture, box.astype(np.int32), colour)
        else:
            radius = int(rng.uniform(0.02, 0.25) * width) + 1
            cv2.circle(picture, centre, radius, colour, -1 if rng.random() < 0.7 else 2)
    return np.clip(cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.004, 0.03) * width), 0, 1)


def _muted(colours: np.ndarray) -> np.ndarray:
    """Most surfaces are nearly grey."""
    grey = colours.mean(axis=-1, keepdims=True)
    return (grey + 0.3 * (colours - grey)).astype(np.float32)


def occluder(height: int, width: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Something held before the face: its colour, linear RGB (3,), and where it is, float32 H x W in [0, 1]."""
    alpha = np.zeros((height, width), np.float32)
    edge = rng.uniform([0.0, 0.55], [1.0, 1.05]) * [width, height]
    axes = rng.uniform([0.06, 0.15], [0.2, 0.4]) * height
    ellipse = (tuple(map(float, edge)), tuple(map(float, 2 * axes)), float(rng.uniform(0, 180)))
    cv2.ellipse(alpha, ellipse, 1.0, -1, cv2.LINE_AA)
    return rng.uniform(0.01, 0.5, 3).astype(np.float32), alpha


def compose(person: np.ndarray, coverage: np.ndarray, background: np.ndarray) -> np.ndarray:
    """A drawn person (black where nobody is) before a background, linear."""
    return person + (1 - coverage[..., None]) * background


def photograph(scene: Scene, view: View, rng: np.random.Generator) -> np.ndarray:
    """A photo of a scene before clutter, by random light and a random camera: uint8 RGB, H x W x 3 of the view."""
    (drawn,), coverage = scene.draw(view, [scene.irradiance(random_light(rng))])
    picture = compose(drawn, coverage, clutter(view.height, view.width, rng))
    return develop(picture, random_exposure(rng), rng)
