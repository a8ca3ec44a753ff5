"""From a PNCC to UV and back: where each template point lies in the photo, how surely, and the shape that explains it.

The chain (sections 3.2 and 3.6 of the paper, made robust): every PNCC pixel names a template point; its UV coordinate
comes from a precomputed table; what the pixels say is splatted onto the UV grid; a camera and the face model's
coefficients are fitted to it; the image map is the fitted shape's projection plus the smoothed rest of what was
observed, so that textures are gathered from the photo at its own resolution and without holes. Everything is batched.
"""

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor, nn
from torch.nn import functional

from pifr.geometry import warp
from pifr.geometry.camera import Camera, fit_camera
from pifr.geometry.compiled import compilable, compiled, over_images
from pifr.geometry.face_model import load_face_model
from pifr.geometry.lighting import surface_normals
from pifr.geometry.render import rasterize
from pifr.geometry.template import load_template

_TABLE_STEP = 4.0
"""Spacing of the table from NCC to UV in mm; read trilinearly it is 0.2 mm from the exact nearest point (median)."""

_INDEPENDENT = 100.0
"""How many independent measurements a PNCC is worth: a network's errors are correlated over large patches."""

_EXPRESSION_DEVIATION = 0.25
"""Prior standard deviation of expression coefficients, which lie in [0, 1]; identity's is 1 by construction."""

_PNCC_DEVIATION = 2.5
"""Standard error of a PNCC in mm unless it is known better: that of codes that are nearly true."""

_CAMERA = 6
"""Parameters of a camera's change, see `Camera.derivatives`."""

_FREE = 1e-6
"""Prior precision of a camera's change: next to none."""

_EVIDENCE_UNIT = 5.0
"""Millimetres that one unit of evidence stands for; beyond six units it is an outlier."""

_OUTLIER = 4.0
"""Residuals in mm at which a measurement's weight is halved (Cauchy)."""

_SAME_POINT = 8.0
"""Distance in mm between the point that a pixel names and the one that should be there, at which evidence is 1 / e."""

_INSIDE_FROM, _INSIDE_FULL = 0.2, 0.6
"""Probability of the mask from which on a pixel is evidence of the face, and from which on it is full evidence."""

_LEAST_INSIDE = 1e-3
"""Divides codes where the mask is next to nothing."""

_SMOOTHING = 2.0
"""Standard deviation, in UV pixels of `Correspondence.size`, of the Gaussian that smooths what a fit leaves over."""

_WILD = 20.0
"""Distance in mm from the mean face's projection at which a PNCC pixel counts half: more than faces differ by."""


@dataclass(frozen=True, slots=True)
class Observation:
    """What a PNCC says about each pixel of a UV map.

    Attributes:
        places: B x 2 x n x n, where the UV pixel is seen, (x, y) in pixels of the PNCC; only meaningful where `weight`
            is not small.
        weight: B x 1 x n x n, number of PNCC pixels that say so, weighted by mask and plausibility.
    """

    places: Tensor
    weight: Tensor


@dataclass(frozen=True, slots=True)
class ShapeFit:
    """Camera and face model coefficients that explain an observation.

    Attributes:
        coefficients: B x K, identity modes (about N(0, 1)), then expressions (about [0, 1]).
        camera: B cameras into the pixels of the PNCC.
        residual: B mm, weighted median distance between observed and modelled places, in the image plane.
        valid: B bool; False where the mask is (nearly) empty: such rows hold the mean shape and a stand-in camera.
    """

    coefficients: Tensor
    camera: Camera
    residual: Tensor
    valid: Tensor


@dataclass(frozen=True, slots=True)
class Unwrapped:
    """A photo carried to UV.

    Attributes:
        texture: B x 3 x N x N, colours at every UV pixel, also where they are not of the face (see `visibility`); black
            where the photo holds NaN.
        visibility: B x 1 x N x N float in [0, 1], weight of evidence.
        image_map: B x 2 x N x N, where each UV pixel lies, (x, y) in pixels of the PNCC.
        positions: B x 3 x n x n mm, the fitted shape (identity and expression).
        fit: camera, coefficients, residual, validity.
    """

    texture: Tensor
    visibility: Tensor
    image_map: Tensor
    positions: Tensor
    fit: ShapeFit


class Correspondence(nn.Module):
    """Correspondence between photos and the template, given their PNCC and mask.

    Holds the table from NCC to UV and the face model's modes on UV grids as buffers; `.to(device)` moves them.

    Attributes:
        template: the shipped one, as is the face model.
        identities: leading identity modes that are fitted.
        size: side of the UV grid of geometry and observations.
        fit_size: side of the coarser UV grid on which coefficients are fitted; divides `size`.
    """

    identities, size, fit_size = 40, 64, 16

    def __init__(self) -> None:
        super().__init__()
        model = load_face_model()
        self.template = model.template
        mean = self.template.position_map(self.size)
        modes = torch.cat([model.identity_maps(self.identities, self.size), model.expression_maps(self.size)])
        deviation = modes.new_ones(len(modes))
        deviation[self.identities :] = _EXPRESSION_DEVIATION
        lower, upper = (torch.from_numpy(bound) for bound in self.template.ncc_bounds)
        for name, buffer in {
            "table": ncc_to_uv_table(),
            "mean": mean[None],
            "modes": modes.flatten(1),
            "fit_mean": _shrink(mean[None], self.fit_size).flatten(2),
            "fit_modes": _shrink(modes, self.fit_size).permute(1, 0, 2, 3).flatten(1),
            "precision": deviation.pow(-2),
            "ncc_lower": lower[:, None, None],
            "ncc_extent": (upper - lower)[:, None, None],
        }.items():
            self.register_buffer(name, buffer, persistent=False)

    def uv_of(self, pncc: Tensor) -> Tensor:
        """UV coordinates of the template points nearest to NCC coordinates: B x 3 x H x W to B x 2 x H x W."""
        grid = (2 * pncc - 1).permute(0, 2, 3, 1)[:, None]
        table = self.table.expand(len(pncc), -1, -1, -1, -1)
        return functional.grid_sample(table, grid, mode="bilinear", padding_mode="border", align_corners=True)[:, :, 0]

    def splat_to_uv(self, pncc: Tensor, mask: Tensor) -> Observation:
        """Carries each PNCC pixel's place in the image to the UV pixels around its UV coordinate.

        What is splatted is the difference to the mean face's projection at the very same UV coordinate, under a first
        camera: it varies slowly, so the splat neither shifts nor blurs where pixels are sparse.

        Args:
            pncc: B x 3 x H x W in [0, 1].
            mask: B x 1 x H x W in [0, 1], how surely a pixel shows the face. Pixels with NaN in either show none.
        """
        pncc, mask = without_nan(pncc, mask)
        batch, _, height, width = pncc.shape
        places = warp.pixel_grid(height, width, device=pncc.device).expand(batch, -1, -1, -1)
        weight = mask.clamp(0, 1)
        stride = max(1, math.isqrt(height * width // 1024))
        thin = (slice(None), slice(None), slice(None, None, stride), slice(None, None, stride))
        means = warp.sample_uv(self.mean, self.uv_of(pncc[thin]))
        camera = fit_camera(means.flatten(2), places[thin].flatten(2), weight[thin].flatten(1)).camera

        if compilable(pncc, mask, self.table):
            summed = pncc.new_empty(batch, 3, self.size, self.size)
            maps = (pncc, weight, self.table.movedim(1, -1)[0], self.mean.movedim(1, -1)[0])
            frame = (camera.linear, camera.translation, camera.scale * _WILD)
            over_images(_splat_images, batch, *maps, *frame, summed)
        else:
            uv = self.uv_of(pncc)
            difference = places - camera.project(warp.sample_uv(self.mean, uv))
            distance = difference.square().sum(1, keepdim=True) / (camera.scale[:, None, None, None] * _WILD).square()
            weight = weight / (1 + distance)
            summed = _splat(torch.cat([difference * weight, weight], 1).flatten(2), uv.flatten(2), self.size)
        total = summed[:, 2:]
        places = camera.project(self.mean.expand(batch, -1, -1, -1)) + summed[:, :2] / total.clamp_min(1e-6)
        return Observation(places, total)

    def fit_shape(self, observed: Observation, deviation: float = _PNCC_DEVIATION, iterations: int = 2) -> ShapeFit:
        """Fits camera, identity and expression to an observation.

        Each iteration fits the camera to the current shape, then solves the coefficients together with the camera's
        change (which is then dropped, for the next camera fit is exact), a ridge regression whose prior is the face
        model's; residuals are re-weighted in between.

        Args:
            observed: from `splat_to_uv`.
            deviation: standard error of the PNCC in mm; larger trusts the mean face more.
            iterations: of the alternation.
        """
        modes = len(self.precision)
        places, weight = self._thinned(observed)
        prior = self._prior.diag()

        coefficients = self.precision.new_zeros(len(places), modes)
        shape, robust = self.fit_mean.expand(len(places), -1, -1), torch.ones_like(weight)
        for iteration in range(iterations):
            camera = fit_camera(shape, places, weight * robust, robust_steps=0 if iteration else 2).camera
            matrix, vector = self._normal_equations(camera, shape, places, weight * robust, deviation)
            factor, trouble = torch.linalg.cholesky_ex(matrix + prior)
            solution = torch.cholesky_solve(vector[..., None], factor)[..., 0]
            # A PNCC of one value, say, leaves a system that float32 cannot solve.
            coefficients = torch.where(trouble[:, None] == 0, solution[:, :modes], 0.0)
            shape = self._thin_shape(coefficients)
            robust = _robust(camera, shape, places)
        final = fit_camera(shape, places, weight * robust, robust_steps=0)
        coefficients = torch.where(final.valid[:, None], coefficients, 0.0)
        return ShapeFit(coefficients, final.camera, final.residual / final.camera.scale, final.valid)

    def identity_evidence(
        self, observed: Observation, fit: ShapeFit, deviation: float = _PNCC_DEVIATION
    ) -> tuple[Tensor, Tensor]:
        """What each photo says of a person's identity, whatever its camera and expression are.

        The normal equations of `fit_shape` at its solution, with camera and expression eliminated: evidence of several
        photos of one person adds up, and `identity_from` weighs the sum against one prior.

        Args:
            observed: from `splat_to_uv`.
            fit: from `fit_shape`.
            deviation: as in `fit_shape`.

        Returns:
            B x I x I and B x I float64, matrix and right-hand side of the I identity modes; 0 in rows that are not
            valid.
        """
        places, weight = self._thinned(observed)
        shape = self._thin_shape(fit.coefficients)
        weight = weight * _robust(fit.camera, shape, places)
        equations = self._normal_equations(fit.camera, shape, places, weight, deviation)
        matrix, vector = (part.double() for part in equations)
        known = self.identities
        others = matrix[:, known:, known:] + self._prior[known:].double().diag()
        coupling = matrix[:, :known, known:]
        solved = torch.linalg.solve(others, torch.cat([coupling.mT, vector[:, known:, None]], 2))
        matrix = matrix[:, :known, :known] - coupling @ solved[..., :known]
        vector = vector[:, :known] - (coupling @ solved[..., known:])[..., 0]
        return torch.where(fit.valid[:, None, None], matrix, 0.0), torch.where(fit.valid[:, None], vector, 0.0)

    def identity_from(self, matrix: Tensor, vector: Tensor) -> Tensor:
        """The likeliest coefficients 1 x K (no expression) of a person, given the summed evidence of all photos.

        Args:
            matrix, vector: I x I and I, sums of what `identity_evidence` returns.
        """
        prior = self._prior[: self.identities].to(matrix).diag()
        coefficients = torch.zeros_like(self.precision)
        coefficients[: self.identities] = torch.linalg.solve(matrix + prior, vector).to(coefficients)
        return coefficients[None]

    @property
    def _prior(self) -> Tensor:
        """Precisions K + 6 of what `_normal_equations` solves for."""
        return torch.cat([self.precision, self.precision.new_full((_CAMERA,), _FREE)])

    def _thinned(self, observed: Observation) -> tuple[Tensor, Tensor]:
        """An observation on the grid of the fit: places B x 2 x n pixels, weights B x n up to 1."""
        weight = _shrink(observed.weight, self.fit_size)
        places = _shrink(observed.places * observed.weight, self.fit_size) / weight.clamp_min(1e-6)
        weight = weight.flatten(1)
        return places.flatten(2), weight / weight.amax(1, keepdim=True).clamp_min(1e-6)

    def _thin_shape(self, coefficients: Tensor) -> Tensor:
        """B x 3 x n mm of coefficients B x K on the grid of the fit."""
        modes = self.fit_modes.view(3, len(self.precision), -1)
        return self.fit_mean + torch.einsum("bk,dkn->bdn", coefficients, modes)

    def _normal_equations(
        self, camera: Camera, shape: Tensor, places: Tensor, weight: Tensor, deviation: float
    ) -> tuple[Tensor, Tensor]:
        """Of coefficients and the camera's change: B x (K + 6) x (K + 6) and B x (K + 6), without any prior."""
        modes = (camera.linear @ self.fit_modes).view(len(places), 2, len(self.precision), -1).transpose(1, 2)
        columns = torch.cat([modes, camera.derivatives(shape)], 1)
        share = weight * (_INDEPENDENT / weight.sum(1, keepdim=True).clamp_min(1e-6))
        share = (share / (camera.scale[:, None] * deviation).square())[:, None, None]
        weighted, columns = (columns * share).flatten(2), columns.flatten(2)
        target = (places - camera.project(self.fit_mean)).flatten(1)
        return weighted @ columns.mT, (weighted @ target[..., None])[..., 0]

    def positions(self, coefficients: Tensor) -> Tensor:
        """Position maps B x 3 x n x n mm, n = `size`, of coefficients B x K (identity modes, then expressions)."""
        return self.mean + (coefficients @ self.modes).view(-1, *self.mean.shape[1:])

    def image_map(self, fit: ShapeFit, positions: Tensor, observed: Observation) -> Tensor:
        """Where each UV pixel lies in the image: the fitted shape's projection plus what the fit left over, smoothed.

        Args:
            fit, positions: the fitted shape.
            observed: what it was fitted to.

        Returns:
            B x 2 x n x n, (x, y) in pixels of the PNCC; beyond what was observed it falls back to the projection.
        """
        model = fit.camera.project(positions)
        rest = observed.places - model
        distance = rest.square().sum(1, keepdim=True) / (fit.camera.scale[:, None, None, None] * _OUTLIER).square()
        # One pixel that says so is two thirds of full confidence; where hardly any does, the projection stands.
        confidence = observed.weight / (observed.weight + 0.5) / (1 + distance)
        rest, total = _blur(rest * confidence, _SMOOTHING), _blur(confidence, _SMOOTHING)
        return model + rest / (total + 0.1)

    def visibility(self, fit: ShapeFit, positions: Tensor, image_map: Tensor, pncc: Tensor, mask: Tensor) -> Tensor:
        """Weight of evidence of each UV pixel: how much of what its place in the image shows is that point of the face.

        The product of: not hidden behind the face (z-buffer), turned towards the camera (a smooth ramp), inside the
        mask, and the PNCC there names the same point; then the smallest over the neighbours, for safety at edges.

        Args:
            fit, positions: the fitted shape.
            image_map: B x 2 x N x N, the image map (any N).
            pncc, mask: as in `splat_to_uv`.

        Returns:
            B x 1 x N x N in [0, 1]; 0 everywhere for rows that are not valid.
        """
        pncc, mask = without_nan(pncc, mask)
        batch, _, height, width = mask.shape
        size = image_map.shape[-1]
        # Half of the PNCC's resolution is enough for a test with millimetres of slack, and four times as fast.
        half = mask.new_tensor([[0.5, 0.0, -0.25], [0.0, 0.5, -0.25]]).expand(batch, -1, -1)
        raster = rasterize(positions, fit.camera.mapped(half), max(height, width) // 2)
        depth = fit.camera.depth(positions)
        facing = (surface_normals(positions) * fit.camera.rotation[:, 2, :, None, None]).sum(1, keepdim=True)
        model = fit.camera.mapped(half).project(positions)
        front = warp.sample(raster.depth.clamp_min(-1e4), model)
        # Three millimetres, for the fit errs; a slope makes the depth change within one pixel of the raster, too.
        slack = 3.0 + 2.0 / fit.camera.scale[:, None, None, None] / facing.clamp(0.1, 1)
        open_ = (1.5 - (front - depth) / slack).clamp(0, 1)
        evidence = open_ * ((facing - 0.05) / 0.35).clamp(0, 1)  # none at 87 degrees to the surface, all at 66
        evidence = _resample(evidence, size, "bilinear")

        own = _resample(self.mean, size, "bicubic")
        if compilable(evidence, pncc, mask, image_map):
            evidence = evidence.contiguous()
            bounds = self.ncc_lower.flatten(), self.ncc_extent.flatten()
            over_images(_agree_images, batch, pncc, mask, image_map, own, *bounds, evidence)
        else:
            seen = warp.sample(torch.cat([pncc * mask, mask], 1), image_map, padding="zeros")
            inside = seen[:, 3:]
            named = self.ncc_lower + self.ncc_extent * seen[:, :3] / inside.clamp_min(_LEAST_INSIDE)
            agreement = torch.exp(-(named - own).square().sum(1, keepdim=True) / _SAME_POINT**2)
            evidence = evidence * ((inside - _INSIDE_FROM) / (_INSIDE_FULL - _INSIDE_FROM)).clamp(0, 1) * agreement
        return warp.eroded(evidence, max(1, size // 128)) * fit.valid[:, None, None, None]

    def evidence(
        self, camera: Camera, image_map: Tensor, positions: Tensor, visibility: Tensor, texture: Tensor
    ) -> Tensor:
        """All that is known of a face's shape, as UV maps.

        Args:
            camera: B cameras into an image.
            image_map: B x 2 x N x N, where each UV pixel lies in that image.
            positions: B x 3 x n x n mm, the fitted shape.
            visibility: B x 1 x N x N in [0, 1].
            texture: B x 3 x N x N in [0, 1].

        Returns:
            B x 13 x N x N: how far the image moves the mean face and how the fit does (3 each, in
            units of 5 mm of the model frame), the direction to the camera in the model frame (3), visibility (1), and
            what is seen (3, in [-1, 1], 0 where nothing is).
        """
        size = image_map.shape[-1]
        mean, moved = (_resample(maps, size, "bilinear") for maps in (self.mean, positions - self.mean))
        seen = camera.lift(image_map - camera.project(mean.expand(len(image_map), -1, -1, -1)))
        shifts = (torch.cat([seen * visibility, moved], 1) / _EVIDENCE_UNIT).clamp(-6, 6)
        towards = camera.rotation[:, 2, :, None, None].expand(-1, -1, size, size)
        return torch.cat([shifts, towards, visibility, (2 * texture - 1) * visibility], 1)

    def unwrap(
        self,
        images: Tensor,
        pncc: Tensor,
        mask: Tensor,
        size: int = 128,
        pncc_to_image: Tensor | None = None,
        deviation: float = _PNCC_DEVIATION,
    ) -> Unwrapped:
        """Carries photos to UV.

        Args:
            images: B x 3 x h x w float.
            pncc, mask: as in `splat_to_uv`.
            size: side of the texture.
            pncc_to_image: B x 2 x 3, pixels of the PNCC to pixels of `images`; None if they are the same. Images much
                finer than the texture should be blurred first: sampling is bilinear.
            deviation: as in `fit_shape`.
        """
        observed = self.splat_to_uv(pncc, mask)
        fit = self.fit_shape(observed, deviation)
        positions = self.positions(fit.coefficients)
        image_map = self.image_map(fit, positions, observed)
        image_map = _resample(image_map, size, "bicubic")
        visibility = self.visibility(fit, positions, image_map, pncc, mask)
        places = image_map if pncc_to_image is None else warp.transform_maps(pncc_to_image, image_map)
        texture = warp.sample(images, places).nan_to_num(0.0)
        return Unwrapped(texture, visibility, image_map, positions, fit)


def without_nan(pncc: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """A PNCC and its mask (B x C x H x W each), both 0 where either is not finite: networks make NaN of NaN."""
    if torch.isfinite(pncc.sum() + mask.sum()):  # nearly always, and much cheaper to find out than to repair
        return pncc, mask
    known = mask.isfinite() & pncc.isfinite().all(1, keepdim=True)
    return pncc.where(known, 0.0), mask.where(known, 0.0)


def _robust(camera: Camera, shape: Tensor, places: Tensor) -> Tensor:
    """Weights B x n in (0, 1] of measurements by their residuals (Cauchy)."""
    distance = torch.hypot(*(camera.project(shape) - places).unbind(1)) / camera.scale[:, None]
    return 1 / (1 + (distance / _OUTLIER).square())


@cache
def ncc_to_uv_table() -> Tensor:
    """UV coordinates of the template point that is nearest, on a regular grid over its NCC cube; not to be changed.

    Returns:
        1 x 2 x depth x height x width float32 (NCC z, y, x), to be read with `align_corners=True`. Near the surface the
        nearest point varies smoothly, so trilinear reading is far more exact than the spacing.
    """
    template, fine = load_template(), 256
    lower, upper = template.ncc_bounds
    counts = np.ceil((upper - lower) / _TABLE_STEP).astype(int) + 1
    axes = [np.linspace(low, high, count) for low, high, count in zip(lower, upper, counts, strict=True)]
    z, y, x = np.meshgrid(*axes[::-1], indexing="ij")
    surface = template.position_map(fine).flatten(1).t().double().numpy()
    tree = cKDTree(surface, balanced_tree=False, compact_nodes=False)  # five times faster for far queries
    _, nearest = tree.query(np.stack([x, y, z], -1).reshape(-1, 3))
    uv = warp.uv_grid(fine, device="cpu").flatten(1)[:, torch.from_numpy(nearest)]
    return uv.view(1, 2, *z.shape)


def _splat(values: Tensor, uv: Tensor, size: int) -> Tensor:
    """Adds values (B x C x P) to the four UV pixels around uv (B x 2 x P), bilinearly: B x C x size x size."""
    batch, channels, _ = values.shape
    place = (uv * size - 0.5).clamp(0, size - 1)
    corner = place.floor().clamp_max(size - 2)
    right, down = (place - corner).split(1, 1)
    first = (corner[:, 1:] * size + corner[:, :1]).long()
    canvas = values.new_zeros(batch, channels, size * size)
    for offset, share in (
        (0, (1 - right) * (1 - down)),
        (1, right * (1 - down)),
        (size, (1 - right) * down),
        (size + 1, right * down),
    ):
        canvas.scatter_add_(2, (first + offset).expand(-1, channels, -1), values * share)
    return canvas.view(batch, channels, size, size)


@compiled(nogil=True, fastmath={"arcp", "contract", "nsz"})
def _splat_images(first, last, pncc, weights, table, mean, linear, translation, wild, summed):
    """The compiled loop of `Correspondence.splat_to_uv`: look-up, difference, weight and splat, pixel by pixel.

    Args:
        pncc, weights: B x 3 x H x W and B x 1 x H x W.
        table, mean: depth x height x width x 2, n x n x 3.
        linear, translation, wild: cameras, and the distances in pixels at which a weight is halved.
        summed: B x 3 x n x n, the result: weighted differences, weights.
    """
    zero, half, one = np.float32(0), np.float32(0.5), np.float32(1)
    edge_z, edge_y, edge_x = table.shape[0] - 1, table.shape[1] - 1, table.shape[2] - 1
    size = len(mean)
    side, edge = np.float32(size), np.float32(size - 1)
    canvas = np.empty((size, size, 3), np.float32)
    for b in range(first, last):
        canvas[:] = 0
        narrow = one / wild[b] ** 2
        for j in range(pncc.shape[2]):
            for i in range(pncc.shape[3]):
                weight = weights[b, 0, j, i]
                if weight == 0:
                    continue
                # Bounds come first: `max(zero, nan)` is zero, but `max(nan, zero)` is NaN, and no index.
                x = min(one, max(zero, pncc[b, 0, j, i])) * np.float32(edge_x)
                y = min(one, max(zero, pncc[b, 1, j, i])) * np.float32(edge_y)
                z = min(one, max(zero, pncc[b, 2, j, i])) * np.float32(edge_z)
                x0, y0, z0 = min(np.int64(x), edge_x - 1), min(np.int64(y), edge_y - 1), min(np.int64(z), edge_z - 1)
                x, y, z = x - np.float32(x0), y - np.float32(y0), z - np.float32(z0)
                u, v = zero, zero
                for step_z, part_z in ((0, one - z), (1, z)):
                    for step_y, part in ((0, part_z * (one - y)), (1, part_z * y)):
                        line = table[z0 + step_z, y0 + step_y]
                        u += part * (line[x0, 0] + x * (line[x0 + 1, 0] - line[x0, 0]))
                        v += part * (line[x0, 1] + x * (line[x0 + 1, 1] - line[x0, 1]))
                u, v = min(edge, max(zero, u * side - half)), min(edge, max(zero, v * side - half))
                left, top = min(np.int64(u), size - 2), min(np.int64(v), size - 2)
                right, down = u - np.float32(left), v - np.float32(top)
                # Bilinear weights of the four UV pixels around the place, for reading and for writing.
                d = right * down
                b_, c = right - d, down - d
                a = one - right - c
                upper, lower = mean[top], mean[top + 1]
                beside = left + 1
                x = a * upper[left, 0] + b_ * upper[beside, 0] + c * lower[left, 0] + d * lower[beside, 0]
                y = a * upper[left, 1] + b_ * upper[beside, 1] + c * lower[left, 1] + d * lower[beside, 1]
                z = a * upper[left, 2] + b_ * upper[beside, 2] + c * lower[left, 2] + d * lower[beside, 2]
                off_x = np.float32(i) - translation[b, 0]
                off_x -= linear[b, 0, 0] * x + linear[b, 0, 1] * y + linear[b, 0, 2] * z
                off_y = np.float32(j) - translation[b, 1]
                off_y -= linear[b, 1, 0] * x + linear[b, 1, 1] * y + linear[b, 1, 2] * z
                weight /= one + (off_x * off_x + off_y * off_y) * narrow
                off_x, off_y = off_x * weight, off_y * weight
                for row, column, part in ((top, left, a), (top, beside, b_), (top + 1, left, c), (top + 1, beside, d)):
                    canvas[row, column, 0] += part * off_x
                    canvas[row, column, 1] += part * off_y
                    canvas[row, column, 2] += part * weight
        for channel in range(3):
            summed[b, channel] = canvas[:, :, channel]


@compiled(nogil=True, fastmath={"arcp", "contract", "nsz"})
def _agree_images(first, last, pncc, mask, image_map, own, lower, extent, evidence):
    """The compiled loop of `Correspondence.visibility`: multiplies evidence (B x 1 x N x N), in place.

    Args:
        pncc, mask, image_map: B x 3 x H x W, B x 1 x H x W, B x 2 x N x N.
        own: 1 x 3 x N x N mm, the template.
        lower, extent: 3 mm, what NCC coordinates mean.
    """
    height, width = mask.shape[2:]
    zero, one, narrow = np.float32(0), np.float32(1), np.float32(1 / _SAME_POINT**2)
    least, low, ramp = (
        np.float32(_LEAST_INSIDE),
        np.float32(_INSIDE_FROM),
        np.float32(1 / (_INSIDE_FULL - _INSIDE_FROM)),
    )
    for b in range(first, last):
        for j in range(image_map.shape[2]):
            for i in range(image_map.shape[3]):
                known = evidence[b, 0, j, i]
                if known <= 0:
                    continue
                x, y = image_map[b, 0, j, i], image_map[b, 1, j, i]
                inside, ncc_x, ncc_y, ncc_z = zero, zero, zero, zero
                if -1 < x < width and -1 < y < height:
                    left, top = np.int64(math.floor(x)), np.int64(math.floor(y))
                    right, down = x - np.float32(left), y - np.float32(top)
                    for row, part_y in ((top, one - down), (top + 1, down)):
                        if row < 0 or row >= height:
                            continue
                        for column, part_x in ((left, one - right), (left + 1, right)):
                            if column < 0 or column >= width:
                                continue
                            part = part_x * part_y * mask[b, 0, row, column]
                            inside += part
                            ncc_x += part * pncc[b, 0, row, column]
                            ncc_y += part * pncc[b, 1, row, column]
                            ncc_z += part * pncc[b, 2, row, column]
                if inside <= low:
                    evidence[b, 0, j, i] = zero
                    continue
                scale = one / max(inside, least)
                x = lower[0] + extent[0] * ncc_x * scale - own[0, 0, j, i]
                y = lower[1] + extent[1] * ncc_y * scale - own[0, 1, j, i]
                z = lower[2] + extent[2] * ncc_z * scale - own[0, 2, j, i]
                known *= min((inside - low) * ramp, one)
                evidence[b, 0, j, i] = known * math.exp(-(x * x + y * y + z * z) * narrow)


def _shrink(maps: Tensor, size: int) -> Tensor:
    return functional.avg_pool2d(maps, maps.shape[-1] // size)


def _resample(maps: Tensor, size: int, mode: str) -> Tensor:
    """`interpolate` of B x C x n x n maps to size x size, as two products with a matrix: much faster on a CPU."""
    unit = torch.eye(maps.shape[-1], dtype=maps.dtype, device=maps.device)[None, None]
    along = functional.interpolate(unit, size=(size, len(unit[0, 0])), mode=mode, align_corners=False)[0, 0]
    return along @ maps @ along.t()


def _blur(maps: Tensor, deviation: float) -> Tensor:
    """Gaussian blur of B x C x N x N maps; nothing beyond their edges counts."""
    reach = math.ceil(2.5 * deviation)
    place = torch.arange(maps.shape[-1], dtype=maps.dtype, device=maps.device)
    offset = (place - place[:, None]).abs()
    kernel = torch.exp(-0.5 * (offset / deviation).square()).where(offset <= reach, 0.0)
    along = kernel / sum(math.exp(-0.5 * (step / deviation) ** 2) for step in range(-reach, reach + 1))
    return along @ maps @ along.t()
