"""Links: which points of the face model and of the source template MediaPipe Face Mesh's landmarks lie on."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
from scipy.spatial import cKDTree

from pifr.detectors.face_mesh import LIPS, FaceMesh
from pifr.geometry.camera import rotation_from_angles
from pifr.geometry.mesh_raster import rasterize_mesh, vertex_normals
from pifr.training.geometry_assets.face_model import FACE_END, MIRROR, read_arrays

UPPER_LIP = (61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291)
LOWER_LIP = (146, 91, 181, 84, 17, 314, 405, 321, 375)
INNER_LIP = (78, 81, 13, 311, 308, 402, 14, 178)
"""Face Mesh points on Multi-PIE landmarks 61 to 68."""
EYES = (33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380)
"""Face Mesh points on Multi-PIE landmarks 37 to 48."""
CONTOUR = (
    10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377, 152, 148, 176, 149, 150,
    136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109,
)  # fmt: skip
"""Face Mesh's outline: slides along the surface with yaw, so it never guides the warp."""
SLIDING = (454, 234, 323, 93, 127, 356, 132, 361)
"""Outline points near the ears that photos place a centimetre off: never linked."""


def find_links(face_model: Path, template: tuple[np.ndarray, np.ndarray], model: Path) -> dict[str, list]:
    """Tie Face Mesh's landmarks to both meshes by running it on their renders.

    Returns:
        `facemesh`, `head_vertex`: landmark and vertex of the face model, for registration;
        `template_point` (in the source template's own frame), `template_head_vertex`: pairs that guide the warp.
    """
    head = read_arrays(face_model)
    vertices, triangles, landmarks68 = head["mean"].astype(np.float64), head["triangles"], head["landmarks68"]
    detector = FaceMesh(model)
    on_head = _landmarks_on_mesh(detector, vertices, triangles, _paint(head))
    on_head = _symmetric_landmarks(on_head)
    template_vertices, template_triangles = template
    skin = np.full((len(template_vertices), 3), (215, 170, 150), np.float32)
    on_template = _symmetric_landmarks(_landmarks_on_mesh(detector, template_vertices, template_triangles, skin))

    face = cKDTree(vertices[:FACE_END])
    found = np.flatnonzero(~np.isnan(on_head[:, 0]))
    distance, nearest = face.query(on_head[found])
    links = {int(k): int(v) for k, v, d in zip(found, nearest, distance, strict=True) if d < 5 and k not in SLIDING}

    points68 = vertices[landmarks68]
    guides = {
        k: v
        for k, v in links.items()
        if k not in CONTOUR and not np.isnan(on_template[k, 0]) and not _near_lips(vertices[v], points68)
    }
    for corner, landmark in ((UPPER_LIP[0], 48), (UPPER_LIP[-1], 54)):
        if not np.isnan(on_template[corner, 0]):
            guides[corner] = int(landmarks68[landmark])

    for k in LIPS:
        links.pop(k, None)
    # Between the corners Face Mesh's lip points divide the contour differently from Multi-PIE's: each is put on the
    # contour at its own x.
    contours = ((UPPER_LIP, points68[48:55]), (LOWER_LIP, np.vstack([points68[54:60], points68[48]])[::-1]))
    for ring, contour in contours:
        for k in ring:
            if np.isnan(on_head[k, 0]):
                continue
            x = on_head[k, 0]
            place = [np.interp(x, contour[:, 0], contour[:, axis]) for axis in range(3)]
            links[k] = int(face.query(place)[1])
    links.update(zip(INNER_LIP, map(int, landmarks68[60:68]), strict=True))
    links.update(zip(EYES, map(int, landmarks68[36:48]), strict=True))
    _drop_unlike_eyelids(links, vertices, points68)

    return {
        "facemesh": list(links),
        "head_vertex": list(links.values()),
        "template_point": [np.round(on_template[k], 6).tolist() for k in guides],
        "template_head_vertex": list(guides.values()),
    }


def _near_lips(point: np.ndarray, points68: np.ndarray, margin: float = 2.5) -> bool:
    lower, upper = points68[48:60, :2].min(0) - margin, points68[48:60, :2].max(0) + margin
    return bool(((point[:2] > lower) & (point[:2] < upper)).all())


def _drop_unlike_eyelids(links: dict[int, int], vertices: np.ndarray, points68: np.ndarray) -> None:
    """Lid points beside the twelve linked by hand land on lashes or eyeball; keep the twelve only."""
    for k in [k for k in links if k not in EYES]:
        point = vertices[links[k], :2]
        for eye in (points68[36:42, :2], points68[42:48, :2]):
            if ((point > eye.min(0) - 1.5) & (point < eye.max(0) + 1.5)).all():
                del links[k]
                break


def _paint(head: dict[str, np.ndarray]) -> np.ndarray:
    """Skin, lips, brows, sclera and iris colours V x 3: on plain skin Face Mesh collapses the lips."""
    vertices, points68 = head["mean"].astype(np.float64), head["mean"][head["landmarks68"]].astype(np.float64)
    colours = np.full((len(vertices), 3), (215, 170, 150), np.float32)
    eyeballs = np.arange(int(head["eyeball_begin"]), len(vertices))
    colours[eyeballs] = 235
    for side in (1, -1):
        eye = eyeballs[vertices[eyeballs, 0] * side > 0]
        colours[eye[vertices[eye, 2] > vertices[eye, 2].max() - 2.5]] = 60
    outline = points68[48:60, :2].astype(np.float32)
    for vertex in np.flatnonzero(vertices[:FACE_END, 2] > points68[48, 2] - 10):
        x, y = vertices[vertex, :2]
        if cv2.pointPolygonTest(outline, (float(x), float(y)), False) >= 0:
            colours[vertex] = (185, 85, 95)
    for brow in (points68[17:22], points68[22:27]):
        along = np.linspace(0, 4, 60)
        line = np.column_stack([np.interp(along, range(5), brow[:, axis]) for axis in range(3)])
        colours[:FACE_END][cKDTree(line).query(vertices[:FACE_END])[0] < 3.5] = (75, 60, 50)
    return colours


def _landmarks_on_mesh(
    detector: FaceMesh, vertices: np.ndarray, triangles: np.ndarray, colours: np.ndarray, size: int = 512
) -> np.ndarray:
    """Median over five yaws of the surface points under Face Mesh's landmarks: 468 x 3, NaN where seen under two."""
    front = vertices[:FACE_END] if len(vertices) > FACE_END else vertices
    centre = (front.min(0) + front.max(0)) / 2
    scale = 0.68 * size / np.ptp(front[:, 1])
    normals = vertex_normals(vertices, triangles)
    seen = []
    angles = torch.tensor([[yaw, 0, 0] for yaw in (0, -12, 12, -22, 22)], dtype=torch.float64)
    for rotation in rotation_from_angles(angles).numpy():
        turned = (vertices - centre) @ rotation.T * scale
        raster = rasterize_mesh(np.column_stack([size / 2 + turned[:, 0], size / 2 - turned[:, 1], turned[:, 2]]),
                           triangles, size, size)  # fmt: skip
        surface = raster.interpolate(np.column_stack([colours, normals @ rotation.T, vertices - centre]))
        facing = surface[..., 5]
        shade = np.clip(0.7 * np.abs(facing) + 0.3 * np.abs(0.3 * surface[..., 4] + 0.8 * facing), 0, 1)
        image = np.where(raster.covered[..., None], surface[..., :3] * shade[..., None], 128).astype(np.uint8)
        found = detector(image, np.array([size / 2, size / 2]), 0.9 * size, passes=3).points[:, :2]

        column, row = np.clip(np.round(found).astype(int), 0, size - 1).T
        point = surface[row, column, 6:] @ rotation.T
        # The landmark's own ray, not the pixel centre's: depth from the raster, x and y from the landmark.
        point[:, 0], point[:, 1] = (found[:, 0] - size / 2) / scale, (size / 2 - found[:, 1]) / scale
        point = point @ rotation + centre
        point[(~raster.covered[row, column]) | (np.abs(facing[row, column]) < 0.35)] = np.nan
        seen.append(point)
    seen = np.array(seen)
    enough = (~np.isnan(seen[..., 0])).sum(0) >= 2
    median = np.full((seen.shape[1], 3), np.nan)
    median[enough] = np.nanmedian(seen[:, enough], axis=0)
    return median


def _symmetric_landmarks(points: np.ndarray) -> np.ndarray:
    """Each landmark averaged with its mirrored partner; those without a mutual partner become NaN."""
    found = np.flatnonzero(~np.isnan(points[:, 0]))
    partner = np.full(len(points), -1)
    partner[found] = found[cKDTree(points[found]).query(points[found] * MIRROR)[1]]
    result = np.full_like(points, np.nan)
    for k in found:
        if partner[partner[k]] == k:
            result[k] = (points[k] + points[partner[k]] * MIRROR) / 2
    return result
