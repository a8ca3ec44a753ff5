"""Similarities of 3D points: scale, rotation and shift, fitted without reflection. (Of image points: `warp`.)"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Similarity:
    """x -> scale * rotation @ x + translation; `rotation` 3 x 3 with determinant +1."""

    scale: float
    rotation: np.ndarray
    translation: np.ndarray

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Map points, n x 3."""
        return self.scale * points @ self.rotation.T + self.translation


def fit_similarity(source: np.ndarray, target: np.ndarray, scale: bool = True) -> Similarity:
    """Least-squares similarity from one point set to another, without reflection.

    Args:
        source: n x 3, n >= 3.
        target: n x 3, the same points elsewhere.
        scale: False fits a rigid motion.

    Source: Umeyama, "Least-squares estimation of transformation parameters between two point patterns", PAMI 1991.
    """
    source_mean, target_mean = source.mean(axis=0), target.mean(axis=0)
    a, b = source - source_mean, target - target_mean
    u, singular, vt = np.linalg.svd(b.T @ a)
    signs = np.array([1.0, 1.0, np.sign(np.linalg.det(u) * np.linalg.det(vt))])
    rotation = u * signs @ vt
    size = float((singular * signs).sum() / (a**2).sum()) if scale else 1.0
    return Similarity(size, rotation, target_mean - size * rotation @ source_mean)


@torch.no_grad()
def brought_onto(maps: Tensor, target: Tensor) -> Tensor:
    """Position maps, each moved by the similarity that brings it closest to its target; `fit_similarity` in batches.

    Args:
        maps, target: B x 3 x N x N mm; every point counts alike.

    Returns:
        B x 3 x N x N, without gradient.
    """
    a, b = maps.flatten(2), target.flatten(2)
    source_mean, target_mean = a.mean(2, keepdim=True), b.mean(2, keepdim=True)
    a, b = a - source_mean, b - target_mean
    u, singular, vt = torch.linalg.svd(b @ a.mT)
    signs = torch.ones_like(singular)
    signs[:, 2] = torch.sign(torch.det(u) * torch.det(vt))
    size = (singular * signs).sum(1) / a.square().sum((1, 2))
    moved = size[:, None, None] * (u * signs[:, None]) @ vt @ a + target_mean
    return moved.view_as(maps)
