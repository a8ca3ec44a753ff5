"""Who predicts face surfaces: S-Net, the face model fitted to one or all pictures, Face Mesh, and the mean face."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import numpy as np

from pifr.assets import ASSETS
from pifr.geometry.mesh_raster import grid_triangles
from pifr.geometry.template import load_template
from protocols.landmark_predictors import MEDIAPIPE_68, MediaPipeLandmarks
from protocols.predictors import Predictors
from protocols.shape import PersonShape, averaged

if TYPE_CHECKING:
    from pifr.faces import FaceCrops
    from protocols.shape import ShapePredictor

MEAN_SIZE = 128
"""Side of the mean face's position map."""


class PositionMapShapes:
    """Surfaces from UV position maps.

    Args:
        name: as tables call it.
        predict: a person's pictures to the vertices of a position map, row by row.
        fingerprint: says which weights answered.
    """

    in_millimetres = True

    def __init__(self, name: str, predict: Callable[[FaceCrops], PersonShape], fingerprint: str) -> None:
        self.name, self.fingerprint = name, fingerprint
        self._predict = predict
        self.triangles = np.zeros((0, 3), np.int64)

    def __call__(self, faces: FaceCrops) -> PersonShape:
        shape = self._predict(faces)
        side = round(len(shape.vertices) ** 0.5)
        self.triangles = grid_triangles(side, side)
        return shape

    def landmarks(self, vertices: np.ndarray) -> np.ndarray:
        import torch

        from pifr.geometry.warp import points_at

        size = round(len(vertices) ** 0.5)
        maps = torch.from_numpy(np.ascontiguousarray(vertices.T)).reshape(1, 3, size, size)
        return points_at(maps, load_template().landmarks("fg7"))[0].T.numpy()


class MediaPipeShapes:
    """Face Mesh's 468 points as a surface; its unit is the crop's pixel."""

    name = "mediapipe"
    in_millimetres = False

    def __init__(self) -> None:
        self._landmarks = MediaPipeLandmarks()
        self.fingerprint = self._landmarks.fingerprint
        self.triangles = np.load(ASSETS / "face_mesh_triangles.npy").astype(np.int64)

    def __call__(self, faces: FaceCrops) -> PersonShape:
        return averaged(self._vertices, faces)

    def _vertices(self, faces: FaceCrops) -> np.ndarray:
        points, _ = self._landmarks.mesh(faces)
        # Image axes (y down, z away) to the model frame's.
        return points.astype(np.float64) * [1.0, -1.0, -1.0]

    def landmarks(self, vertices: np.ndarray) -> np.ndarray:
        return vertices[[MEDIAPIPE_68[k] for k in (36, 39, 42, 45, 33, 48, 54)]]


def vertices_of(maps: np.ndarray) -> np.ndarray:
    """Position maps B x 3 x N x N to vertices float64 B x N^2 x 3, row by row."""
    return np.asarray(maps, np.float64).reshape(*maps.shape[:2], -1).transpose(0, 2, 1)


def _mean_face() -> PositionMapShapes:
    (mean,) = vertices_of(load_template().position_map(MEAN_SIZE).numpy()[None])
    return PositionMapShapes("mean", lambda faces: PersonShape(mean, faces.usable.cpu().numpy()), "mean-face")


def _reconstruction(name: str, device: str, source: Literal["snet", "fit"], fine: bool = False) -> PositionMapShapes:
    import torch

    from pifr.frontalizer import Frontalizer, FrontalizerConfig

    config = FrontalizerConfig(shape=source, fine=fine, completion="inet" if fine else "smooth")
    frontalize = Frontalizer.from_pretrained(device=device, config=config)

    def vertices(faces: FaceCrops) -> np.ndarray:
        found = frontalize(faces)
        surface = found.surface.masked_fill(~found.reliable[:, None, None, None], torch.nan)
        return vertices_of(surface.cpu().numpy())

    return PositionMapShapes(name, lambda faces: averaged(vertices, faces), frontalize.fingerprint)


def _joint_fit(device: str) -> PositionMapShapes:
    from pifr.locator import FaceLocator
    from pifr.person_shape import PersonShapeReader

    read = PersonShapeReader(FaceLocator.from_pretrained(device=device))

    def predict(faces: FaceCrops) -> PersonShape:
        shape, used = read(faces)
        return PersonShape(vertices_of(shape[None].cpu().numpy())[0], used.cpu().numpy())

    return PositionMapShapes("fit-joint", predict, read.fingerprint)


SHAPE_PREDICTORS: Predictors[ShapePredictor] = Predictors(
    "shape predictor",
    {
        "snet-coarse": lambda device: _reconstruction("snet-coarse", device, "snet"),
        "snet-fine": lambda device: _reconstruction("snet-fine", device, "snet", fine=True),
        "fit": lambda device: _reconstruction("fit", device, "fit"),
        "fit-joint": _joint_fit,
        "mean": lambda device: _mean_face(),
        "mediapipe": lambda device: MediaPipeShapes(),
    },
)
