"""Builds the shipped geometry from its sources (`pifr train assets`): the face model and the face template.

1. Face model: ICT Face Model Light reduced to what rendering needs (face, head and neck, sockets, eyeballs), in
   millimetres, modes quantised to int8.
2. Links: MediaPipe Face Mesh run on renders of both meshes ties landmarks to surface points.
3. Template: MeshMonk's mesh warped onto the mean of the face model (thin plates on the links, then nearest points with
   a smooth displacement), symmetric to the bit, then unwrapped to the unit square without a flipped triangle.
4. Texture model: principal components of the UV textures that `pifr train render` wrote.

The paper warps the same mesh onto Deep3DFace's template and unwraps it conformally (sections 3.6.2 and 3.6.5).
"""

from __future__ import annotations

import json
import logging
from pathlib import Path

import cv2
import numpy as np
import scipy.sparse as sparse
import scipy.sparse.linalg
import torch
from scipy.interpolate import RBFInterpolator
from scipy.spatial import cKDTree

from pifr.assets import ASSETS
from pifr.errors import DataError
from pifr.facemesh import LIPS, FaceMesh
from pifr.files import write_arrays, write_whole
from pifr.five_landmarks import five_of_68
from pifr.geometry.camera import rotation_from_angles
from pifr.geometry.mesh_raster import rasterize_mesh, vertex_normals
from pifr.geometry.similarity import fit_similarity

log = logging.getLogger(__name__)

MILLIMETRES_PER_CENTIMETRE = 10.0
IDENTITY_MODES = 50
HEAD_RANGES = ((0, 14062), (21451, 24591))
"""ICT vertices kept: face, head and neck, mouth socket, eye sockets; eyeballs. Gums, tongue and teeth are left out."""
FACE_END, EYEBALL_BEGIN = 9409, 21451

MIRROR = np.array([-1.0, 1.0, 1.0])
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


def build_assets(out: Path, *, ict: Path | None = None, shards: Path | None = None, relink: bool = False) -> None:
    """Build the geometry files in `out`; what is not rebuilt is taken from the shipped files.

    Args:
        out: folder; gets template.npz, and face_model.npz and texture_model.npz if their sources are given.
        ict: `ict_face.npz`. shards: folder of `pifr train render`.
        relink: find the landmark links again and write them to `out/links.json`.
    """
    out.mkdir(parents=True, exist_ok=True)
    face_model, links = ASSETS / "face_model.npz", ASSETS / "sources" / "links.json"
    source = ASSETS / "sources" / "template.ply"
    if ict is not None:
        face_model = out / "face_model.npz"
        build_face_model(ict, face_model)
    if relink:
        from pifr.zoo import find_weights

        found = find_links(face_model, read_source_template(source)[:2], find_weights("face-mesh").fetch())
        links = out / "links.json"
        write_whole(links, lambda whole: whole.write_text(json.dumps(found)))
    build_template(source, face_model, links, out / "template.npz")
    if shards is not None:
        build_texture_model(shards, out / "texture_model.npz")


# --- 1. face model -----------------------------------------------------------------------------------------------


def build_face_model(ict: Path, out: Path) -> None:
    """Reduce `ict_face.npz` (see the data folder's README for its keys) to the shipped face model.

    Raises:
        DataError: if a key is missing or the shapes disagree.
    """
    source = _read(ict)
    missing = {"mean", "identity", "expression", "expression_names", "quads", "landmarks68"} - set(source)
    if missing:
        raise DataError(f"{ict}: not a packed ICT face model, missing {sorted(missing)}")
    count = len(source["mean"])
    for key in ("identity", "expression"):
        if source[key].shape[1:] != (count, 3):
            raise DataError(f"{ict}: {key} has shape {source[key].shape}, expected (modes, {count}, 3)")

    kept = np.concatenate([np.arange(*bounds) for bounds in HEAD_RANGES])
    renumber = np.full(count, -1)
    renumber[kept] = np.arange(len(kept))
    quads = source["quads"]
    triangles = np.concatenate([quads[:, :3], quads[quads[:, 3] >= 0][:, [0, 2, 3]]])
    triangles = renumber[triangles]
    triangles = triangles[(triangles >= 0).all(1)]

    mean = source["mean"][kept].astype(np.float64) * MILLIMETRES_PER_CENTIMETRE
    mean -= mean[:FACE_END].mean(0)
    mirror = cKDTree(mean).query(mean * MIRROR)[1]
    mean = (mean + mean[mirror] * MIRROR) / 2

    arrays = {
        "mean": mean.astype(np.float32),
        "triangles": triangles.astype(np.int32),
        "mirror": mirror.astype(np.int32),
        "landmarks68": renumber[source["landmarks68"]].astype(np.int32),
        "face_end": np.int32(FACE_END),
        "eyeball_begin": np.int32(renumber[EYEBALL_BEGIN]),
        "expression_names": source["expression_names"],
    }
    for key, modes in (("identity", source["identity"][:IDENTITY_MODES]), ("expression", source["expression"])):
        deltas = modes[:, kept].astype(np.float32) * MILLIMETRES_PER_CENTIMETRE
        scale = np.abs(deltas).max((1, 2)) / 127
        arrays[key] = np.round(deltas / scale[:, None, None]).astype(np.int8)
        arrays[f"{key}_scale"] = scale.astype(np.float32)
    write_arrays(out, arrays)
    log.info("face model: %d vertices, %d triangles, %s", len(mean), len(triangles), out)


def _read(archive: Path) -> dict[str, np.ndarray]:
    with np.load(archive) as arrays:
        return dict(arrays)


# --- 2. links ----------------------------------------------------------------------------------------------------


def find_links(face_model: Path, template: tuple[np.ndarray, np.ndarray], model: Path) -> dict[str, list]:
    """Tie Face Mesh's landmarks to both meshes by running it on their renders.

    Returns:
        `facemesh`, `head_vertex`: landmark and vertex of the face model, for registration;
        `template_point` (in the source template's own frame), `template_head_vertex`: pairs that guide the warp.
    """
    head = _read(face_model)
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


# --- 3. template -------------------------------------------------------------------------------------------------


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

    head = _read(face_model)
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


# --- 4. texture model --------------------------------------------------------------------------------------------

TEXTURE_COMPONENTS = 80
MAX_TEXTURE_YAW = 20.0
"""Photos turned further show too little of one side to count as complete."""


def build_texture_model(shards: Path, out: Path) -> None:
    """Principal components of the near-frontal textures in `shards` and their mirror images.

    Statistics over all people: no texture of a photo is stored. Components are quantised to int8.

    Raises:
        DataError: if there are no shards, or fewer textures than components.
    """
    from sklearn.decomposition import PCA

    from pifr.training.dataset import Shards

    source = Shards(shards, "textures", "all")
    frontal = np.flatnonzero(source.rows["yaw"].abs() < MAX_TEXTURE_YAW)
    if len(frontal) < TEXTURE_COMPONENTS:
        raise DataError(f"{shards}: {len(frontal)} near-frontal textures, {TEXTURE_COMPONENTS} or more are needed")
    textures = np.stack([source.read("texture", index) for index in frontal])
    both = np.concatenate([textures, textures[:, :, ::-1]]).transpose(0, 3, 1, 2).astype(np.float32) / 255
    analysis = PCA(TEXTURE_COMPONENTS, svd_solver="randomized", random_state=0).fit(both.reshape(len(both), -1))
    deviations = np.sqrt(analysis.explained_variance_)
    components = (analysis.components_ * deviations[:, None]).reshape(-1, *both.shape[1:])
    scale = np.abs(components).max((1, 2, 3)) / 127
    arrays = {
        "mean": analysis.mean_.reshape(both.shape[1:]).astype(np.float32),
        "components": np.round(components / scale[:, None, None, None]).astype(np.int8),
        "scale": scale.astype(np.float32),
    }
    write_arrays(out, arrays)
    log.info(
        "texture model: %d textures, %d components carry %.1f %% of the variance",
        len(textures),
        TEXTURE_COMPONENTS,
        100 * analysis.explained_variance_ratio_.sum(),
    )
