"""Who is seen: a shape, a skin, hair and clothes, all drawn from one random stream a person."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol

import cv2
import numpy as np

from pifr.geometry.face_model import load_face_model

if TYPE_CHECKING:
    import torch

SPREAD = 2.0
"""Identity coefficients are cut at this many standard deviations."""

EXPRESSIONS: dict[str, dict[str, float]] = {
    "neutral": {},
    "smile": {"mouthSmile": 0.8, "cheekSquint": 0.5, "mouthUpperUp": 0.25},
    "surprise": {"browInnerUp": 0.8, "browOuterUp": 0.7, "jawOpen": 0.5},
    "squint": {"eyeSquint": 0.8, "browDown": 0.6, "noseSneer": 0.3},
    "disgust": {"noseSneer": 0.8, "mouthUpperUp": 0.5, "browDown": 0.5},
    "scream": {"jawOpen": 0.9, "mouthStretch": 0.5, "browInnerUp": 0.4},
}
"""Blend shapes of Multi-PIE's expressions, without the side."""

HAIR_COLOURS = ((0.05, 0.04, 0.04), (0.13, 0.09, 0.06), (0.28, 0.18, 0.10), (0.55, 0.42, 0.25), (0.45, 0.44, 0.43))
HAIR_SHARES = (0.35, 0.3, 0.15, 0.1, 0.1)


class TextureModel(Protocol):
    """Draws complete skin textures."""

    def sample(self, generator: torch.Generator, count: int) -> torch.Tensor:
        """Textures B x 3 x N x N in [0, 1], sRGB, from a torch generator."""
        ...


@dataclass(frozen=True, slots=True)
class Hair:
    """A shell of hair around the skull.

    Attributes:
        colour: linear RGB.
        thickness: gap between skull and shell, mm; 0 for none at all.
        opening: half the angle around the face that is free of hair below the fringe, degrees.
        fringe, sides: height at which hair ends over the forehead and elsewhere, mm above the head's origin.
        strands: seed of its irregularity.
    """

    colour: np.ndarray
    thickness: float
    opening: float
    fringe: float
    sides: float
    strands: int


@dataclass(frozen=True, slots=True)
class Person:
    """One who does not exist.

    Attributes:
        neutral: float32 V x 3 mm, the head without expression.
        texture: float32 N x N x 3, skin, linear RGB.
        hair: see `Hair`.
        clothes: linear RGB.
    """

    neutral: np.ndarray
    texture: np.ndarray
    hair: Hair
    clothes: np.ndarray

    def with_expression(self, coefficients: np.ndarray) -> np.ndarray:
        """The head mesh V x 3 mm with blend shape coefficients, 57 in [0, 1]."""
        model = load_face_model()
        return self.neutral + np.tensordot(coefficients.astype(np.float32), model.expression, 1)


def sample_person(seed: int, index: int, textures: TextureModel | None = None) -> Person:
    """Person `index` of the population that a seed makes; does not depend on how many are asked for."""
    import torch

    textures = textures or _shipped_textures()
    rng = np.random.default_rng([seed, index, 0])
    model = load_face_model()
    identity = np.clip(rng.normal(size=len(model.identity)), -SPREAD, SPREAD)
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    texture = np.asarray(textures.sample(generator, 1), np.float32)[0].transpose(1, 2, 0)
    return Person(
        neutral=model.vertices(identity),
        texture=_feathered(_with_skin_detail(np.clip(texture, 0, 1) ** 2.2, rng)),
        hair=sample_hair(rng),
        clothes=rng.uniform(0.02, 0.6, 3),
    )


def sample_hair(rng: np.random.Generator) -> Hair:
    """Hair of a person, or of a person on another day."""
    colour = np.array(HAIR_COLOURS[rng.choice(len(HAIR_COLOURS), p=HAIR_SHARES)]) * rng.uniform(0.7, 1.3)
    long = rng.random() < 0.45
    return Hair(
        colour=np.clip(colour, 0, 1),
        thickness=0.0 if rng.random() < 0.06 else rng.uniform(5, 12) + (6 if long else 0),
        opening=rng.uniform(55, 90) if long else rng.uniform(80, 100),
        fringe=rng.uniform(62, 82) if rng.random() < 0.3 else rng.uniform(88, 105),
        sides=rng.uniform(-190, -60) if long else rng.uniform(5, 45),
        strands=int(rng.integers(2**31)),
    )


def expression(name: str, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Blend shape coefficients, float32 (57,), of a named expression with a little of everything else.

    Args:
        name: key of `EXPRESSIONS`.
        strength: 1 for the full expression.
        rng: each person smiles differently.
    """
    names = load_face_model().expression_names
    coefficients = np.zeros(len(names), np.float32)
    for k, blend_shape in enumerate(names):
        base = EXPRESSIONS[name].get(blend_shape.removesuffix("_L").removesuffix("_R"), 0.0)
        coefficients[k] = strength * base * rng.uniform(0.7, 1.2)
    stray = rng.choice(len(names), 4, replace=False)
    coefficients[stray] += rng.uniform(0, 0.12, 4)
    return np.clip(coefficients, 0, 1).astype(np.float32)


def _with_skin_detail(texture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Moles, freckles, blotches and furrows, which principal components smooth away; linear RGB."""
    size = len(texture)
    v, u = np.mgrid[:size, :size].astype(np.float32) / size
    spots = [(1, rng.uniform(0.004, 0.012), rng.uniform(0.2, 0.6)) for _ in range(rng.integers(0, 7))]
    freckles = rng.random() < 0.25
    spots += [(0, rng.uniform(0.002, 0.004), rng.uniform(0.05, 0.2)) for _ in range(120 * freckles)]
    result = texture.copy()
    for anywhere, radius, depth in spots:
        at_u = rng.uniform(0.1, 0.9) if anywhere else rng.normal(0.5, 0.16)
        at_v = rng.uniform(0.1, 0.9) if anywhere else rng.normal(0.5, 0.08)
        spot = np.exp(-((u - at_u) ** 2 + (v - at_v) ** 2) / (2 * radius**2))
        result *= 1 - depth * spot[..., None] * np.array([0.8, 1.0, 1.1], np.float32)
    blotches = cv2.GaussianBlur(rng.normal(size=(size, size)).astype(np.float32), (0, 0), 0.05 * size)
    result *= 1 + rng.uniform(0, 0.08) * (blotches / blotches.std())[..., None] * np.array([0.3, 1, 1], np.float32)
    # Age-like: what is finer than a few millimetres gains contrast.
    age = rng.beta(1.2, 3)
    pores = cv2.GaussianBlur(rng.normal(size=(size, size)).astype(np.float32), (0, 0), 0.004 * size)
    fine = result - cv2.GaussianBlur(result, (0, 0), 0.03 * size)
    result = result + 0.5 * age * fine + 0.02 * (pores / pores.std())[..., None] * result
    return np.clip(result, 0, 1).astype(np.float32)


def _feathered(texture: np.ndarray) -> np.ndarray:
    """Detail fades out towards the border, where the plain head begins."""
    size = len(texture)
    centre = np.abs((np.arange(size) + 0.5) / size - 0.5)
    margin = 0.5 - np.maximum(centre[:, None], centre[None, :])
    inner = np.clip(margin / 0.08, 0, 1)[..., None].astype(np.float32)
    return texture * inner + cv2.GaussianBlur(texture, (0, 0), 0.06 * size) * (1 - inner)


@lru_cache(maxsize=1)
def _shipped_textures() -> TextureModel:
    from pifr.geometry.texture_model import load_texture_model

    return load_texture_model()
