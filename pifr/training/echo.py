"""Batches that are trained on more than once (data echoing, Choi et al. 2019, arXiv:1907.05550).

A GPU takes batches faster than the cores beside it make them. Each time but the first it sees them anew: turned, moved,
scaled, mirrored and toned, on the device itself.
"""

import math
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from pifr.geometry import warp
from pifr.training.dataset import Batch, mask_of, pncc_of

_TURN, _SCALE, _SHIFT = 7.0, 0.07, 0.04
"""Standard deviation in degrees; largest change; largest shift, each axis, as a share of the crop."""
_GAIN, _TINT, _OFFSET = 0.25, 0.08, 0.05


class Echoing(Iterable[Batch]):
    """Each batch several times in a row.

    Args:
        batches: what is repeated.
        times: how often each is yielded.
        skipped: how often the first was yielded before, by a training that is resumed.
    """

    def __init__(self, batches: Iterable[Batch], times: int, skipped: int = 0) -> None:
        self._batches, self._times, self._skipped = batches, times, skipped

    def __iter__(self) -> Iterator[Batch]:
        left = self._times - self._skipped
        for batch in self._batches:
            for _ in range(left):
                yield batch
            left = self._times


def seen_anew(batch: Batch) -> Batch:
    """Another view of every sample of a batch of `pifr.training.dataset.PairSamples`.

    Draws from torch's global generator.

    Args:
        batch: `image` B x N x N x 3 uint8, `pncc` B x N x N x 3 float16, `mask` B x N x N uint8, `yaw` B and, if there
            is one, `predicted_mask` B x N x N uint8. Other entries are left out of the result.

    Returns:
        The same entries, shapes and types; codes are 0 outside the mask.
    """
    image, device = batch["image"], batch["image"].device
    count = len(image)

    def between(low: float, high: float, *shape: int) -> Tensor:
        return torch.empty(count, *shape, device=device).uniform_(low, high)

    mirror = torch.where(torch.rand(count, device=device) < 0.5, -1.0, 1.0)
    angle = torch.randn(count, device=device) * math.radians(_TURN)
    cosine, sine, scale = angle.cos(), angle.sin(), between(1 - _SCALE, 1 + _SCALE)
    size, middle = image.shape[1], (image.shape[1] - 1) / 2
    # From pixels of the new view to those of the old one, about the middle.
    linear = torch.stack([cosine * mirror, -sine, sine * mirror, cosine], 1).view(-1, 2, 2) * scale[:, None, None]
    offset = middle - linear.sum(2) * middle + between(-_SHIFT * size, _SHIFT * size, 2)
    to_old = torch.cat([linear, offset[..., None]], 2)
    pixels = warp.affine_warp(image.permute(0, 3, 1, 2).float(), to_old, size)
    gain = between(1 - _GAIN, 1 + _GAIN, 1, 1, 1) * between(1 - _TINT, 1 + _TINT, 3, 1, 1)
    pixels = (pixels * gain + 255 * between(-_OFFSET, _OFFSET, 1, 1, 1)).round().clamp(0, 255)
    # Codes do not mix with the background: both are weighted by the mask, then divided by it.
    mask = mask_of(batch)
    layers = [pncc_of(batch) * mask, mask]
    if "predicted_mask" in batch:
        layers.append(batch["predicted_mask"][:, None].float())
    sampled = warp.affine_warp(torch.cat(layers, 1), to_old, size, "zeros")
    weight = sampled[:, 3:4]
    inside = weight >= 0.5
    codes = sampled[:, :3] / weight.clamp_min(0.5)
    flipped = mirror[:, None, None] < 0
    codes[:, 0] = torch.where(flipped, 1 - codes[:, 0], codes[:, 0])
    anew = {
        "image": pixels.permute(0, 2, 3, 1).to(torch.uint8),
        "pncc": (codes * inside).permute(0, 2, 3, 1).to(batch["pncc"].dtype),
        "mask": inside[:, 0].to(torch.uint8),
        "yaw": batch["yaw"] * mirror,
    }
    if "predicted_mask" in batch:
        anew["predicted_mask"] = sampled[:, 4].round().to(torch.uint8)
    return anew
