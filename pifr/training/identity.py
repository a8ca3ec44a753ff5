"""What a recognizer sees of a texture: the mean face, drawn with it from the front."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from pifr.geometry import warp
from pifr.geometry.alignment import AlignmentTemplate
from pifr.geometry.render import frontal_camera, rasterize
from pifr.geometry.template import load_template

_SUPERSAMPLING = 2
_SHAPE_SIZE = 64


class FrontalIdentity:
    """Whom a recognizer sees in textures. All are drawn on the same shape, so that only the texture tells.

    Args:
        embed: B x 3 x S x S aligned faces in [0, 1] to B x D templates; differentiable if it is to be trained for.
        alignment, size: what `embed` wants to see.
    """

    def __init__(self, embed: Callable[[Tensor], Tensor], alignment: AlignmentTemplate, size: int) -> None:
        self._embed = embed
        template = load_template()
        shape = template.position_map(_SHAPE_SIZE)[None]
        camera = frontal_camera(warp.points_at(shape, template.landmarks("five")), alignment, size)
        drawn = rasterize(shape, camera, size, _SUPERSAMPLING)
        self._uv, self._mask = drawn.uv, drawn.mask

    def __call__(self, textures: Tensor) -> Tensor:
        """Templates of unit length, B x D, of complete textures B x 3 x N x N in [0, 1]."""
        return functional.normalize(self._embed(self.rendered(textures)).float(), dim=1)

    def rendered(self, textures: Tensor) -> Tensor:
        """Frontal views, B x 3 x S x S in [0, 1], on each texture's mean colour."""
        uv, mask = (value.to(textures.device) for value in (self._uv, self._mask))
        textures = textures.float().clamp(0, 1)
        face = warp.sample_uv(textures, uv.expand(len(textures), -1, -1, -1))
        mean = (face * mask).sum((2, 3), keepdim=True) / mask.sum()
        return functional.avg_pool2d(torch.lerp(mean.expand_as(face), face, mask), _SUPERSAMPLING)


def as_photographed(textures: Tensor) -> Tensor:
    """Textures as photos of another framing and sharpness would show them: moved by a few pixels, and blurred.

    What deceives one recognizer, pixel by pixel, does not survive this: so it does not pay to paint it (expectation
    over transformation, Athalye et al., ICML 2018). Drawn from torch's generator, anew for each texture.

    Args:
        textures: B x C x N x N; gradients flow through.
    """
    size = textures.shape[-1]
    draw = torch.rand(len(textures), 5, device=textures.device) * 2 - 1
    zoom, turn, shift = 1 + 0.06 * draw[:, 0], 0.08 * draw[:, 1], 0.03 * size * draw[:, 2:4]
    cosine, sine = zoom * turn.cos(), zoom * turn.sin()
    linear = torch.stack([cosine, -sine, sine, cosine], 1).view(-1, 2, 2)
    middle = linear.new_full((2, 1), (size - 1) / 2)
    moved = warp.affine_warp(textures, torch.cat([linear, middle + shift[..., None] - linear @ middle], 2), size)
    blurred = functional.avg_pool2d(moved, 5, 1, 2, count_include_pad=False)
    return torch.lerp(moved, blurred, draw[:, 4, None, None, None].clamp_min(0))


@dataclass(frozen=True, slots=True)
class TextureCritics:
    """Recognizers that I-Net's textures are shown to while it is trained; None: not asked.

    Attributes:
        features: V of Eq. (4), from B x 3 x N x N textures in [0, 1] to activations, its parameters frozen.
        identity: whose templates I-Net is trained to keep.
        judge: whose templates validation compares: another recognizer than the one that was trained for.
    """

    features: Callable[[Tensor], Tensor] | None = None
    identity: Callable[[Tensor], Tensor] | None = None
    judge: Callable[[Tensor], Tensor] | None = None
