"""Pictures of everything between a photo and its frontal rendering, under the names that montages use."""

import cv2
import numpy as np
from torch import Tensor
from torch.nn import functional

from pifr.faces import ARCFACE_112, FaceCrops
from pifr.frontalized import FrontalizedFaces
from pifr.geometry import warp
from pifr.geometry.lighting import surface_normals
from pifr.geometry.render import render_frontal
from pifr.geometry.template import load_template
from pifr.images import to_uint8
from pifr.support.devices import inference

_LIGHT = (0.35, 0.35, 0.87)  # direction to the light of shaded shapes, model frame

PANELS = ("input", "mask", "pncc", "uv_partial", "visibility", "uv_texture", "shape", "frontal", "landmarks")
"""Names of the pictures."""


@inference()
def panels(faces: FaceCrops, result: FrontalizedFaces) -> list[dict[str, np.ndarray]]:
    """Pictures of each face by their names, `PANELS`.

    Args:
        faces: what was frontalized.
        result: the frontalizer's result.

    Returns:
        B dicts of uint8 H x W x 3 RGB pictures.
    """
    pixels = faces.pixels.to(result.pncc.device)
    pictures = {
        "input": pixels,
        "mask": result.mask.expand(-1, 3, -1, -1),
        "pncc": result.pncc * result.mask,
        "uv_partial": result.uv_partial * result.visibility,
        "visibility": result.visibility.expand(-1, 3, -1, -1),
        "uv_texture": result.uv_texture,
        "shape": shaded(result.surface, result.frontal.shape[-1]),
        "frontal": result.frontal,
    }
    arrays = {name: to_uint8(images) for name, images in pictures.items()}
    arrays["landmarks"] = _dotted(arrays["input"], result.landmarks("multipie68").cpu().numpy())
    return [{name: images[row] for name, images in arrays.items()} for row in range(len(result))]


def shaded(surface: Tensor, size: int) -> Tensor:
    """Grey renderings B x 3 x size x size of shapes B x 3 x M x M mm, lit from above their left."""
    smooth = functional.interpolate(surface, scale_factor=2, mode="bicubic") if surface.shape[-1] < 100 else surface
    light = surface.new_tensor(_LIGHT)[:, None, None]
    grey = (surface_normals(smooth) * light).sum(1, keepdim=True).clamp_min(0) * 0.8 + 0.1
    landmarks = warp.points_at(smooth, load_template().landmarks("five"))
    return render_frontal(smooth, grey, landmarks, ARCFACE_112, size).attributes.expand(-1, 3, -1, -1)


def _dotted(pictures: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Copies of B x H x W x 3 pictures with green dots at B x K x 2 points; NaN points are left out."""
    dotted = pictures.copy()
    for picture, places in zip(dotted, points, strict=True):
        for x, y in places[np.isfinite(places).all(1)]:
            centre = (round(float(x) * 8), round(float(y) * 8))
            cv2.circle(picture, centre, 12, (25, 240, 50), -1, cv2.LINE_AA, shift=3)
    return dotted
