"""The face template: MeshMonk's mesh, warped onto the mean of the face model and unwrapped to the unit square."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import scipy.sparse as sparse
import scipy.sparse.linalg
from scipy.interpolate import RBFInterpolator
from scipy.spatial import cKDTree

from pifr.geometry.five_landmarks import five_of_68
from pifr.geometry.mesh_raster import vertex_normals
from pifr.geometry.similarity import fit_similarity
from pifr.support.files import write_arrays
from pifr.training.geometry_assets.face_model import FACE_END, MIRROR, read_arrays

log = logging.getLogger(__name__)


def read_source_template(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vertices, triangles and mirror permutation of MeshMonk's template, moved so that its mirror plane is x = 0.

    Raises:
        ValueError: if the mesh has no left-right automorphism.
    """
    import trimesh

    mesh = trimesh.load(path, process=False)
    vertices, triangles = _without_ears(np.asarray(mesh.vertices, np.float64), np.asarray(mesh.faces, np.int32))
    faces = {tuple(sorted(face)) for face in triangles.tolist()}
    for _ in range(10):
        vertices = vertices - vertices.mean(0)
        mirror = cKDTree(vertices).query(vertices * MIRROR)[1]
        paired = mirror[mirror] == np.arange(len(mirror))
        if paired.all() and all(tuple(sorted(face)) in faces for face in mirror[triangles].tolist()):
            break
        vertices = _upright(vertices, mirror, paired)
    else:
        raise ValueError(f"{path}: the connectivity is not mirror symmetric")
    return _symmetric(_upright(vertices, mirror, paired), mirror), triangles, mirror


def _without_ears(vertices: np.ndarray, triangles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Drop triangles that have all corners on the boundary: a straight side of the square would flatten them."""
    import igl

    while True:
        boundary = np.zeros(len(vertices), bool)
        boundary[np.asarray(igl.boundary_loop(triangles))] = True
        ears = boundary[triangles].all(1)
        if not ears.any():
            break
        triangles = triangles[~ears]
    used = np.unique(triangles)
    renumber = np.full(len(vertices), -1, np.int32)
    renumber[used] = np.arange(len(used))
    return vertices[used], renumber[triangles]


def _upright(vertices: np.ndarray, mirror: np.ndarray, paired: np.ndarray) -> np.ndarray:
    """Turn and shift the vertices so that the mean plane between mirrored pairs becomes x = 0."""
    apart = (vertices - vertices[mirror])[paired]
    normal = (apart * np.sign(apart[:, :1])).mean(0)
    normal /= np.linalg.norm(normal)
    # The smallest rotation that takes the normal to x.
    cross, cosine = np.cross(normal, [1.0, 0, 0]), normal[0]
    skew = np.array([[0, -cross[2], cross[1]], [cross[2], 0, -cross[0]], [-cross[1], cross[0], 0]])
    rotation = np.eye(3) + skew + skew @ skew / (1 + cosine)
    middle = (vertices + vertices[mirror])[paired].mean(0) / 2
    return (vertices - middle) @ rotation.T


def _symmetric(vertices: np.ndarray, mirror: np.ndarray) -> np.ndarray:
    return (vertices + vertices[mirror] * MIRROR) / 2


def warp_template(
    vertices: np.ndarray,
    triangles: np.ndarray,
    mirror: np.ndarray,
    head: dict[str, np.ndarray],
    links: dict[str, list],
) -> np.ndarray:
    """Move the template onto the mean head; V x 3 mm, exactly symmetric."""
    import igl

    target = head["mean"].astype(np.float64)
    skin = _outer_skin(head)
    source_points = np.array(links["template_point"])
    target_points = target[links["template_head_vertex"]]
    to_head = fit_similarity(source_points, target_points)
    moved = _symmetric(to_head(vertices), mirror)
    source_points = to_head(source_points)
    plates = RBFInterpolator(source_points, target_points - source_points, kernel="thin_plate_spline", smoothing=20.0)
    moved = _symmetric(moved + plates(moved), mirror)

    adjacency = igl.adjacency_matrix(triangles).astype(float)
    laplacian = sparse.diags(np.asarray(adjacency.sum(1)).ravel()) - adjacency
    smoothness = (laplacian @ laplacian).tocsc()
    for stiffness in (30, 20, 10, 6, 4, 3, 2, 1.5, 1, 1, 0.7, 0.7):
        squared, face, closest = igl.point_mesh_squared_distance(moved, target, skin)[:3]
        corners = target[skin[face]]
        normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        normal /= np.linalg.norm(normal, axis=1, keepdims=True) + 1e-12
        facing = (vertex_normals(moved, triangles) * normal).sum(1)
        weight = np.where((facing > 0.5) & (squared < 100), 1.0, 0.01)
        solve = scipy.sparse.linalg.factorized((sparse.diags(weight) + stiffness * smoothness).tocsc())
        step = np.column_stack([solve(weight * (closest - moved)[:, axis]) for axis in range(3)])
        moved = _symmetric(moved + step, mirror)
    log.info("template warp: rms distance to the mean head %.3f mm", np.sqrt(squared.mean()))
    return moved


def _outer_skin(head: dict[str, np.ndarray]) -> np.ndarray:
    """Triangles of the face's front and of the eyeballs: what the closed template should lie on."""
    triangles, mean = head["triangles"], head["mean"]
    visible = (triangles < FACE_END).all(1) | (triangles >= int(head["eyeball_begin"])).all(1)
    front = mean[triangles][:, :, 2].mean(1) > mean[:FACE_END, 2].min() + 30
    return np.ascontiguousarray(triangles[visible & front])


def unwrap_template(vertices: np.ndarray, triangles: np.ndarray, mirror: np.ndarray, rounds: int = 12) -> np.ndarray:
    """Map the template to the unit square: V x 2 (u right, v down).

    The boundary goes to the square by arc length from the top middle down each side. Inside, a convex-combination map
    (mean-value weights, so no triangle can flip) is relaxed so that stretched vertices gain room (Yoshizawa et al.
    2004): a plain harmonic map leaves the nose too few pixels.
    """
    import igl

    boundary, places = _square_boundary(vertices, triangles, mirror)
    inner = np.setdiff1d(np.arange(len(vertices)), boundary)
    weights = _mean_value_weights(vertices, triangles)
    area = igl.doublearea(vertices, triangles) / 2

    def solve(weights: sparse.csr_matrix) -> np.ndarray:
        degree = np.asarray(weights.sum(1)).ravel()
        system = (sparse.diags(degree) - weights).tocsr()
        uv = np.zeros((len(vertices), 2))
        uv[boundary] = places
        right = -system[inner][:, boundary] @ places
        factor = scipy.sparse.linalg.splu(system[inner][:, inner].tocsc())
        uv[inner] = factor.solve(right)
        return _symmetric_uv(uv, mirror)

    uv = solve(weights)
    best, best_stretch = uv, np.inf
    for _ in range(rounds):
        stretch = _vertex_stretch(vertices, triangles, uv, area)
        total = np.sqrt((stretch**2).mean())
        if total >= best_stretch:
            break
        best, best_stretch = uv, total
        weights = weights @ sparse.diags(1 / np.sqrt(stretch))
        uv = solve(weights)
    log.info("unwrapping: mean squared stretch %.3f", best_stretch**2)
    return best


def _symmetric_uv(uv: np.ndarray, mirror: np.ndarray) -> np.ndarray:
    flipped = uv[mirror] * [-1, 1] + [1, 0]
    return (uv + flipped) / 2


def _square_boundary(vertices: np.ndarray, triangles: np.ndarray, mirror: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    import igl

    loop = np.asarray(igl.boundary_loop(triangles))
    middle = [k for k in loop if mirror[k] == k]
    top, bottom = max(middle, key=lambda k: vertices[k, 1]), min(middle, key=lambda k: vertices[k, 1])
    loop = np.roll(loop, -int(np.flatnonzero(loop == top)[0]))
    end = int(np.flatnonzero(loop == bottom)[0])
    half = loop[: end + 1]
    if vertices[half, 0].mean() < 0:
        half = np.concatenate([loop[end:], loop[:1]])[::-1]
    length = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(vertices[half], axis=0), axis=1))])
    along = 2 * length / length[-1]
    for corner in (0.5, 1.5):  # a vertex in each corner, so that the mesh fills the square
        along[np.argmin(np.abs(along - corner))] = corner
    right = np.column_stack([
        np.where(along < 0.5, 0.5 + along, np.where(along < 1.5, 1.0, 2.5 - along)),
        np.clip(along - 0.5, 0, 1),
    ])  # fmt: skip
    place = dict(zip(half.tolist(), right, strict=True))
    place |= {int(mirror[k]): p * [-1, 1] + [1, 0] for k, p in list(place.items())}
    return loop, np.array([place[int(k)] for k in loop])


def _mean_value_weights(vertices: np.ndarray, triangles: np.ndarray) -> sparse.csr_matrix:
    """Floater's mean-value coordinates (2003): w_ij = (tan(a/2) + tan(b/2)) / |ij|, always positive."""
    rows, columns, values = [], [], []
    for corner in range(3):
        i, j, k = triangles[:, corner], triangles[:, (corner + 1) % 3], triangles[:, (corner + 2) % 3]
        a, b = vertices[j] - vertices[i], vertices[k] - vertices[i]
        lengths = np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1)
        angle = np.arccos(np.clip((a * b).sum(1) / (lengths[0] * lengths[1]), -1, 1))
        half = np.tan(angle / 2)
        rows += [i, i]
        columns += [j, k]
        values += [half / lengths[0], half / lengths[1]]
    shape = (len(vertices), len(vertices))
    return sparse.csr_matrix((np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), shape)


def _vertex_stretch(vertices: np.ndarray, triangles: np.ndarray, uv: np.ndarray, area: np.ndarray) -> np.ndarray:
    """Sander's L2 stretch (square to surface) a vertex, normalised to mean 1 over the surface."""
    corners, flat = vertices[triangles], uv[triangles]
    a, b = flat[:, 1] - flat[:, 0], flat[:, 2] - flat[:, 0]
    double = np.abs(a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]) + 1e-15
    p, q = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    along_u = (p * b[:, 1:2] - q * a[:, 1:2]) / double[:, None]
    along_v = (q * a[:, 0:1] - p * b[:, 0:1]) / double[:, None]
    stretch = ((along_u**2).sum(1) + (along_v**2).sum(1)) / 2
    total, weight = np.zeros(len(vertices)), np.zeros(len(vertices))
    for corner in range(3):
        np.add.at(total, triangles[:, corner], area * stretch)
        np.add.at(weight, triangles[:, corner], area)
    result = np.sqrt(total / weight)
    return result / np.sqrt((area * stretch).sum() / area.sum())


def build_template(source: Path, face_model: Path, links: Path, out: Path) -> None:
    """Warp, unwrap, link to the face model, place the landmark sets, and write the shipped template."""
    import igl

    head = read_arrays(face_model)
    vertices, triangles, mirror = read_source_template(source)
    vertices = warp_template(vertices, triangles, mirror, head, json.loads(links.read_text()))
    uv = unwrap_template(vertices, triangles, mirror)

    mean, skin = head["mean"].astype(np.float64), _outer_skin(head)
    _, face, closest = igl.point_mesh_squared_distance(vertices, mean, skin)[:3]
    link_vertices, link_weights = skin[face], _barycentric(closest, mean[skin[face]])

    points68 = mean[head["landmarks68"]]
    wanted = np.concatenate([points68, five_of_68(points68)[:2]])
    _, face, closest = igl.point_mesh_squared_distance(wanted, vertices, triangles)[:3]
    landmark_uv = (uv[triangles[face]] * _barycentric(closest, vertices[triangles[face]])[..., None]).sum(1)

    arrays = {
        "vertices": vertices.astype(np.float32),
        "triangles": triangles,
        "uv": uv,
        "mirror": mirror.astype(np.int32),
        "link_vertices": link_vertices.astype(np.int32),
        "link_weights": link_weights.astype(np.float32),
        "landmark_uv": landmark_uv.astype(np.float32),
        "head_inside": _inside_template(head, vertices, triangles),
    }
    write_arrays(out, arrays)


def _barycentric(points: np.ndarray, corners: np.ndarray) -> np.ndarray:
    a, b, p = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0], points - corners[:, 0]
    aa, ab, bb = (a * a).sum(1), (a * b).sum(1), (b * b).sum(1)
    pa, pb = (p * a).sum(1), (p * b).sum(1)
    determinant = aa * bb - ab * ab + 1e-18
    v, w = (bb * pa - ab * pb) / determinant, (aa * pb - ab * pa) / determinant
    weights = np.clip(np.column_stack([1 - v - w, v, w]), 0, 1)
    return weights / weights.sum(1, keepdims=True)


def _inside_template(head: dict[str, np.ndarray], vertices: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """float32 a head vertex: 1 where the template covers it; its 0.5 level is the edge of the face mask."""
    import igl

    mean = head["mean"].astype(np.float64)
    inside = np.zeros(len(mean), np.float32)
    eyeball = int(head["eyeball_begin"])
    boundary = np.zeros(len(vertices), bool)
    boundary[np.asarray(igl.boundary_loop(triangles))] = True
    for begin, end, reach in ((0, FACE_END, 2.5), (eyeball, len(mean), 4.5)):
        squared, face, _ = igl.point_mesh_squared_distance(mean[begin:end], vertices, triangles)[:3]
        at_edge = boundary[triangles[face]].any(1) & (np.sqrt(squared) > 0.5)
        inside[begin:end] = (np.sqrt(squared) < reach) & ~at_edge
    return inside
