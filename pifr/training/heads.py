"""Heads textured from photos, and their renders with true mask, PNCC and position map.

A registered photo becomes a textured head: each pixel of a render looks up its colour in the photo itself, at the place
where the fitted model projects, or at the mirrored place where the photo does not see it. So renders keep the photo's
sharpness, and real asymmetry of light wherever both sides were seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import cv2
import numpy as np
import torch

from pifr.geometry.camera import rotation_from_angles
from pifr.geometry.face_model import FaceModel, load_face_model
from pifr.geometry.mesh_raster import Raster, rasterize_mesh, vertex_normals
from pifr.training.landmark_fit import PhotoFit, residual_spread

CANVAS = 192
"""Side of the images in shards, pixels."""
MASK_FRACTION = 1 / 1.9
"""Side of the face mask's bounding square over the side of the canvas."""
UV_TEXTURE_SIZE = 128
POSITION_MAP_SIZE = 64

OCCLUSION_SLACK_MM = 3.5
"""A vertex is seen when it lies at most this far behind the z-buffer."""
GRAZING_RAMP = (0.1, 0.4)
"""Facing ratios between which the weight of evidence rises from 0 to 1."""
OWN_FLOOR, MIRRORED_FLOOR = 0.004, 0.002
"""Weights that decide the colour where neither side was seen well."""


@dataclass(frozen=True, slots=True)
class HeadRender:
    """One render of a head, all arrays of CANVAS x CANVAS.

    Attributes:
        image: uint8 RGB. pncc: uint8 x 3, 0 outside the mask, else 1 + 254 * NCC.
        vertices: V x 3 mm, the pose-free head that was drawn.
        yaw, pitch, roll: degrees.
    """

    image: np.ndarray
    pncc: np.ndarray
    vertices: np.ndarray
    yaw: float
    pitch: float
    roll: float


@lru_cache(maxsize=1)
def _head_attributes() -> np.ndarray:
    """float32 V x 4: NCC of the mean head, and whether the template covers the vertex."""
    model = load_face_model()
    lower, upper = model.template.ncc_bounds
    return np.column_stack([(model.mean - lower) / (upper - lower), model.template.head_inside]).astype(np.float32)


@lru_cache(maxsize=1)
def _hair_weight() -> np.ndarray:
    """float32 V in [0, 1]: how far a vertex can be lifted by hair; 0 on face, ears and throat, 1 on the skull."""
    from scipy.spatial import cKDTree

    model = load_face_model()
    inside = model.template.head_inside[: model.face_end] > 0.5
    distance = cKDTree(model.mean[: model.face_end][inside]).query(model.mean)[0]
    ears = np.abs(model.mean[:, 0]) > 76
    # Above the eyes the lift starts at the hairline; behind and below the ears it starts further back.
    height = np.clip((model.mean[:, 1] + 60) / 60, 0, 1)
    backwards = np.clip((20 - model.mean[:, 2]) / 40, 0, 1)
    weight = np.clip((distance - 8) / 30, 0, 1) * np.maximum(height, backwards)
    weight[ears & (model.mean[:, 1] < 40)] *= 0.3
    weight[model.eyeball_begin :] = 0
    return weight.astype(np.float32)


@lru_cache(maxsize=1)
def _mouth_lining() -> np.ndarray:
    """float32 V x 2 in [0, 1]: the inside of the mouth, and the part of it where the upper teeth would show."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    model = load_face_model()
    first, last = model.face_end, model.eyeball_begin
    inner = model.triangles[((model.triangles >= first) & (model.triangles < last)).all(1)] - first
    edges = np.concatenate([inner[:, [0, 1]], inner[:, [1, 2]]])
    graph = coo_matrix((np.ones(len(edges)), edges.T), (last - first, last - first))
    _, component = connected_components(graph, directed=False)
    points = model.mean[first:last]
    lips = model.mean[model.landmarks68[60:68]].mean(0)
    behind = np.linalg.norm(points - (lips - [0, 0, 15]), axis=1)
    lining = np.zeros((len(model.mean), 2), np.float32)
    mouth = first + np.flatnonzero(component == component[behind.argmin()])
    lining[mouth, 0] = 1
    above = model.mean[mouth] - lips
    lining[mouth, 1] = (above[:, 2] > -18) & (above[:, 1] > -1) & (above[:, 1] < 11)
    return lining


class TexturedHead:
    """A photo and the head fitted to it.

    Args:
        image: uint8 H x W x 3 RGB. fit: of that photo, in its pixels.

    Attributes:
        smooth: the photo, blurred as much as a face of the canvas's size needs: everything is drawn from it (textures,
            whose pixels are a little smaller, come out a little softer than they could).
    """

    def __init__(self, image: np.ndarray, fit: PhotoFit):
        model = load_face_model()
        self.image = image
        self.fit = fit
        self.model: FaceModel = model
        shape = model.vertices(fit.identity, fit.expression)
        spread = residual_spread() @ fit.residual * [1.0, -1.0] / fit.scale
        self.vertices = (shape + np.column_stack([spread, np.zeros(len(spread))]) @ fit.rotation).astype(np.float32)
        self.pixels = fit.project(self.vertices)
        self.smooth = prefiltered(image, CANVAS * MASK_FRACTION / self.face_box()[1])
        self.normals = vertex_normals(self.vertices, model.triangles)

    @cached_property
    def raster(self) -> Raster:
        """The fitted head over the photo."""
        height, width = self.image.shape[:2]
        return rasterize_mesh(self.pixels, self.model.triangles, height, width)

    @cached_property
    def evidence(self) -> np.ndarray:
        """float32 V in [0, 1]: how well the photo shows each vertex."""
        height, width = self.image.shape[:2]
        x, y = self.pixels[:, 0], self.pixels[:, 1]
        in_photo = (x >= 0) & (x < width - 1) & (y >= 0) & (y < height - 1)
        column, row = np.clip(np.round(x).astype(int), 0, width - 1), np.clip(np.round(y).astype(int), 0, height - 1)
        # The farthest depth around a pixel, so that vertices at a silhouette do not occlude themselves.
        depth = np.where(self.raster.covered, self.raster.depth, np.float32(np.finfo(np.float32).max))
        depth = cv2.erode(depth, np.ones((3, 3), np.uint8))
        seen = in_photo & (self.pixels[:, 2] > depth[row, column] - OCCLUSION_SLACK_MM * self.fit.scale)
        facing = self.normals @ self.fit.rotation[2]
        low, high = GRAZING_RAMP
        return (seen * np.clip((facing - low) / (high - low), 0, 1)).astype(np.float32)

    @cached_property
    def sources(self) -> np.ndarray:
        """float32 V x 6: own and mirrored place in the photo (x, y, x', y') and their evidence."""
        mirror = self.model.mirror
        own, evidence = self.pixels[:, :2], self.evidence
        return np.column_stack([own, own[mirror], evidence, evidence[mirror]]).astype(np.float32)

    def colours(self, sources: np.ndarray) -> np.ndarray:
        """Interpolated `sources` H x W x 6 to float32 H x W x 3 colours in 0..255."""
        own = self._photo_at(sources[..., 0], sources[..., 1])
        mirrored = self._photo_at(sources[..., 2], sources[..., 3])
        own_weight = sources[..., 4:5] + OWN_FLOOR
        mirrored_weight = (1 - np.clip(own_weight, 0, 1)) * (sources[..., 5:6] + MIRRORED_FLOOR)
        return (own * own_weight + mirrored * mirrored_weight) / (own_weight + mirrored_weight)

    def _photo_at(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return cv2.remap(
            self.smooth, np.ascontiguousarray(x), np.ascontiguousarray(y), cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        ).astype(np.float32)  # fmt: skip

    def texture(self) -> tuple[np.ndarray, np.ndarray]:
        """Complete UV texture, uint8 N x N x 3, and the photo's evidence, uint8 N x N (255 = well seen)."""
        maps = self.model.template.to_uv_map(self.model.at_template(self.sources), UV_TEXTURE_SIZE)
        sources = np.ascontiguousarray(maps.transpose(1, 2, 0))
        colours = np.clip(np.round(self.colours(sources)), 0, 255).astype(np.uint8)
        return colours, np.round(255 * np.clip(sources[..., 4], 0, 1)).astype(np.uint8)

    def position_map(self, vertices: np.ndarray) -> np.ndarray:
        """float16 N x N x 3 mm UV position map of a head mesh V x 3."""
        return self.model.position_map(vertices, POSITION_MAP_SIZE).numpy().transpose(1, 2, 0).astype(np.float16)

    def photo_view(self) -> HeadRender:
        """The untouched photo, cut to the canvas, with the fit's own PNCC."""
        to_canvas = _canvas_transform(self.pixels[:, :2])
        image = cv2.warpAffine(
            self.smooth, to_canvas, (CANVAS, CANVAS), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        placed = self.pixels.copy()
        placed[:, :2] = placed[:, :2] * to_canvas[0, 0] + to_canvas[:, 2]
        raster = rasterize_mesh(placed, self.model.triangles, CANVAS, CANVAS)
        pncc = _pncc(raster, raster.interpolate(_head_attributes()))
        return HeadRender(image, pncc, self.vertices, *self.fit.angles)

    def render(
        self,
        angles: tuple[float, float, float],
        background: np.ndarray,
        offset: np.ndarray | None = None,
        hair_mm: float = 0.0,
        light: tuple[np.ndarray, float] | None = None,
        mouth: np.ndarray | None = None,
    ) -> HeadRender:
        """Draw the head turned.

        Args:
            angles: yaw, pitch, roll in degrees.
            background: uint8 CANVAS x CANVAS x 3.
            offset: V x 3 mm added to the shape (another identity or expression).
            hair_mm: lift of the hair off the skull.
            light: unit direction in camera coordinates and strength of an added directional light.
            mouth: 2 x 3 colours in 0..255 of the inside of the mouth and of the teeth, where the offset opens a mouth
                that is shut in the photo; None: as the photo shows them.
        """
        vertices = self.vertices if offset is None else (self.vertices + offset).astype(np.float32)
        lifted = vertices + (_hair_weight()[:, None] * hair_mm) * self.normals if hair_mm else vertices
        rotation = rotation_from_angles(torch.tensor([angles], dtype=torch.float64))[0].numpy()
        turned = (lifted @ rotation.T * [1, -1, 1]).astype(np.float32)
        to_canvas = _canvas_transform(turned[:, :2])
        placed = turned * to_canvas[0, 0]
        placed[:, :2] += to_canvas[:, 2]
        raster = rasterize_mesh(placed, self.model.triangles, CANVAS, CANVAS)
        normals = self.normals @ rotation.T.astype(np.float32)
        layers = [self.sources, _head_attributes(), normals] + ([] if mouth is None else [_mouth_lining()])
        surface = raster.interpolate(np.column_stack(layers))
        colours = self.colours(surface[..., :6])
        if mouth is not None:
            inside, teeth = surface[..., 13:14], surface[..., 14:15]
            colours += inside * (mouth[0] + teeth * (mouth[1] - mouth[0]) - colours)
        if light is not None:
            direction, strength = light
            colours *= (1 + strength * (np.clip(surface[..., 10:13] @ direction, -0.3, 1) - 0.5))[..., None]
        # A soft edge: real cameras mix head and background in the pixels between them.
        alpha = cv2.GaussianBlur(raster.covered.astype(np.float32), (3, 3), 0.7) * raster.covered
        image = colours * alpha[..., None] + background * (1 - alpha[..., None])
        pncc = _pncc(raster, surface[..., 6:10])
        return HeadRender(np.clip(np.round(image), 0, 255).astype(np.uint8), pncc, vertices, *angles)

    def face_box(self) -> tuple[np.ndarray, float]:
        """Centre (x, y) and longer side of the face in the photo, pixels."""
        return _face_square(self.pixels[:, :2])


def _canvas_transform(points: np.ndarray) -> np.ndarray:
    """2 x 3 affine that puts the face mask's bounding square (of V x 2 pixels) in the middle of the canvas."""
    middle, side = _face_square(points)
    scale = CANVAS * MASK_FRACTION / side
    centre = (CANVAS - 1) / 2 - scale * middle
    return np.array([[scale, 0, centre[0]], [0, scale, centre[1]]])


def _face_square(points: np.ndarray) -> tuple[np.ndarray, float]:
    """Centre and longer side of the face mask's box, given the head's vertices, V x 2 pixels."""
    face = points[_head_attributes()[:, 3] > 0.5]
    lower, upper = face.min(0), face.max(0)
    return (lower + upper) / 2, float((upper - lower).max())


def _pncc(raster: Raster, attributes: np.ndarray) -> np.ndarray:
    """Codes as of `HeadRender`; attributes are those of `_head_attributes`, H x W x 4."""
    mask = raster.covered & (attributes[..., 3] > 0.5)
    return np.round(np.where(mask[..., None], np.clip(1 + 254 * attributes[..., :3], 1, 255), 0)).astype(np.uint8)


def prefiltered(image: np.ndarray, scale: float) -> np.ndarray:
    """Blurred as much as shrinking by `scale` needs, so that the warp does not alias."""
    return cv2.GaussianBlur(image, (0, 0), 0.45 / scale) if scale < 0.7 else image
