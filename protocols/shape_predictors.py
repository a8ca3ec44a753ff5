"""Who predicts face surfaces: S-Net, the fitted face model, MediaPipe's mesh, and the mean face that all must beat."""

from __future__ import annotations

from collections.abc import Callable
from importlib import resources
from typing import TYPE_CHECKING, Literal

import numpy as np

from pifr.geometry.template import load_template
from protocols.landmarks import MEDIAPIPE_68, MediaPipeLandmarks
from protocols.predictors import Predictors

if TYPE_CHECKING:
    from pifr.faces import FaceCrops
    from protocols.shape import ShapePredictor

MEAN_SIZE = 128
"""Side of the mean face's position map."""


def grid_triangles(size: int) -> np.ndarray:
    """Triangles int64 T x 3 of a size x size position map whose vertices are counted row by row."""
    index = np.arange(size * size).reshape(size, size)
    a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:]
    return np.concatenate([np.stack([a, c, b], -1).reshape(-1, 3), np.stack([b, c, d], -1).reshape(-1, 3)])


class PositionMapShapes:
    """Surfaces from UV position maps.

    Args:
        name: as tables call it.
        predict: faces to position maps B x 3 x N x N, mm, NaN where there is none.
        fingerprint: says which weights answered.
    """

    def __init__(self, name: str, predict: Callable[[FaceCrops], object], fingerprint: str) -> None:
        self.name, self.fingerprint = name, fingerprint
        self._predict = predict
        self.triangles = np.zeros((0, 3), np.int64)

    def __call__(self, faces: FaceCrops) -> np.ndarray:
        maps = np.asarray(self._predict(faces), np.float64)
        self.triangles = grid_triangles(maps.shape[-1])
        return maps.reshape(*maps.shape[:2], -1).transpose(0, 2, 1)

    def landmarks(self, vertices: np.ndarray) -> np.ndarray:
        import torch

        from pifr.geometry.warp import points_at

        size = round(len(vertices) ** 0.5)
        maps = torch.from_numpy(np.ascontiguousarray(vertices.T)).reshape(1, 3, size, size)
        return points_at(maps, load_template().landmarks("fg7"))[0].T.numpy()


class MediaPipeShapes:
    """Face Mesh's 468 points as a surface; its unit is the crop's pixel, so it needs an alignment with scale."""

    name = "mediapipe"

    def __init__(self) -> None:
        self._landmarks = MediaPipeLandmarks()
        self.fingerprint = self._landmarks.fingerprint
        with resources.as_file(resources.files("pifr.assets") / "face_mesh_triangles.npy") as path:
            self.triangles = np.load(path).astype(np.int64)

    def __call__(self, faces: FaceCrops) -> np.ndarray:
        points, _ = self._landmarks.mesh(faces)
        # Image axes (y down, z away) to the model frame's.
        return points.astype(np.float64) * [1.0, -1.0, -1.0]

    def landmarks(self, vertices: np.ndarray) -> np.ndarray:
        return vertices[[MEDIAPIPE_68[k] for k in (36, 39, 42, 45, 33, 48, 54)]]


def _mean_face() -> PositionMapShapes:
    template = load_template()
    mean = template.position_map(MEAN_SIZE).numpy()
    return PositionMapShapes("mean", lambda faces: np.repeat(mean[None], len(faces), axis=0), "mean-face")


def _reconstruction(name: str, device: str, source: Literal["snet", "fit"], fine: bool = False) -> PositionMapShapes:
    from pifr.frontalizer import ShapeReader

    read = ShapeReader(device, source, fine)
    return PositionMapShapes(name, read, read.fingerprint)


SHAPE_PREDICTORS: Predictors[ShapePredictor] = Predictors(
    "shape predictor",
    {
        "snet-coarse": lambda device: _reconstruction("snet-coarse", device, "snet"),
        "snet-fine": lambda device: _reconstruction("snet-fine", device, "snet", fine=True),
        "fit": lambda device: _reconstruction("fit", device, "fit"),
        "mean": lambda device: _mean_face(),
        "mediapipe": lambda device: MediaPipeShapes(),
    },
)
