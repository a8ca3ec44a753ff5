"""The face template: MeshMonk's mesh on the mean of the face model, unwrapped to the unit square.

Every map of the pipeline (position map, NCC, texture, visibility) lives on this square. Its flip in u is the mirror of
the face, exactly. `pifr train assets` rebuilds the shipped file (`pifr.training.geometry_assets`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import torch
from torch import Tensor

from pifr.assets import ASSETS
from pifr.errors import UnknownNameError

LEFT_EYE_CENTRE, RIGHT_EYE_CENTRE = 68, 69
"""Rows of `landmark_uv` after Multi-PIE's 68: centres of the image-left and the image-right eye."""

_JAW_LEFT, _EYE_LEFT = range(9), range(36, 42)

LANDMARK_SETS: dict[str, tuple[int, ...]] = {
    "five": (LEFT_EYE_CENTRE, RIGHT_EYE_CENTRE, 30, 48, 54),
    "multipie68": tuple(range(68)),
    # Seven points of the FG2018 shape evaluation: eye corners (outer, inner, inner, outer), base of the nose, mouth
    # corners.
    "fg7": (36, 39, 42, 45, 33, 48, 54),
    # Sengupta et al., CFP fiducials, one side of the face: 9 jaw to chin, 3 brow, 6 eye, 4 nose ridge, 3 nose base,
    # mouth corner, 4 lip midline (order read off a plot of the mean annotation).
    "cfp30-left": (*_JAW_LEFT, 17, 19, 21, *_EYE_LEFT, 27, 28, 29, 30, 31, 32, 33, 48, 51, 62, 66, 57),
    # Multi-PIE's profile scheme: 1-6 nose, 7-10 brow, 11-15 eye, 16-22 outer lip, 23-27 inner lip, 28-39 jaw.
    "multipie39-left": (
        27, 28, 29, 30, 33, 31,
        21, 20, 19, 17,
        39, 37, 36, 41, 40,
        51, 50, 49, 48, 59, 58, 57,
        62, 61, 60, 67, 66,
        8, 8, 7, 6, 5, 4, 3, 2, 2, 1, 1, 0,
    ),
}  # fmt: skip
"""Landmark sets as rows of `landmark_uv`; `-left` shows the image-left half of the face, `-right` its mirror."""

_MIRRORED_68 = (
    *range(16, -1, -1), *range(26, 16, -1), 27, 28, 29, 30, 35, 34, 33, 32, 31, 45, 44, 43, 42, 47, 46, 39, 38, 37, 36,
    41, 40, 54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55, 64, 63, 62, 61, 60, 67, 66, 65,
    RIGHT_EYE_CENTRE, LEFT_EYE_CENTRE,
)  # fmt: skip
LANDMARK_SETS |= {
    name.replace("-left", "-right"): tuple(_MIRRORED_68[k] for k in rows)
    for name, rows in list(LANDMARK_SETS.items())
    if name.endswith("-left")
}


@dataclass(frozen=True, slots=True)
class UVSampling:
    """Where each pixel of an N x N UV map lies on the template: `triangle` N*N, `weights` N*N x 3 (barycentric)."""

    triangle: np.ndarray
    weights: np.ndarray


class Template:
    """Mean face, its unwrapping and its landmarks.

    Attributes:
        vertices: float32 V x 3, millimetres, model frame (x right, y up, z to the camera).
        triangles: int32 T x 3.
        uv: float64 V x 2 in [0, 1], u right, v down.
        mirror: int32 V, vertex on the other side of the face.
        link_vertices, link_weights: V x 3, the face model's head vertices and barycentric weights at each vertex.
        head_inside: float32 a head vertex, 1 where the template covers the head; the 0.5 level bounds the face mask.
    """

    def __init__(self, arrays: dict[str, np.ndarray]):
        self.vertices: np.ndarray = arrays["vertices"]
        self.triangles: np.ndarray = arrays["triangles"]
        self.uv: np.ndarray = arrays["uv"]
        self.mirror: np.ndarray = arrays["mirror"]
        self.link_vertices: np.ndarray = arrays["link_vertices"]
        self.link_weights: np.ndarray = arrays["link_weights"]
        self.head_inside: np.ndarray = arrays["head_inside"]
        self._landmark_uv: np.ndarray = arrays["landmark_uv"]
        self._samplings: dict[int, UVSampling] = {}

    @cached_property
    def ncc_bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper corner of the mean face, float32 (3,) mm: what NCC 0 and 1 mean on each axis."""
        return self.vertices.min(0), self.vertices.max(0)

    def landmarks(self, name: str) -> Tensor:
        """UV coordinates float32 K x 2 of a landmark set.

        Raises:
            UnknownNameError: there is no such set; the message lists the known ones.
        """
        if name not in LANDMARK_SETS:
            raise UnknownNameError("landmark set", name, LANDMARK_SETS)
        return torch.from_numpy(self._landmark_uv[list(LANDMARK_SETS[name])])

    def uv_sampling(self, size: int) -> UVSampling:
        """Triangle and barycentric weights at the centres of a `size` x `size` UV map, row by row."""
        if size not in self._samplings:
            self._samplings[size] = self._sample_uv(size)
        return self._samplings[size]

    def _sample_uv(self, size: int) -> UVSampling:
        from pifr.geometry.mesh_raster import rasterize_mesh

        flat = np.column_stack([self.uv * size - 0.5, np.zeros(len(self.uv))])
        raster = rasterize_mesh(flat, self.triangles, size, size)
        if not raster.covered.all():
            raise ValueError(f"the unwrapping leaves {int((~raster.covered).sum())} of {size * size} pixels empty")
        return UVSampling(raster.triangle.ravel(), raster.barycentric.reshape(-1, 3).astype(np.float64))

    def to_uv_map(self, vertex_values: np.ndarray, size: int) -> np.ndarray:
        """Values at the template's vertices (..., V, C) to float32 UV maps (..., C, size, size)."""
        sampling = self.uv_sampling(size)
        corners = self.triangles[sampling.triangle]
        values = sum(
            vertex_values[..., corners[:, k], :] * sampling.weights[:, k, None].astype(vertex_values.dtype)
            for k in range(3)
        )
        return np.moveaxis(values, -1, -2).reshape(*vertex_values.shape[:-2], -1, size, size).astype(np.float32)

    def position_map(self, size: int) -> Tensor:
        """Mean face as a UV position map: float32 3 x size x size, mm, exactly mirror symmetric."""
        positions = torch.from_numpy(self.to_uv_map(self.vertices, size))
        return symmetric_positions(positions)

    def ncc_map(self, size: int) -> Tensor:
        """NCC of the mean face: float32 3 x size x size in [0, 1]."""
        return self.to_ncc(self.position_map(size).movedim(0, -1)).movedim(-1, 0).clamp(0, 1)

    def to_ncc(self, points: Tensor) -> Tensor:
        """Millimetres on the mean face (..., 3) to NCC (..., 3)."""
        lower, extent = self._bounds(points)
        return (points - lower) / extent

    def from_ncc(self, ncc: Tensor) -> Tensor:
        """NCC (..., 3) to millimetres on the mean face (..., 3)."""
        lower, extent = self._bounds(ncc)
        return ncc * extent + lower

    def _bounds(self, like: Tensor) -> tuple[Tensor, Tensor]:
        lower, upper = (torch.from_numpy(bound).to(like) for bound in self.ncc_bounds)
        return lower, upper - lower


def symmetric_positions(positions: Tensor) -> Tensor:
    """Average of position maps ... x 3 x N x N with their mirror images."""
    return (positions + mirror_positions(positions)) / 2


def mirror_positions(positions: Tensor) -> Tensor:
    """Mirror image of position maps ... x 3 x N x N: u flipped and x negated."""
    sign = torch.tensor([-1.0, 1.0, 1.0], dtype=positions.dtype, device=positions.device)
    return positions.flip(-1) * sign[:, None, None]


@lru_cache(maxsize=1)
def load_template() -> Template:
    """The shipped template (`pifr/assets/template.npz`)."""
    with np.load(ASSETS / "template.npz") as archive:
        return Template({key: archive[key] for key in archive})
