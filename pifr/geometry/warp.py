"""Affine maps of images and points: the one place where pixel coordinates meet `grid_sample`.

Pixel coordinates are (x right, y down) with the centre of the first pixel at (0, 0). Affine maps are ... x 2 x 3 and
act on homogeneous (x, y, 1). Everything is batched, differentiable and exportable to ONNX.
"""

from functools import reduce

import torch
from torch import Tensor
from torch.nn import functional


def sample(images: Tensor, pixels: Tensor, padding: str = "border") -> Tensor:
    """Reads images at fractional pixel coordinates, bilinearly.

    Args:
        images: B x C x H x W float.
        pixels: B x 2 x h x w float, (x, y) in pixels of `images`.
        padding: "border" repeats the edge, "zeros" reads black outside.

    Returns:
        B x C x h x w, differentiable with respect to both arguments.
    """
    height, width = images.shape[-2:]
    size = torch.tensor([width, height], dtype=pixels.dtype, device=pixels.device)
    grid = (2 * pixels.permute(0, 2, 3, 1) + 1) / size - 1
    return functional.grid_sample(images, grid, mode="bilinear", padding_mode=padding, align_corners=False)


def sample_uv(maps: Tensor, uv: Tensor) -> Tensor:
    """Reads UV maps at UV coordinates, bilinearly; beyond the outermost pixel centres the edge is repeated.

    Args:
        maps: B x C x N x N float, pixel centres at (i + 0.5) / N; B may be 1 and is then shared.
        uv: B x 2 x h x w float, (u right, v down) in [0, 1].

    Returns:
        B x C x h x w.
    """
    grid = 2 * uv.permute(0, 2, 3, 1) - 1
    maps = maps.expand(grid.shape[0], -1, -1, -1)
    return functional.grid_sample(maps, grid, mode="bilinear", padding_mode="border", align_corners=False)


def points_at(maps: Tensor, uv: Tensor) -> Tensor:
    """Values of UV maps (B x C x N x N) at K points (K x 2, in [0, 1]), landmarks say: B x C x K."""
    points = uv.to(maps).t().reshape(1, 2, 1, -1).expand(maps.shape[0], -1, -1, -1)
    return sample_uv(maps, points)[:, :, 0]


def resized(maps: Tensor, size: int) -> Tensor:
    """Square maps B x C x N x N at another side, read bilinearly: B x C x size x size; the same maps if N is `size`."""
    if maps.shape[-1] == size:
        return maps
    return functional.interpolate(maps, (size, size), mode="bilinear", align_corners=False)


def eroded(maps: Tensor, reach: int) -> Tensor:
    """The smallest value within `reach` pixels along both axes, of B x C x h x w maps; faster on a CPU than pooling."""
    height, width = maps.shape[2:]
    padded = functional.pad(maps, (reach,) * 4, value=torch.inf)
    for axis, size in ((2, height), (3, width)):
        around = [padded.narrow(axis, step, size) for step in range(2 * reach + 1)]
        padded = reduce(torch.minimum, around)
    return padded


def pixel_grid(height: int, width: int, *, device: torch.device | str | None = None) -> Tensor:
    """Coordinates (x, y) of every pixel centre: 2 x height x width float32."""
    y, x = torch.meshgrid(
        torch.arange(height, dtype=torch.float32, device=device),
        torch.arange(width, dtype=torch.float32, device=device),
        indexing="ij",
    )
    return torch.stack([x, y])


def uv_grid(size: int, *, device: torch.device | str | None = None) -> Tensor:
    """Coordinates (u, v) in [0, 1] of every pixel centre of a size x size UV map: 2 x size x size float32."""
    return (pixel_grid(size, size, device=device) + 0.5) / size


def transform_points(affine: Tensor, points: Tensor) -> Tensor:
    """Applies affine maps (... x 2 x 3) to points on the last axis (... x K x 2)."""
    return points @ affine[..., :2].transpose(-1, -2) + affine[..., None, :, 2]


def transform_maps(affine: Tensor, maps: Tensor) -> Tensor:
    """Applies affine maps (B x 2 x 3) to coordinate maps (B x 2 x ...)."""
    moved = affine[:, :, :2] @ maps.flatten(2) + affine[:, :, 2:]
    return moved.view(maps.shape)


def invert_affine(affine: Tensor) -> Tensor:
    """The inverse of invertible affine maps, ... x 2 x 3."""
    a, b, c, d = affine[..., 0, 0], affine[..., 0, 1], affine[..., 1, 0], affine[..., 1, 1]
    linear = torch.stack([torch.stack([d, -b], -1), torch.stack([-c, a], -1)], -2) / (a * d - b * c)[..., None, None]
    return torch.cat([linear, -linear @ affine[..., 2:]], -1)


def compose_affine(second: Tensor, first: Tensor) -> Tensor:
    """The affine map, ... x 2 x 3, that applies `first`, then `second`."""
    linear = second[..., :2] @ first[..., :2]
    return torch.cat([linear, second[..., :2] @ first[..., 2:] + second[..., 2:]], -1)


def affine_warp(
    images: Tensor, target_to_source: Tensor, size: int | tuple[int, int], padding: str = "border"
) -> Tensor:
    """Resamples images through affine maps.

    Args:
        images: B x C x H x W float.
        target_to_source: B x 2 x 3, takes pixels of the result to pixels of `images`.
        size: side, or (height, width), of the result.
        padding: as in `sample`.

    Returns:
        B x C x height x width. Reading is bilinear: shrinking by more than two aliases unless `images` is blurred.
    """
    height, width = (size, size) if isinstance(size, int) else size
    grid = pixel_grid(height, width, device=images.device).to(images.dtype)
    return sample(images, transform_maps(target_to_source, grid.expand(images.shape[0], -1, -1, -1)), padding)


def similarity_transform(
    source: Tensor, target: Tensor, weights: Tensor | None = None, scale: Tensor | None = None
) -> Tensor:
    """The similarities (scale, rotation, shift; never a reflection) that best take points to points.

    Least squares in the plane; equals Umeyama's estimate with the reflection excluded (TPAMI 13(4), 1991), in the
    closed form that the plane allows.

    Args:
        source: B x K x 2.
        target: B x K x 2, or K x 2 for all of the batch.
        weights: B x K, not negative; None weighs all points alike.
        scale: B, that the similarities shall have; None, and in rows that are NaN: the best.

    Returns:
        B x 2 x 3, takes source points to target points. Rows whose weighted source points coincide get scale 0 and map
        everything to the mean of the targets.
    """
    target = target.expand_as(source)
    weights = torch.ones_like(source[..., 0]) if weights is None else weights
    weights = (weights / weights.sum(1, keepdim=True).clamp_min(1e-12)).unsqueeze(-1)
    source_mean, target_mean = (weights * source).sum(1), (weights * target).sum(1)
    (x, y), (u, v) = (source - source_mean[:, None]).unbind(-1), (target - target_mean[:, None]).unbind(-1)
    spread = (weights[..., 0] * (x * x + y * y)).sum(1).clamp_min(1e-12)
    cosine = (weights[..., 0] * (x * u + y * v)).sum(1) / spread
    sine = (weights[..., 0] * (x * v - y * u)).sum(1) / spread
    if scale is not None:
        best = torch.hypot(cosine, sine)
        change = torch.where(scale.isnan(), 1.0, scale / best.clamp_min(1e-12))
        cosine, sine = change * cosine, change * sine
    linear = torch.stack([torch.stack([cosine, -sine], -1), torch.stack([sine, cosine], -1)], -2)
    shift = target_mean[..., None] - linear @ source_mean[..., None]
    return torch.cat([linear, shift], -1)


def affine_transform(source: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """The affine maps that best take points to points, by weighted least squares.

    Args:
        source, target: B x 2 x P.
        weights: B x P, not negative. Where they leave the map open, it is a shift, without any the identity.

    Returns:
        B x 2 x 3, takes source points to target points.
    """
    weights = (weights / weights.sum(1, keepdim=True).clamp_min(1e-12))[:, None]
    source_mean, target_mean = (source * weights).sum(2, keepdim=True), (target * weights).sum(2, keepdim=True)
    source, target = source - source_mean, target - target_mean
    spread = (source * weights) @ source.transpose(1, 2)
    # Points on a line leave a direction open; float32 knows a spread to seven digits.
    open_ = 1e-6 + 1e-5 * spread.diagonal(dim1=1, dim2=2).sum(1)
    ridge = open_[:, None, None] * torch.eye(2, dtype=source.dtype, device=source.device)
    spread = spread + ridge
    (a, b), (_, c) = spread.unbind(1)[0].unbind(1), spread.unbind(1)[1].unbind(1)
    inverse = torch.stack([torch.stack([c, -b], -1), torch.stack([-b, a], -1)], -2) / (a * c - b * b)[:, None, None]
    linear = ((target * weights) @ source.transpose(1, 2) + ridge) @ inverse
    return torch.cat([linear, target_mean - linear @ source_mean], 2)
