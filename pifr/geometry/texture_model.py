"""Statistical face texture: principal components of complete UV textures of people who do not exist.

Statistics over 2,123 textures, no single face among them. `pifr train assets` makes the shipped file from the
textures of `pifr train render` (`pifr.training.geometry_assets`).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from pifr.assets import ASSETS
from pifr.geometry.warp import resized


class TextureModel:
    """Mean and principal components of UV textures.

    Attributes:
        mean: float32 3 x N x N in [0, 1], RGB, UV frame of the template.
        components: float32 K x 3 x N x N; coefficients are distributed as N(0, 1) over the training textures.
    """

    def __init__(self, mean: Tensor, components: Tensor):
        if mean.ndim != 3 or components.shape[1:] != mean.shape:
            raise ValueError(f"components {tuple(components.shape)} do not match the mean {tuple(mean.shape)}")
        self.mean, self.components = mean, components

    def textures(self, coefficients: Tensor, size: int | None = None) -> Tensor:
        """Textures float32 B x 3 x size x size in [0, 1] for coefficients B x K (leading components)."""
        count = coefficients.shape[1]
        flat = self.mean.flatten() + coefficients @ self.components[:count].flatten(1)
        result = flat.view(-1, *self.mean.shape)
        return resized(result, size or result.shape[-1]).clamp(0, 1)

    def sample(self, generator: torch.Generator, count: int, size: int | None = None, spread: float = 0.8) -> Tensor:
        """Textures of `count` random people, float32 count x 3 x size x size in [0, 1].

        Args:
            generator: source of randomness; the same state gives the same textures.
            spread: standard deviation of the coefficients (1 is the data's own); cut off at 2.5 deviations.
        """
        coefficients = torch.randn(count, len(self.components), generator=generator).clamp(-2.5, 2.5)
        return self.textures(spread * coefficients, size)


@lru_cache(maxsize=1)
def load_texture_model() -> TextureModel:
    """The shipped texture model (`pifr/assets/texture_model.npz`)."""
    with np.load(ASSETS / "texture_model.npz") as archive:
        components = archive["components"].astype(np.float32) * archive["scale"][:, None, None, None]
        return TextureModel(torch.from_numpy(archive["mean"]), torch.from_numpy(components))
