"""Where in a face crop the face is: the bounding square of its mask, and the crop that C-Net's second network sees."""

import torch
from torch import Tensor

_LEVEL = 0.5  # of the mask's probability
_PROFILE = 0.08
"""Rows and columns of the mask that hold less than this share of the fullest one are specks."""
_SMALLEST = 0.004
"""Share of the image below which a mask counts as empty."""


def bounding_squares(mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Bounding squares of masks, not led astray by specks.

    Args:
        mask: B x 1 x N x N float in [0, 1].

    Returns:
        Centres B x 2, (x, y) in pixels of the mask; sides B in pixels; and B bool, False where the mask is empty
        (centre and side are then the image's).
    """
    size = mask.shape[-1]
    face = (mask[:, 0] > _LEVEL).to(mask.dtype)
    spans = torch.stack([span(face.sum(1)), span(face.sum(2))], 1)  # B x (x, y) x (first, last)
    found = face.mean((1, 2)) > _SMALLEST
    centre, side = spans.mean(2), (spans[:, :, 1] - spans[:, :, 0]).amax(1) + 1
    whole = torch.full_like(side, size)
    return torch.where(found[:, None], centre, (whole[:, None] - 1) / 2), torch.where(found, side, whole), found


def span(profile: Tensor) -> Tensor:
    """Where a mask begins and ends: first and last index, B x 2 float, at which its profile is no speck.

    Args:
        profile: B x N, masked pixels in each column, or row.
    """
    above = (profile > _PROFILE * profile.amax(1, keepdim=True)).to(profile.dtype)
    first = above.argmax(1)
    last = profile.shape[1] - 1 - above.flip(1).argmax(1)
    return torch.stack([first, last], 1).to(profile.dtype)


def square_to_image(centre: Tensor, side: Tensor, size: int) -> Tensor:
    """The affine maps B x 2 x 3 from a size x size crop to the image in which it is the square of a centre and side.

    Args:
        centre: B x 2, (x, y) pixels of the image.
        side: B, pixels of the image.
        size: side of the crop in its own pixels.
    """
    scale = side / size
    offset = centre - scale[:, None] * ((size - 1) / 2)
    eye = torch.eye(2, dtype=scale.dtype, device=scale.device)
    return torch.cat([eye * scale[:, None, None], offset[..., None]], 2)


def resized_to(count: int, size: int, target: int, device: torch.device) -> Tensor:
    """The affine maps B x 2 x 3 from pixels of a size x size image to those of its target x target version."""
    scale = target / size
    shift = (scale - 1) / 2
    affine = torch.tensor([[scale, 0, shift], [0, scale, shift]], dtype=torch.float32, device=device)
    return affine.expand(count, -1, -1)
