"""The same rendering as `pifr.geometry.render`, drawn by OpenGL through pyrender: slow, independent, for checks.

It needs EGL (Debian: libegl1) but neither a display nor a GPU.
"""

import os

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pifr.geometry.camera import Camera
from pifr.geometry.mesh_raster import grid_triangles
from pifr.geometry.render import Rendering
from pifr.images import to_uint8

_NEAR, _FAR = 1.0, 1001.0
_MIDDLE = 0.5 * (_NEAR + _FAR)


class RendererUnavailableError(RuntimeError):
    """OpenGL cannot be used on this machine; the message says why."""


def render_reference(
    positions: Tensor, attributes: Tensor, camera: Camera, size: int, supersampling: int = 1
) -> Rendering:
    """Draws position maps with textures; arguments and result as in `render.render`, but without gradients.

    Args:
        positions: B or 1 x 3 x N x N mm, within 500 mm of the origin.
        attributes: B or 1 x 3 x M x M colours in [0, 1]; drawn with 8 bits, bilinearly, edges blended by OpenGL.
        camera, size, supersampling: as in `render.render`.

    Raises:
        RendererUnavailableError: without a working EGL.
        ValueError: if there are not three colour channels.
    """
    if attributes.shape[1] != 3:
        raise ValueError(f"OpenGL draws three colour channels, attributes have {attributes.shape[1]}")
    batch, side = len(camera), size * supersampling
    positions, attributes = positions.expand(batch, -1, -1, -1), attributes.expand(batch, -1, -1, -1)
    vertices = _clip_vertices(positions, camera, size).numpy(force=True)
    textures = to_uint8(attributes)
    rows, columns = positions.shape[-2:]
    triangles, coordinates = grid_triangles(rows, columns), _texture_coordinates(rows, columns)

    pyrender = _import_pyrender()
    try:
        renderer = pyrender.OffscreenRenderer(side, side)
    except Exception as error:  # whatever the platform raises: OpenGL, ctypes and pyrender each have their own
        raise RendererUnavailableError(f"OpenGL cannot draw off screen here: {error}") from error
    try:
        drawn = [_draw(pyrender, renderer, vertices[k], triangles, coordinates, textures[k]) for k in range(batch)]
    finally:
        renderer.delete()
    colours, depths = (np.stack(images) for images in zip(*drawn, strict=True))
    depth = torch.from_numpy(depths)[:, None]
    mask = (depth > -torch.inf).float()
    colour = torch.from_numpy(colours).permute(0, 3, 1, 2).float() / 255 * mask
    if supersampling > 1:
        colour, mask = (functional.avg_pool2d(image, supersampling) for image in (colour, mask))
        depth = functional.max_pool2d(depth, supersampling)
    return Rendering(colour, depth, mask)


def _clip_vertices(positions: Tensor, camera: Camera, size: int) -> Tensor:
    """B x (N N) x 3 in OpenGL's eye space, where the image spans [-1, 1] and the camera looks along -z."""
    pixels = camera.project(positions).flatten(2)
    x, y = (2 * pixels + 1).unbind(1)
    depth = camera.depth(positions).flatten(1) - _MIDDLE
    return torch.stack([x / size - 1, 1 - y / size, depth], 2)


def _texture_coordinates(rows: int, columns: int) -> np.ndarray:
    """OpenGL's v points up."""
    u, v = np.meshgrid((np.arange(columns) + 0.5) / columns, 1 - (np.arange(rows) + 0.5) / rows)
    return np.stack([u, v], -1).reshape(-1, 2).astype(np.float32)


def _draw(pyrender, renderer, vertices, triangles, coordinates, texture):
    """One face: colours S x S x 3 uint8 and depths S x S float32 mm, -inf where nothing is."""
    material = pyrender.MetallicRoughnessMaterial(
        baseColorTexture=pyrender.Texture(source=texture, source_channels="RGB"), baseColorFactor=np.ones(4)
    )
    primitive = pyrender.Primitive(vertices, indices=triangles, texcoord_0=coordinates, material=material)
    scene = pyrender.Scene(bg_color=(0, 0, 0, 0))
    scene.add(pyrender.Mesh([primitive]))
    scene.add(pyrender.OrthographicCamera(1.0, 1.0, znear=_NEAR, zfar=_FAR), pose=np.eye(4))
    colour, linear = renderer.render(scene, flags=pyrender.RenderFlags.FLAT)
    # pyrender undoes a perspective division that an orthographic camera never made: redo it to get the depth buffer.
    with np.errstate(divide="ignore"):
        buffer = (_FAR + _NEAR - 2 * _NEAR * _FAR / linear) / (_FAR - _NEAR)
    depth = _MIDDLE - (_NEAR + (buffer + 1) / 2 * (_FAR - _NEAR))
    return colour, np.where(linear > 0, depth, -np.inf).astype(np.float32)


def _import_pyrender():
    os.environ.setdefault("PYOPENGL_PLATFORM", "egl")  # read once, when OpenGL is first imported
    if not hasattr(np, "infty"):
        np.infty = np.inf  # pyrender 0.1.45 was written for numpy 1
    try:
        import pyrender
    except (ImportError, OSError, AttributeError) as error:  # PyOpenGL raises AttributeError where libEGL is missing
        raise RendererUnavailableError(
            f"pyrender cannot be loaded ({error}); it needs EGL: apt install libegl1"
        ) from error
    return pyrender
