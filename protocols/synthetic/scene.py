"""How a person is seen: head, hair and shoulders as one mesh, lights with shadows, a camera, and the ground truth.

Shading is computed at the vertices and does not depend on the camera, so many cameras and many lights are drawn from
few rasterisations. Everything is orthographic, as the whole pipeline is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from pifr.geometry.camera import rotation_from_angles
from pifr.geometry.face_model import load_face_model
from pifr.geometry.mesh_raster import Raster, rasterize_mesh, vertex_normals
from protocols.synthetic.people import Hair, Person

FACE, SKIN, HAIR, CLOTHES = range(4)
INWARDS_MM = 2.5
"""The head below the textured face is drawn this much smaller, so that it never shows through."""
HEAD_CENTRE_MM = np.array([0.0, 10.0, -40.0], np.float32)
SHADOW_SIZE = 192
SHADOW_SLACK_MM = 6.0
SUPERSAMPLING = 2


@dataclass(frozen=True, slots=True)
class Light:
    """Light on a scene, linear.

    Attributes:
        ambient: RGB from everywhere.
        lamps: (direction to the lamp in the model frame, unit; RGB) of each distant lamp.
    """

    ambient: tuple[float, float, float]
    lamps: tuple[tuple[tuple[float, float, float], tuple[float, float, float]], ...] = ()


@dataclass(frozen=True, slots=True)
class View:
    """A scaled orthographic camera with an image.

    Attributes:
        yaw, pitch, roll: of the head as the camera sees it, degrees.
        scale: pixels a millimetre.
        centre: pixel (x, y) on which the middle of the face falls.
        width, height: of the image.
    """

    yaw: float
    pitch: float
    roll: float
    scale: float
    centre: tuple[float, float]
    width: int
    height: int

    @property
    def rotation(self) -> np.ndarray:
        """3 x 3, see docs/architecture.md."""
        import torch

        return rotation_from_angles(torch.tensor([[self.yaw, self.pitch, self.roll]], dtype=torch.float64))[0].numpy()


@dataclass(frozen=True, slots=True)
class Truth:
    """What is known of a picture.

    Attributes:
        mask: bool H x W, the face as the template covers it, where nothing hides it.
        pncc: uint8 H x W x 3, 0 outside the mask, else 1 + 254 * NCC.
        landmarks: float64 68 x 2 pixels, hidden ones included.
    """

    mask: np.ndarray
    pncc: np.ndarray
    landmarks: np.ndarray


class Scene:
    """A person with an expression, ready to be lit and looked at.

    Args:
        person: who.
        coefficients: expression, (57,) in [0, 1].
        hair: of the day; by default the person's own.
    """

    def __init__(self, person: Person, coefficients: np.ndarray, hair: Hair | None = None) -> None:
        model, shared = load_face_model(), _shared()
        hair = hair or person.hair
        self.person = person
        head = person.with_expression(coefficients)
        face = model.at_template(head)
        self.landmarks = surface_landmarks(face)
        outwards = head - HEAD_CENTRE_MM
        outwards /= np.linalg.norm(outwards, axis=1, keepdims=True)
        head = head - INWARDS_MM * shared.inside[:, None] * outwards
        shell, shell_triangles, shell_uv = _hair_shell(person.neutral, hair)
        parts = [(face, model.template.triangles), (head, shared.head_triangles), (shell, shell_triangles)]
        parts.append((shared.torso, shared.torso_triangles))
        offsets = np.cumsum([0, *(len(vertices) for vertices, _ in parts)])
        self.vertices = np.concatenate([vertices for vertices, _ in parts]).astype(np.float32)
        self.triangles = np.concatenate([t + o for (_, t), o in zip(parts, offsets, strict=False)]).astype(np.int32)
        self.kinds = np.repeat(np.arange(4), [len(triangles) for _, triangles in parts])
        self.normals = vertex_normals(self.vertices, self.triangles)
        size = len(person.texture)
        uv = np.zeros((len(self.vertices), 2), np.float32)
        uv[: offsets[1]] = model.template.uv * size - 0.5
        uv[offsets[2] : offsets[3]] = shell_uv
        colours = np.zeros((len(self.vertices), 3), np.float32)
        colours[offsets[1] : offsets[2]] = _head_colours(person, hair)
        colours[offsets[2] : offsets[3]] = hair.colour
        colours[offsets[3] :] = person.clothes
        self.attributes = np.column_stack([uv, colours]).astype(np.float32)
        self.strands = _strand_pattern(hair.strands)

    def irradiance(self, light: Light) -> np.ndarray:
        """Light that arrives at each vertex, float32 V x 3, with shadows cast by head and hair."""
        received = np.tile(np.asarray(light.ambient, np.float32), (len(self.vertices), 1))
        for direction, colour in light.lamps:
            towards = np.asarray(direction, np.float32) / np.linalg.norm(direction)
            lit = np.clip(self.normals @ towards, 0, 1) * self._unshadowed(towards)
            received += lit[:, None] * np.asarray(colour, np.float32)
        return received

    def draw(self, view: View, lights: Sequence[np.ndarray]) -> tuple[list[np.ndarray], np.ndarray]:
        """Pictures of one view under several lights.

        Args:
            view: the camera.
            lights: irradiances at the vertices, V x 3 each (`irradiance`).

        Returns:
            Linear RGB float32 H x W x 3 a light, black where nobody is, and the person's coverage H x W in [0, 1].
        """
        width, height = view.width * SUPERSAMPLING, view.height * SUPERSAMPLING
        placed = (self.place(self.vertices, view) + [0.5, 0.5, 0]) * SUPERSAMPLING - [0.5, 0.5, 0]
        raster = rasterize_mesh(placed, self.triangles, height, width)
        surface = raster.interpolate(self.attributes)
        albedo = self._albedo(raster, surface)
        coverage = raster.covered.astype(np.float32)
        shrink = (view.width, view.height)
        pictures = [
            cv2.resize(albedo * raster.interpolate(light), shrink, interpolation=cv2.INTER_AREA) for light in lights
        ]
        return pictures, cv2.resize(coverage, shrink, interpolation=cv2.INTER_AREA)

    def truth(self, view: View) -> Truth:
        """Mask, PNCC and landmarks of a view."""
        placed = self.place(self.vertices, view)
        raster = rasterize_mesh(placed, self.triangles, view.height, view.width)
        mask = raster.covered & (self.kinds[raster.triangle] == FACE)
        ncc = np.zeros((len(self.vertices), 3), np.float32)
        ncc[: len(_shared().ncc)] = _shared().ncc
        pncc = np.where(mask[..., None], np.clip(1 + 254 * raster.interpolate(ncc), 1, 255), 0)
        return Truth(mask, np.round(pncc).astype(np.uint8), self.place(self.landmarks, view)[:, :2].astype(float))

    def _albedo(self, raster: Raster, surface: np.ndarray) -> np.ndarray:
        kind = np.where(raster.covered, self.kinds[raster.triangle], -1)
        u, v = (np.ascontiguousarray(surface[..., k]) for k in range(2))
        skin = cv2.remap(self.person.texture, u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        strands = cv2.remap(self.strands, u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
        plain = surface[..., 2:5]
        albedo = np.where((kind == FACE)[..., None], skin, plain)
        return np.where((kind == HAIR)[..., None], plain * strands[..., None], albedo).astype(np.float32)

    def place(self, points: np.ndarray, view: View) -> np.ndarray:
        """Model points to pixel x, pixel y and depth in pixels."""
        turned = (points - _shared().middle) @ view.rotation.T * [view.scale, -view.scale, view.scale]
        return turned + [*view.centre, 0]

    def _unshadowed(self, towards: np.ndarray) -> np.ndarray:
        """Share of a distant lamp that reaches each vertex, (V,), by a shadow map with soft edges."""
        side = np.cross([0.0, 1.0, 0.0] if abs(towards[1]) < 0.95 else [1.0, 0.0, 0.0], towards)
        side /= np.linalg.norm(side)
        seen = (self.vertices - _shared().middle) @ np.stack([side, np.cross(towards, side), towards]).T
        scale = SHADOW_SIZE / 520.0
        placed = (seen * scale + [SHADOW_SIZE / 2, SHADOW_SIZE / 2, 0]).astype(np.float32)
        depth = rasterize_mesh(placed, self.triangles, SHADOW_SIZE, SHADOW_SIZE).depth
        depth = np.where(np.isfinite(depth), depth, -1e6).astype(np.float32)
        total = np.zeros(len(placed), np.float32)
        for x, y in ((0, 0), (1.5, 0), (-1.5, 0), (0, 1.5), (0, -1.5)):
            column, row = (
                np.clip(np.round(placed[:, k] + o).astype(int), 0, SHADOW_SIZE - 1) for k, o in ((0, x), (1, y))
            )
            total += placed[:, 2] > depth[row, column] - SHADOW_SLACK_MM * scale
        return total / 5


def surface_landmarks(face: np.ndarray) -> np.ndarray:
    """Multi-PIE's 68 landmarks on a face in the template's topology, V x 3 mm: float64 68 x 3.

    They lie where the template's texture shows them, on the surface that is drawn: eyes and mouth are closed there.
    """
    corners, weights = _landmark_anchors()
    return (face[corners] * weights[..., None]).sum(axis=1).astype(np.float64)


@lru_cache(maxsize=1)
def _landmark_anchors() -> tuple[np.ndarray, np.ndarray]:
    """Corners (68 x 3 vertices) and barycentric weights of the triangles that hold the landmarks."""
    template = load_face_model().template
    uv, size = template.landmarks("multipie68").numpy().astype(np.float64), 512
    column, row = np.clip((uv * size).astype(int), 0, size - 1).T
    corners = template.triangles[template.uv_sampling(size).triangle[row * size + column]]
    a, b, c = (template.uv[corners[:, k]] for k in range(3))
    first_two = np.linalg.solve(np.stack([a - c, b - c], axis=-1), (uv - c)[..., None])[..., 0]
    return corners, np.column_stack([first_two, 1 - first_two.sum(axis=1)])


@dataclass(frozen=True, slots=True)
class _Shared:
    """What does not depend on the person."""

    head_triangles: np.ndarray
    inside: np.ndarray
    skull: np.ndarray
    nearest_face: np.ndarray
    border_distance: np.ndarray
    ncc: np.ndarray
    middle: np.ndarray
    torso: np.ndarray
    torso_triangles: np.ndarray


@lru_cache(maxsize=1)
def _shared() -> _Shared:
    from scipy.spatial import cKDTree

    model = load_face_model()
    template = model.template
    distance, nearest = cKDTree(template.vertices).query(model.mean)
    # Eyeballs, sockets and what else the closed, textured template covers would only show through it.
    socket = (np.arange(len(model.mean)) >= model.face_end) & (distance < 30) & (np.abs(model.mean[:, 0]) < 60)
    covered = (template.head_inside > 0.5) | (socket & (model.mean[:, 1] > -70))
    head_triangles = model.triangles[~covered[model.triangles].all(axis=1)]
    # The scalp: what lies above a line that falls from the forehead to the nape, without face and ears.
    height = model.mean[:, 1] - np.interp(model.mean[:, 2], [-150, -60, 40], [-40, 20, 88])
    skull = np.clip(height / 12, 0, 1) * np.clip((distance - 1) / 6, 0, 1) * (np.abs(model.mean[:, 0]) < 84)
    lower, upper = template.ncc_bounds
    torso, torso_triangles = _ellipsoid((0, -325, -70), (235, 150, 115))
    middle = (template.vertices.min(0) + template.vertices.max(0)) / 2
    return _Shared(
        head_triangles,
        template.head_inside.astype(np.float32),
        skull.astype(np.float32),
        nearest,
        distance.astype(np.float32),
        ((template.vertices - lower) / (upper - lower)).astype(np.float32),
        middle,
        torso,
        torso_triangles,
    )


def _head_colours(person: Person, hair: Hair) -> np.ndarray:
    """Linear RGB V x 3 of head and neck: the face's colour goes on, the scalp takes the hair's."""
    model, shared = load_face_model(), _shared()
    size = len(person.texture)
    smooth = cv2.GaussianBlur(person.texture, (0, 0), 0.06 * size)
    pixel = np.clip(model.template.uv[shared.nearest_face] * size, 0, size - 1).astype(int)
    border = smooth[pixel[:, 1], pixel[:, 0]]
    cheeks = np.median(person.texture[int(0.45 * size) : int(0.7 * size)].reshape(-1, 3), axis=0)
    far = np.clip(shared.border_distance / 40, 0, 1)[:, None]
    skin = border * (1 - far) + cheeks * 0.9 * far
    scalp = shared.skull[:, None] * (1.0 if hair.thickness else 0.25)
    return (skin * (1 - scalp) + hair.colour * scalp).astype(np.float32)


def _hair_shell(neutral: np.ndarray, hair: Hair) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vertices, triangles and strand coordinates of the hair; an egg around the skull, cut open for the face."""
    if not hair.thickness:
        return np.zeros((0, 3), np.float32), np.zeros((0, 3), np.int32), np.zeros((0, 2), np.float32)
    rng = np.random.default_rng(hair.strands)
    skull = neutral[_shared().skull > 0.5]
    top, back, front = skull[:, 1].max(), skull[:, 2].min(), skull[:, 2].max()
    half_width = np.abs(skull[:, 0]).max()
    around, down = 180, 60
    angle = np.linspace(-np.pi, np.pi, around, endpoint=False)
    blend = 1 / (1 + np.exp(-(np.abs(np.degrees(angle)) - hair.opening) / 4))
    uneven = cv2.GaussianBlur(rng.normal(size=(1, around)).astype(np.float32), (0, 0), 1.2)[0] * 9
    bottom = hair.fringe * (1 - blend) + hair.sides * blend + uneven
    t = np.linspace(0, 1, down)[:, None]
    upper = top + hair.thickness
    y = upper + (np.minimum(bottom, upper - 5) - upper) * t
    equator = 35.0
    dome = np.sqrt(np.clip(1 - (np.clip(y - equator, 0, None) / (upper - equator)) ** 2, 0, 1))
    waves = 1 + 0.015 * cv2.GaussianBlur(rng.normal(size=(down, around)).astype(np.float32), (0, 0), 2) / 0.14
    wide = (half_width + hair.thickness) * dome * waves
    deep = ((front - back) / 2 + hair.thickness) * dome * waves
    x, z = wide * np.sin(angle), (front + back) / 2 + deep * np.cos(angle)
    vertices = np.stack([x, y, z], -1).reshape(-1, 3)
    index = np.arange(around * down).reshape(down, around)
    a, b = index[:-1], np.roll(index, -1, axis=1)[:-1]
    c, d = index[1:], np.roll(index, -1, axis=1)[1:]
    # Counter-clockwise seen from outside; angle grows to the right of a frontal image.
    triangles = np.concatenate([np.stack([a, c, b], -1).reshape(-1, 3), np.stack([b, c, d], -1).reshape(-1, 3)])
    strand_u = np.broadcast_to(np.abs(angle) / np.pi * 500, y.shape)
    return vertices, triangles, np.stack([strand_u, (upper - y) * 0.8], -1).reshape(-1, 2)


def _strand_pattern(seed: int) -> np.ndarray:
    """Brightness of hair, float32 512 x 512 around 1: fine across, drawn out along the strands."""
    rng = np.random.default_rng(seed)
    pattern = np.ones((512, 512), np.float32)
    for across, along, strength in ((512, 14, 0.35), (48, 6, 0.2)):
        noise = rng.normal(size=(along, across)).astype(np.float32)
        pattern += strength * cv2.resize(noise, (512, 512), interpolation=cv2.INTER_CUBIC)
    return np.clip(pattern, 0.2, 2.5)


def _ellipsoid(centre: tuple[float, ...], radii: tuple[float, ...], rings: int = 24) -> tuple[np.ndarray, np.ndarray]:
    polar, around = np.linspace(0, np.pi, rings)[:, None], np.linspace(-np.pi, np.pi, 2 * rings, endpoint=False)
    unit = np.stack(
        [np.sin(polar) * np.sin(around), np.cos(polar) + 0 * around, np.sin(polar) * np.cos(around)], axis=-1
    ).reshape(-1, 3)
    index = np.arange(rings * 2 * rings).reshape(rings, 2 * rings)
    a, b = index[:-1], np.roll(index, -1, axis=1)[:-1]
    c, d = index[1:], np.roll(index, -1, axis=1)[1:]
    triangles = np.concatenate([np.stack([a, c, b], -1).reshape(-1, 3), np.stack([b, c, d], -1).reshape(-1, 3)])
    return unit * radii + centre, triangles
