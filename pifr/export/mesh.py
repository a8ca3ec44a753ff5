"""Textured meshes of frontalized faces, for viewers and modelling programs."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from pifr.errors import UnknownNameError
from pifr.geometry.mesh_raster import grid_triangles
from pifr.support.files import write_whole

if TYPE_CHECKING:
    import trimesh

    from pifr.frontalized import FrontalizedFaces

MeshFormat = Literal["obj", "ply", "glb"]
MESH_FORMATS: tuple[MeshFormat, ...] = get_args(MeshFormat)

_METRES = 0.001  # in a millimetre


def textured_mesh(faces: "FrontalizedFaces", row: int) -> "trimesh.Trimesh":
    """The shape of one face with its fine detail and complete texture; one vertex a pixel of the position map.

    Vertices are in mm in the model frame; texture coordinates have their origin at the lower left, as files want it.
    """
    import trimesh
    from PIL import Image

    from pifr.images import to_uint8

    surface = faces.surface[row].cpu().numpy()
    size = surface.shape[-1]
    places = (np.arange(size) + 0.5) / size
    u, v = np.meshgrid(places, 1 - places)
    (texture,) = to_uint8(faces.uv_texture[[row]])
    material = trimesh.visual.material.PBRMaterial(
        baseColorTexture=Image.fromarray(texture), metallicFactor=0.0, roughnessFactor=1.0
    )
    visual = trimesh.visual.TextureVisuals(np.stack([u.ravel(), v.ravel()], 1), material=material)
    return trimesh.Trimesh(
        surface.reshape(3, -1).T, grid_triangles(size, size), visual=visual, process=False, validate=False
    )


def write_mesh(faces: "FrontalizedFaces", row: int, path: Path | str) -> list[Path]:
    """Writes the mesh of one face; the suffix says the format.

    Args:
        faces: frontalized faces.
        row: which of them.
        path: ends in ".obj" (mm; material and texture are written beside it), ".ply" (mm; colours at the vertices) or
            ".glb" (metres, as glTF has it; texture inside).

    Returns:
        The files written, `path` first.

    Raises:
        UnknownNameError: another suffix.
        ValueError: the face is not reliably located.
    """
    path = Path(path)
    form = path.suffix[1:].lower()
    if form not in MESH_FORMATS:
        raise UnknownNameError("mesh format", form, MESH_FORMATS)
    if not faces.reliable[row]:
        raise ValueError(f"face {row} has no mesh: {faces.status[row]}, {faces.reason[row]}")
    mesh = textured_mesh(faces, row)
    path.parent.mkdir(parents=True, exist_ok=True)
    if form == "glb":
        return [_write(path, mesh.apply_scale(_METRES).export(file_type="glb"))]
    if form == "ply":
        mesh.visual = mesh.visual.to_color()
        return [_write(path, mesh.export(file_type="ply"))]
    return _write_obj(mesh, path)


def _write_obj(mesh: "trimesh.Trimesh", path: Path) -> list[Path]:
    from trimesh.exchange.obj import export_obj

    # Wavefront materials know diffuse textures only.
    mesh.visual.material = mesh.visual.material.to_simple()
    # Viewers multiply the texture by these: white leaves it as it is, and skin does not shine.
    mesh.visual.material.ambient = mesh.visual.material.diffuse = np.full(4, 255, np.uint8)
    mesh.visual.material.specular = np.array([0, 0, 0, 255], np.uint8)
    mesh.visual.material.name = f"{path.stem}_texture"  # names the picture, too
    text, beside = export_obj(mesh, return_texture=True, mtl_name=f"{path.stem}.mtl")
    return [_write(path, text.encode()), *(_write(path.with_name(name), data) for name, data in beside.items())]


def _write(path: Path, data: bytes) -> Path:
    write_whole(path, lambda whole: whole.write_bytes(data))
    return path
