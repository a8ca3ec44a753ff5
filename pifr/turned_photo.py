"""The photo itself, turned: what it shows of the face moves along with the surface, hair and background follow.

A rendering of a texture alone loses what recognizers know people by: the outline of a profile, hair, ears, the
sharpness of the photo. So a turned face is a warp of its photo wherever the photo shows the face. Only what it hides is
painted, from a complete texture, or not even that: beside what it shows, the warp is carried on smoothly. A face that
is not turned at all comes out as the re-aligned photo.
"""

import torch
from torch import Tensor

from pifr.completion import pull_push
from pifr.faces import FaceCrops, inside_photo
from pifr.geometry import warp
from pifr.geometry.camera import Camera
from pifr.geometry.render import render

_WHOLE = 0.99
"""Covered share from which on a pixel shows the face and nothing else."""


def turn_photo(
    faces: FaceCrops,
    image_map: Tensor,
    known: Tensor,
    positions: Tensor,
    texture: Tensor | None,
    camera: Camera,
    size: int,
) -> Tensor:
    """Photos as other cameras would have taken them.

    Args:
        faces: B faces; what lies beyond their photos is black, as `align` paints it.
        image_map: B x 2 x N x N, where each UV pixel lies in the crops.
        known: B x 1 x N x N in [0, 1], where the photo shows the face.
        positions: B x 3 x M x M mm.
        texture: B x 3 x N x N in [0, 1], complete; None: nothing is painted.
        camera: B cameras.
        size: side of the result.

    Returns:
        B x 3 x size x size in [0, 1].
    """
    painted = [] if texture is None else [texture]
    drawn = render(positions, torch.cat([image_map, known, *painted], 1), camera, size, supersampling=2)
    mask = drawn.mask
    places, known, paint = (drawn.attributes / mask.clamp_min(1e-3)).tensor_split([2, 3], 1)
    places = _carried_on(places, known * (mask > _WHOLE))
    inside = inside_photo(places, faces.edges)
    photo = warp.sample(faces.pixels, places) * inside
    return photo if texture is None else torch.lerp(photo, paint, mask * (1 - known * inside)).clamp(0, 1)


def _carried_on(places: Tensor, weight: Tensor) -> Tensor:
    """A warp (B x 2 x S x S, places in another image) known where the weight (B x 1 x S x S) says so, everywhere.

    Far from what is known it tends to the affine map that is nearest to it: so it neither folds nor runs away.
    """
    size = places.shape[-1]
    pixels = warp.pixel_grid(size, size, device=places.device).expand(len(places), -1, -1, -1)
    affine = warp.affine_transform(pixels.flatten(2), places.flatten(2), weight.flatten(1))
    smooth = warp.transform_maps(affine, pixels)
    return smooth + pull_push(places - smooth, weight)
