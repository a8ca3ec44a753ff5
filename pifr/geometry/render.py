"""Batched rendering of position maps, on any device.

What is rendered first is the UV coordinate per pixel (`UVRaster`); colours are then read from the texture by bilinear
sampling, so a texture may be finer than the geometry and gets exact gradients. Geometry gets none: visibility is not
differentiable. A position map is a regular grid, so its triangles need no index lists.

Two rasterisers give the same result. On a CPU it is a compiled loop over the triangles. Elsewhere it is plain torch,
which lists the pixel centres within the bounding boxes of all images' front-facing triangles, keeps those inside, and
settles visibility by one scatter of depth and fragment number packed into an integer.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pifr.geometry import warp
from pifr.geometry.alignment import AlignmentTemplate
from pifr.geometry.camera import Camera, camera_from_angles
from pifr.geometry.compiled import compilable, compiled, over_images

_DEPTH_STEPS = 1 << 30
_FRAGMENT_BITS = 32
_EDGE_TOLERANCE = 1e-4  # of a triangle's height: a pixel centre on a shared edge must not fall between two triangles


@dataclass(frozen=True, slots=True)
class UVRaster:
    """A position map seen by a camera, before any colour.

    Attributes:
        uv: B x 2 x S x S float32 in [0, 1], (u right, v down); 0 where `mask` is 0.
        depth: B x 1 x S x S float32, mm towards the camera, larger is nearer; -inf where `mask` is 0.
        mask: B x 1 x S x S float32, 1 on the face and 0 elsewhere.
    """

    uv: Tensor
    depth: Tensor
    mask: Tensor

    def sample(self, maps: Tensor) -> Tensor:
        """Reads UV maps (B or 1 x C x M x M, any M) at each pixel: B x C x S x S, 0 outside the mask."""
        return warp.sample_uv(maps, self.uv).mul_(self.mask)


@dataclass(frozen=True, slots=True)
class Rendering:
    """A rendered batch.

    Attributes:
        attributes: B x C x S x S, premultiplied by `mask`: 0 outside, blended with 0 on antialiased edges.
        depth: B x 1 x S x S float32, mm towards the camera; -inf outside; the nearest of the samples of a pixel.
        mask: B x 1 x S x S float32, the covered share of each pixel (0 or 1 unless supersampled).
    """

    attributes: Tensor
    depth: Tensor
    mask: Tensor


def render(positions: Tensor, attributes: Tensor, camera: Camera, size: int, supersampling: int = 1) -> Rendering:
    """Renders position maps with attributes (colours, NCC, anything per UV pixel).

    Args:
        positions: B x 3 x N x N mm (or 1 x 3 x N x N for all cameras).
        attributes: B x C x M x M (or 1 x ...), any M; gradients flow to it.
        camera: B cameras.
        size: side of the square result, in the camera's pixels.
        supersampling: samples per pixel and axis; 2 or more antialiases.

    Returns:
        `Rendering`, B x C x size x size. Triangles seen from behind are not drawn.

    Raises:
        ValueError: there are neither as many attributes as cameras nor one for all.
    """
    if len(attributes) not in (1, len(camera)):
        raise ValueError(
            f"{len(attributes)} attribute maps for {len(camera)} cameras: one each is needed, or one for all"
        )
    if compilable(attributes) and len(camera):
        grids = _vertex_grids(positions, camera, supersampling)
        if compilable(*grids):
            return _render_compiled(*grids, attributes, size, supersampling)
    raster = rasterize(positions, camera, size, supersampling)
    drawn, depth, mask = raster.sample(attributes), raster.depth, raster.mask
    if supersampling > 1:
        drawn, mask = (functional.avg_pool2d(image, supersampling) for image in (drawn, mask))
        depth = functional.max_pool2d(depth, supersampling)
    return Rendering(drawn, depth, mask)


def frontal_camera(
    landmarks: Tensor,
    alignment: AlignmentTemplate,
    size: int,
    yaw: Tensor | float = 0.0,
    pitch: Tensor | float = 0.0,
) -> Camera:
    """Cameras that put five landmarks where a recognizer wants them, so that no detector runs on a rendering.

    Args:
        landmarks: B x 3 x 5 mm in the model frame, in the order of `alignment.points`.
        alignment: the recognizer's template; it is scaled to `size`.
        size: side of the rendering in pixels.
        yaw, pitch: degrees, a number or B each; 0 is frontal, other values leave the face turned.

    Returns:
        B cameras of that yaw and pitch; scale, shift and roll are those of the similarity that takes the landmarks'
        projections closest to the template, as a photo of that pose would be aligned.
    """
    camera = camera_from_angles(yaw, pitch, 0.0, 1.0, landmarks.new_zeros(len(landmarks), 2))
    target = alignment.scaled(size).to(landmarks)
    return camera.mapped(warp.similarity_transform(camera.project(landmarks).transpose(1, 2), target))


def render_frontal(
    positions: Tensor,
    texture: Tensor,
    landmarks: Tensor,
    alignment: AlignmentTemplate,
    size: int,
) -> Rendering:
    """Renders faces as a recognizer expects them: orthographic, upright, aligned to its five-point template.

    Args:
        positions: B x 3 x N x N mm.
        texture: B x C x M x M, any M; gradients flow to it.
        landmarks: B or 1 x 3 x 5 mm: those of the shapes, `warp.points_at(positions, uv)`, or the mean shape's for all.
        alignment, size: as in `frontal_camera`.
    """
    camera = frontal_camera(landmarks.expand(len(positions), -1, -1), alignment, size)
    return render(positions, texture, camera, size, supersampling=2)


def rasterize(positions: Tensor, camera: Camera, size: int, supersampling: int = 1) -> UVRaster:
    """Finds which UV coordinate each pixel sees; arguments as `render`, side `size * supersampling`."""
    x, y, depth = _vertex_grids(positions, camera, supersampling)
    draw = _draw_compiled if x.device.type == "cpu" else _draw_scattered
    uv, depth = draw(x, y, depth, size * supersampling)
    return UVRaster(uv, depth, (depth > -torch.inf).float())


def _vertex_grids(positions: Tensor, camera: Camera, supersampling: int) -> tuple[Tensor, Tensor, Tensor]:
    """Where the camera sees each vertex: x, y in pixels of the samples, and depth, B x N x N each; without gradient."""
    positions = positions.detach().expand(len(camera), -1, -1, -1)
    x, y = ((camera.project(positions) + 0.5) * supersampling - 0.5).detach().unbind(1)
    return x, y, camera.depth(positions)[:, 0].detach()


def _draw_compiled(x: Tensor, y: Tensor, depth: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Vertex grids (B x h x w pixels, pixels, depth) to UV (B x 2 x size x size) and depth (B x 1 x size x size)."""
    uv = x.new_zeros(len(x), size, size, 2, dtype=torch.float32)  # as `grid_sample` wants it
    nearest = x.new_full((len(x), size, size), -torch.inf, dtype=torch.float32)
    over_images(_draw_grids, len(x), x.float(), y.float(), depth.float(), uv, nearest, _EDGE_TOLERANCE)
    return uv.permute(0, 3, 1, 2), nearest[:, None]


def _render_compiled(
    x: Tensor, y: Tensor, depth: Tensor, attributes: Tensor, size: int, supersampling: int
) -> Rendering:
    """`render` of vertex grids (B x h x w, in pixels of the samples), an image at a time."""
    batch, channels = len(x), attributes.shape[1]
    drawn = x.new_empty(batch, channels, size, size)
    nearest, mask = x.new_empty(2, batch, 1, size, size)
    attributes = attributes.permute(0, 2, 3, 1)
    over_images(_render_grids, batch, x, y, depth, attributes, supersampling, drawn, nearest, mask, _EDGE_TOLERANCE)
    return Rendering(drawn, nearest, mask)


@compiled(nogil=True, fastmath={"arcp", "contract"})
def _draw_grids(first, last, x, y, depth, uv, nearest, tolerance):
    for b in range(first, last):
        _draw_grid(x[b], y[b], depth[b], uv[b], nearest[b], tolerance)


@compiled(nogil=True, fastmath={"arcp", "contract"})
def _render_grids(first, last, x, y, depth, attributes, supersampling, drawn, nearest, mask, tolerance):
    side = drawn.shape[-1] * supersampling
    uv, near = np.empty((side, side, 2), np.float32), np.empty((side, side), np.float32)
    for b in range(first, last):
        near[:] = -np.inf
        _draw_grid(x[b], y[b], depth[b], uv, near, tolerance)
        _shade(uv, near, attributes[min(b, len(attributes) - 1)], supersampling, drawn[b], nearest[b, 0], mask[b, 0])


@compiled(nogil=True, fastmath={"arcp", "contract", "nsz"})
def _shade(uv, near, attributes, supersampling, drawn, nearest, mask):
    """Attributes (M x M x C) at every sample, averaged over the samples of each pixel; the nearest depth of them."""
    rows, columns, channels = attributes.shape
    zero, half, share = np.float32(0), np.float32(0.5), np.float32(1 / supersampling**2)
    height, width = np.float32(rows), np.float32(columns)
    last_row, last_column = np.float32(rows - 1), np.float32(columns - 1)
    # Three sums fit in registers; where fewer channels are left, the last one is summed again.
    for first in range(0, channels, 3):
        second, third = min(first + 1, channels - 1), min(first + 2, channels - 1)
        for j in range(drawn.shape[1]):
            for i in range(drawn.shape[2]):
                covered, deepest = zero, np.float32(-np.inf)
                sum1, sum2, sum3 = zero, zero, zero
                for sample_j in range(j * supersampling, (j + 1) * supersampling):
                    for sample_i in range(i * supersampling, (i + 1) * supersampling):
                        z = near[sample_j, sample_i]
                        if z == -np.inf:
                            continue
                        deepest = max(deepest, z)
                        covered += share
                        right = min(max(uv[sample_j, sample_i, 0] * width - half, zero), last_column)
                        down = min(max(uv[sample_j, sample_i, 1] * height - half, zero), last_row)
                        left, top = np.uint32(right), np.uint32(down)
                        beside, below = min(left + 1, np.uint32(columns - 1)), min(top + 1, np.uint32(rows - 1))
                        right, down = right - np.float32(left), (down - np.float32(top)) * share
                        d = right * down
                        b, c = right * share - d, down - d
                        a = share - down - b
                        upper, lower = attributes[top], attributes[below]
                        sum1 += a * upper[left, first] + b * upper[beside, first]
                        sum1 += c * lower[left, first] + d * lower[beside, first]
                        sum2 += a * upper[left, second] + b * upper[beside, second]
                        sum2 += c * lower[left, second] + d * lower[beside, second]
                        sum3 += a * upper[left, third] + b * upper[beside, third]
                        sum3 += c * lower[left, third] + d * lower[beside, third]
                drawn[first, j, i], drawn[second, j, i], drawn[third, j, i] = sum1, sum2, sum3
                nearest[j, i], mask[j, i] = deepest, covered


@compiled(nogil=True, fastmath={"arcp", "contract"})
def _draw_grid(x, y, depth, uv, nearest, tolerance):
    size = nearest.shape[-1]
    rows, columns = x.shape
    for row in range(rows - 1):
        for column in range(columns - 1):
            for lower in range(2):
                # Corner 0 is the right angle in UV: top-left or bottom-right; 1 lies below or above, 2 beside it.
                r0, c0 = row + lower, column + lower
                r1, c2 = row + 1 - lower, column + 1 - lower
                x0, y0 = x[r0, c0], y[r0, c0]
                x1, y1 = x[r1, c0] - x0, y[r1, c0] - y0
                x2, y2 = x[r0, c2] - x0, y[r0, c2] - y0
                area = x1 * y2 - x2 * y1
                if not area <= -1e-9:  # seen from behind (y points down), or NaN
                    continue
                # Clipped before they become integers, for which some places are too far away.
                left = math.ceil(min(size, max(0, x0 + min(x1, x2, 0))))
                right = math.floor(max(-1, min(size - 1, x0 + max(x1, x2, 0))))
                top = math.ceil(min(size, max(0, y0 + min(y1, y2, 0))))
                bottom = math.floor(max(-1, min(size - 1, y0 + max(y1, y2, 0))))
                if left > right or top > bottom:
                    continue
                # Weights and depth are affine in the pixel: slopes along x and y, and values at the left of a row.
                w1_x, w1_y, w2_x, w2_y = y2 / area, -x2 / area, -y1 / area, x1 / area
                z0 = depth[r0, c0]
                z1, z2 = depth[r1, c0] - z0, depth[r0, c2] - z0
                step_u, step_v = (1 - 2 * lower) / columns, (1 - 2 * lower) / rows
                u0, v0 = (c0 + 0.5) / columns, (r0 + 0.5) / rows
                for j in range(top, bottom + 1):
                    w1_left = w1_x * (left - x0) + w1_y * (j - y0)
                    w2_left = w2_x * (left - x0) + w2_y * (j - y0)
                    entered = False
                    for i in range(right - left + 1):
                        w1, w2 = w1_left + i * w1_x, w2_left + i * w2_x
                        if w1 < -tolerance or w2 < -tolerance or w1 + w2 > 1 + tolerance:
                            if entered:
                                break
                            continue
                        entered = True
                        z = z0 + w1 * z1 + w2 * z2
                        if z > nearest[j, left + i]:
                            nearest[j, left + i] = z
                            uv[j, left + i, 0] = u0 + w2 * step_u
                            uv[j, left + i, 1] = v0 + w1 * step_v


def _draw_scattered(x: Tensor, y: Tensor, depth: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """As `_draw_compiled`, on any device."""
    batch, rows, columns = x.shape
    cells = (rows - 1) * (columns - 1)
    visible = _rasterize(*_grid_triangles(x, y, depth, size), batch, size)
    # The triangle's number and its barycentric weights give the UV coordinate without any look-up.
    lower = visible.triangle >= cells
    cell = visible.triangle - lower.long() * cells
    row = torch.div(cell, columns - 1, rounding_mode="floor")
    third = 1 - visible.first - visible.second
    right = torch.where(lower, 1 - third, third) + (cell - row * (columns - 1))
    down = torch.where(lower, 1 - visible.second, visible.second) + row
    u, v = visible.image((right + 0.5) / columns, 0.0), visible.image((down + 0.5) / rows, 0.0)
    return torch.stack([u, v], 1), visible.image(visible.depth, -torch.inf)[:, None]


def _grid_triangles(x: Tensor, y: Tensor, depth: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Triangles of vertex grids (B x h x w each) that may cover a pixel, as `_rasterize` wants them.

    Each cell has two: cell c holds c (top-left, bottom-left, top-right) and c + cells (bottom-right, top-right,
    bottom-left), counter-clockwise seen from the front.
    """
    columns = x.shape[2]
    cells = (x.shape[1] - 1) * (columns - 1)

    def extent(grid: Tensor, choose: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        pairs = choose(grid[:, 1:], grid[:, :-1])
        return choose(pairs[:, :, 1:], pairs[:, :, :-1])

    # Drop cells between pixel centres or outside the image, and those that turn both triangles away.
    seen = extent(x, torch.minimum).clamp_(min=0).ceil_() <= extent(x, torch.maximum).clamp_(max=size - 1)
    seen &= extent(y, torch.minimum).clamp_(min=0).ceil_() <= extent(y, torch.maximum).clamp_(max=size - 1)
    right_x, right_y = x[:, :, 1:] - x[:, :, :-1], y[:, :, 1:] - y[:, :, :-1]
    down_x, down_y = x[:, 1:] - x[:, :-1], y[:, 1:] - y[:, :-1]
    upper = right_x[:, :-1] * down_y[:, :, :-1] > right_y[:, :-1] * down_x[:, :, :-1]
    lower = right_x[:, 1:] * down_y[:, :, 1:] > right_y[:, 1:] * down_x[:, :, 1:]
    seen &= upper | lower

    seen = seen.flatten().nonzero()[:, 0]
    image = torch.div(seen, cells, rounding_mode="floor")
    cell = seen - image * cells
    row = torch.div(cell, columns - 1, rounding_mode="floor")
    top_left = image * (cells + x.shape[1] + columns - 1) + cell + row  # a row has one more vertex than cells
    top_right, bottom_left, bottom_right = top_left + 1, top_left + columns, top_left + columns + 1
    corners = torch.stack(
        [
            torch.cat([top_left, bottom_right]),
            torch.cat([bottom_left, top_right]),
            torch.cat([top_right, bottom_left]),
        ]
    )
    planes = torch.stack([axis.reshape(-1)[corners] for axis in (x, y, depth)])
    return torch.cat([image, image]), torch.cat([cell, cell + cells]), planes


@dataclass(frozen=True, slots=True)
class _Visible:
    """One entry per covered pixel: its place in the flattened B x S x S images, and what it shows."""

    shape: tuple[int, int, int]
    pixel: Tensor
    triangle: Tensor
    first: Tensor
    second: Tensor
    depth: Tensor

    def image(self, values: Tensor, empty: float) -> Tensor:
        flat = values.new_full((self.shape[0] * self.shape[1] * self.shape[2],), empty)
        return flat.index_copy_(0, self.pixel, values).view(self.shape)


def _rasterize(image: Tensor, number: Tensor, planes: Tensor, batch: int, size: int) -> _Visible:
    """The rasteriser proper.

    Args:
        image: T int64, the image of the batch that each triangle belongs to.
        number: T int64, what to call the triangle in the result.
        planes: 3 x 3 x T: x, y in pixels and depth (larger is nearer) of the three corners.
    """
    device = planes.device
    (x0, x1, x2), (y0, y1, y2), (z0, z1, z2) = (axis.unbind(0) for axis in planes)
    (left, top), (right, bottom) = planes[:2].amin(1).ceil_().clamp_(0, size), planes[:2].amax(1).floor_()
    width = right.clamp_(-1, size - 1).sub_(left).add_(1).clamp_(min=0)
    height = bottom.clamp_(-1, size - 1).sub_(top).add_(1).clamp_(min=0)
    # Twice the signed area; counter-clockwise to the eye is negative where y points down.
    area = (x0 - x2) * (y1 - y2) - (x1 - x2) * (y0 - y2)
    boxes = (width * height * (area < -1e-9)).long()
    # Barycentric weights are affine in the pixel: their value at the box's corner, and slopes along x and y.
    inverse = 1 / area.clamp(max=-1e-9)
    first_x, first_y = (y1 - y2) * inverse, (x2 - x1) * inverse
    second_x, second_y = (y2 - y0) * inverse, (x0 - x2) * inverse
    first = first_x * (left - x2) + first_y * (top - y2)
    second = second_x * (left - x2) + second_y * (top - y2)

    # Candidates: every pixel centre in every box.
    owner = torch.repeat_interleave(boxes)
    rank = torch.arange(len(owner), device=device) - (boxes.cumsum(0) - boxes).index_select(0, owner)
    width = width.index_select(0, owner)
    down = ((rank.to(width.dtype) + 0.5) / width).floor_()
    right = rank - down * width
    first = first.index_select(0, owner).addcmul_(first_x.index_select(0, owner), right)
    first.addcmul_(first_y.index_select(0, owner), down)
    second = second.index_select(0, owner).addcmul_(second_x.index_select(0, owner), right)
    second.addcmul_(second_y.index_select(0, owner), down)
    inside = torch.minimum(torch.minimum(first, second), 1 - first - second) >= -_EDGE_TOLERANCE
    inside = inside.nonzero()[:, 0]

    owner, first, second, right, down = (
        values.index_select(0, inside) for values in (owner, first, second, right, down)
    )
    # As integers: float32 counts to 2^24, which is 4096 x 4096 pixels.
    corner = image * size**2 + top.long() * size + left.long()
    pixel = corner.index_select(0, owner) + down.long() * size + right.long()
    near = z2.index_select(0, owner)
    near = near + first * (z0 - z2).index_select(0, owner) + second * (z1 - z2).index_select(0, owner)

    # One scatter decides: the nearer fragment has the larger key, whose low bits say which fragment it is.
    lowest, highest = near.aminmax() if len(near) else (near.new_zeros(()), near.new_ones(()))
    steps = ((near - lowest) * (_DEPTH_STEPS / (highest - lowest).clamp_min(1e-9))).long() + 1
    key = torch.bitwise_left_shift(steps, _FRAGMENT_BITS) + torch.arange(len(near), device=device)
    best = torch.zeros(batch * size * size, dtype=torch.int64, device=device).scatter_reduce_(0, pixel, key, "amax")
    covered = best.nonzero()[:, 0]
    winner = best.index_select(0, covered).bitwise_and_((1 << _FRAGMENT_BITS) - 1)
    owner, first, second, near = (values.index_select(0, winner) for values in (owner, first, second, near))
    return _Visible((batch, size, size), covered, number.index_select(0, owner), first, second, near)
