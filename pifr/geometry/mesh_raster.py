"""Exact triangle rasteriser on the CPU (numba), one mesh a call.

The plugin's batched renderer of position maps is `pifr.geometry.render`; this one draws arbitrary meshes (the whole
head with neck and eyeballs) for training data and synthetic benchmarks, where thousands of images are drawn by a pool
of processes and no gradient is needed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from pifr.geometry.compiled import compiled

EDGE_TOLERANCE = 1e-5
"""Barycentric slack, so that a pixel centre on a shared edge belongs to at least one triangle."""


@dataclass(frozen=True, slots=True)
class Raster:
    """Which point of which triangle each pixel shows.

    Attributes:
        triangle: int32 H x W, index into `triangles`, -1 where nothing is seen.
        barycentric: float32 H x W x 3, weights of the triangle's corners.
        depth: float32 H x W, z of the surface, larger is nearer; -inf where nothing is seen.
        triangles: int32 T x 3, the mesh that was drawn.
    """

    triangle: np.ndarray
    barycentric: np.ndarray
    depth: np.ndarray
    triangles: np.ndarray

    @property
    def covered(self) -> np.ndarray:
        """bool H x W, True where the mesh is seen."""
        return self.triangle >= 0

    def interpolate(self, attributes: np.ndarray) -> np.ndarray:
        """Vertex attributes V x C at every pixel: float32 H x W x C, 0 where nothing is seen."""
        attributes = np.ascontiguousarray(attributes, np.float32)
        if attributes.ndim != 2:
            raise ValueError(f"attributes must be V x C, got shape {attributes.shape}")
        return _interpolate(self.triangle, self.barycentric, self.triangles, attributes)


def rasterize_mesh(vertices: np.ndarray, triangles: np.ndarray, height: int, width: int) -> Raster:
    """Draw one mesh with a z-buffer.

    Args:
        vertices: V x 3: pixel x (right), pixel y (down), z (larger is nearer); pixel centres at integers.
        triangles: T x 3 vertex indices, any orientation.
        height, width: size of the image in pixels.
    """
    vertices = np.ascontiguousarray(vertices, np.float32)
    triangles = np.ascontiguousarray(triangles, np.int32)
    triangle = np.full((height, width), -1, np.int32)
    barycentric = np.zeros((height, width, 3), np.float32)
    depth = np.full((height, width), -np.inf, np.float32)
    _rasterize(vertices, triangles, triangle, barycentric, depth)
    return Raster(triangle, barycentric, depth, triangles)


@compiled
def _rasterize(vertices, triangles, triangle, barycentric, depth):
    height, width = triangle.shape
    for t in range(triangles.shape[0]):
        a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        x0, y0, z0 = vertices[a, 0], vertices[a, 1], vertices[a, 2]
        x1, y1, z1 = vertices[b, 0], vertices[b, 1], vertices[b, 2]
        x2, y2, z2 = vertices[c, 0], vertices[c, 1], vertices[c, 2]
        area = (y1 - y2) * (x0 - x2) + (x2 - x1) * (y0 - y2)
        if not abs(area) >= 1e-12:  # nothing to see, or NaN
            continue
        # Clipped before they become integers, for which some places are too far away.
        left, right = min(width, max(0, min(x0, x1, x2))), max(-1, min(width - 1, max(x0, x1, x2)))
        top, bottom = min(height, max(0, min(y0, y1, y2))), max(-1, min(height - 1, max(y0, y1, y2)))
        for y in range(math.ceil(top), math.floor(bottom) + 1):
            for x in range(math.ceil(left), math.floor(right) + 1):
                w0 = ((y1 - y2) * (x - x2) + (x2 - x1) * (y - y2)) / area
                w1 = ((y2 - y0) * (x - x2) + (x0 - x2) * (y - y2)) / area
                w2 = 1 - w0 - w1
                if w0 < -EDGE_TOLERANCE or w1 < -EDGE_TOLERANCE or w2 < -EDGE_TOLERANCE:
                    continue
                z = w0 * z0 + w1 * z1 + w2 * z2
                if z > depth[y, x]:
                    depth[y, x] = z
                    triangle[y, x] = t
                    barycentric[y, x, 0] = w0
                    barycentric[y, x, 1] = w1
                    barycentric[y, x, 2] = w2


@compiled
def _interpolate(triangle, barycentric, triangles, attributes):
    height, width = triangle.shape
    channels = attributes.shape[1]
    result = np.zeros((height, width, channels), np.float32)
    for y in range(height):
        for x in range(width):
            t = triangle[y, x]
            if t < 0:
                continue
            for corner in range(3):
                weight = barycentric[y, x, corner]
                vertex = triangles[t, corner]
                for channel in range(channels):
                    result[y, x, channel] += weight * attributes[vertex, channel]
    return result


def vertex_normals(vertices: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Area-weighted unit normals V x 3 float32 of a mesh whose triangles turn counter-clockwise seen from outside."""
    corners = vertices[triangles]
    faces = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals = np.zeros((len(vertices), 3))
    for corner in range(3):
        for axis in range(3):
            normals[:, axis] += np.bincount(triangles[:, corner], faces[:, axis], minlength=len(vertices))
    return (normals / (np.linalg.norm(normals, axis=1, keepdims=True) + 1e-12)).astype(np.float32)


def grid_triangles(rows: int, columns: int) -> np.ndarray:
    """Triangles int64 T x 3 of a position map's vertices, counted row by row: two a cell, cut as `render` cuts them."""
    index = np.arange(rows * columns).reshape(rows, columns)
    top_left, top_right, bottom_left, bottom_right = index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:]
    upper = np.stack([top_left, bottom_left, top_right], -1).reshape(-1, 3)
    return np.concatenate([upper, np.stack([bottom_right, top_right, bottom_left], -1).reshape(-1, 3)])
