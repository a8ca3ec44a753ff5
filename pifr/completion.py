"""Complete textures: evidence from the photo where it shows the face, a completion elsewhere, no seam between them."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pifr.geometry import warp
from pifr.geometry.compiled import compilable, compiled, over_images

_SEEN = 0.1
"""Evidence of both sides together from which on nothing is carried on from beside."""

_DOUBTFUL, _SURE = 0.1, 0.4
"""Visibility up to which a colour may be the background's, and from which on it is the face's."""

MARGIN = 1 / 64
"""Margin of `certain`, a share of the texture's side: by how much C-Net errs on most profiles."""

_SMALL = 1 / 32
"""Doubts up to twice this wide, a share of the texture's side, are no hidden part of the face."""

WASHED = 1 / 16
"""Beyond `MARGIN`, I-Net's texture is taken although it was shown the photo's: it has learned to wash off stains."""


def certain(visibility: Tensor, margin: float = MARGIN) -> Tensor:
    """Where a texture shows nothing but the face.

    C-Net errs by a pixel or two. So near a face's outline, which for a profile is the midline of its texture, the
    background bleeds into it, and stains whatever is completed from there. Small doubts within the face, in the corner
    of an eye, say, have no background beside them: they stay as small as they are.

    Args:
        visibility: B x 1 x N x N in [0, 1].
        margin: share of the texture's side; `MARGIN + WASHED` for what is kept beside I-Net's texture.

    Returns:
        B x 1 x N x N in [0, 1]; 0 within N * margin pixels of what is hidden.
    """
    size = visibility.shape[-1]
    small, reach = (max(1, int(size * share)) for share in (_SMALL, margin))
    sure = ((visibility - _DOUBTFUL) / (_SURE - _DOUBTFUL)).clamp(0, 1)
    hidden = warp.eroded(1 - sure, small)
    return torch.minimum(sure, warp.eroded(1 - hidden, small + reach))


def blend(texture: Tensor, visibility: Tensor, completion: Tensor | None = None) -> Tensor:
    """Evidence where it is visible, the completion elsewhere, matched in colour to the evidence.

    What the completion lacks of the evidence where both are known is carried on smoothly into what is not: so colours
    agree at the seam, and far from it on average.

    Args:
        texture: B x 3 x N x N float, colours from the photo, of any kind where visibility is 0.
        visibility: B x 1 x N x N float in [0, 1]: weight of evidence; in between, the blend is feathered.
        completion: B x 3 x N x N float; None: nothing is known but the evidence, which is carried on smoothly.

    Returns:
        B x 3 x N x N in [0, 1].
    """
    if completion is None:
        return pull_push(texture, visibility).clamp_(0, 1)
    return pull_push(texture - completion, visibility).add_(completion).clamp_(0, 1)


def mirrored(texture: Tensor, visibility: Tensor) -> Tensor:
    """Evidence of either side of the face, and what neither shows carried on smoothly.

    Both sides come from one photo, so their colours are left as they are: to match them at the midline would spread
    what bleeds in at the outline of a profile over the hidden half.

    Args:
        texture, visibility: as in `blend`.

    Returns:
        B x 3 x N x N in [0, 1].
    """
    return pull_push(*both_sides(texture, visibility)).clamp_(0, 1)


def both_sides(texture: Tensor, visibility: Tensor) -> tuple[Tensor, Tensor]:
    """What either side of the face shows, the better seen one first.

    Args:
        texture, visibility: as in `blend`.

    Returns:
        B x 3 x N x N colours, and B x 1 x N x N in [0, 1] how surely they are known; 0: by neither side.
    """
    other = (1 - visibility) * visibility.flip(3)
    total = visibility + other
    mixed = (texture * visibility + texture.flip(3) * other) / total.clamp_min(1e-4)
    return mixed, (total / _SEEN).clamp(0, 1)


def pull_push(values: Tensor, weights: Tensor) -> Tensor:
    """Fills what is unknown from what is known around it, smoothly (pyramid interpolation).

    Args:
        values: B x C x N x N.
        weights: B x 1 x N x N in [0, 1]: 1 keeps a value, 0 replaces it, in between mixes. Rows without any weight
            become 0.

    Returns:
        B x C x N x N.

    Source: Gortler et al., The Lumigraph, SIGGRAPH 1996, section 3.4.
    """
    size = int(values.shape[-1])  # a tensor while a graph is traced
    # The levels of the pyramid halve exactly, and the borders lie alike: what is filled is neither shifted nor sided.
    padded = 1 << (size - 1).bit_length()
    if padded != size:
        before = (padded - size) // 2
        margins = (before, padded - size - before) * 2
        filled = pull_push(functional.pad(values, margins), functional.pad(weights, margins))
        return filled[..., before : before + size, before : before + size]
    if compilable(values, weights) and values.numel():
        filled = values.new_empty(values.shape)
        over_images(_pull_push_images, len(values), values, weights, filled)
        return filled
    if size == 1:
        return values * (weights > 0).to(values.dtype)
    pooled = functional.avg_pool2d(torch.cat([values * weights, weights], 1), 2)
    summed, total = pooled[:, :-1], pooled[:, -1:]
    coarse = pull_push(summed / total.clamp_min(1e-6), (4 * total).clamp_max(1))
    filled = functional.interpolate(coarse, scale_factor=2.0, mode="bilinear", align_corners=False)
    return torch.lerp(filled, values, weights)


@compiled(nogil=True, fastmath={"arcp", "contract", "nsz"})
def _pull_push_images(first, last, values, weights, filled):
    """The compiled loop of `pull_push`, for sides that are powers of two."""
    channels, size = values.shape[1], values.shape[2]
    # The pyramid, one level after the other; its first level is the image itself.
    sides, starts = [size], [0]
    while sides[-1] > 1:
        starts.append(starts[-1] + sides[-1] ** 2)
        sides.append(sides[-1] // 2)
    known = np.empty((channels, starts[-1] + 1), np.float32)
    weight = np.empty(starts[-1] + 1, np.float32)
    share, row, smooth = np.empty(size, np.float32), np.empty(size + 2, np.float32), np.empty(size, np.float32)
    for b in range(first, last):
        for c in range(channels):
            known[c, : size**2] = values[b, c].ravel()
        weight[: size**2] = weights[b, 0].ravel()
        for level in range(1, len(sides)):
            _pull(known, weight, starts[level - 1], starts[level], sides[level], share)
        for c in range(channels):
            known[c, starts[-1]] *= np.float32(weight[starts[-1]] > 0)
            for level in range(len(sides) - 1, 0, -1):
                _push(known[c], weight, starts[level - 1], starts[level], sides[level], row, smooth)
            filled[b, c] = known[c, : size**2].reshape(size, size)


@compiled(nogil=True, fastmath={"arcp", "contract", "nsz"})
def _pull(known, weight, fine, coarse, half, share):
    """The weighted mean of each 2 x 2 pixels of a level (from `fine` on) to the next level (from `coarse` on)."""
    least, one, side = np.float32(4e-6), np.float32(1), 2 * half
    for j in range(half):
        high = fine + 2 * j * side
        low = high + side
        upper, lower, means = weight[high : high + side], weight[low : low + side], weight[coarse + j * half :]
        for i in range(half):
            total = upper[2 * i] + upper[2 * i + 1] + lower[2 * i] + lower[2 * i + 1]
            share[i], means[i] = one / max(total, least), min(total, one)
        for c in range(len(known)):
            above, below = known[c, high : high + side], known[c, low : low + side]
            result = known[c, coarse + j * half :]
            for i in range(half):
                left = upper[2 * i] * above[2 * i] + lower[2 * i] * below[2 * i]
                right = upper[2 * i + 1] * above[2 * i + 1] + lower[2 * i + 1] * below[2 * i + 1]
                result[i] = share[i] * (left + right)


@compiled(nogil=True, fastmath={"arcp", "contract", "nsz"})
def _push(known, weight, fine, coarse, half, row, smooth):
    """Fills a level (from `fine` on) with the next one (from `coarse` on), read bilinearly."""
    near, far, side = np.float32(0.75), np.float32(0.25), 2 * half
    for j in range(side):
        # Between the row that this one lies in and the one above or below; beyond the edge, the edge repeats.
        own = j // 2
        other = min(max(own + 2 * (j % 2) - 1, 0), half - 1)
        nearest, beside = coarse + own * half, coarse + other * half
        for i in range(half):
            row[i + 1] = near * known[nearest + i] + far * known[beside + i]
        row[0], row[half + 1] = row[1], row[half]
        for i in range(half):
            smooth[2 * i] = far * row[i] + near * row[i + 1]
            smooth[2 * i + 1] = near * row[i + 1] + far * row[i + 2]
        start = fine + j * side
        line, certain = known[start : start + side], weight[start : start + side]
        for i in range(side):
            line[i] = smooth[i] + certain[i] * (line[i] - smooth[i])
