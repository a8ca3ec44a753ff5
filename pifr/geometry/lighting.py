"""Surface normals, and light by second-order spherical harmonics (Eq. 10 of the paper).

Basis: real spherical harmonics of degree 0 to 2 in the order 1, y, z, x, xy, yz, 3z^2 - 1, xz, x^2 - y^2, with the
orthonormal constants (Ramamoorthi & Hanrahan, "An efficient representation for irradiance environment maps", 2001).
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

_CONSTANTS = (
    0.5 * math.sqrt(1 / math.pi),
    *(0.5 * math.sqrt(3 / math.pi),) * 3,
    *(0.5 * math.sqrt(15 / math.pi),) * 2,
    0.25 * math.sqrt(5 / math.pi),
    0.5 * math.sqrt(15 / math.pi),
    0.25 * math.sqrt(15 / math.pi),
)


def surface_normals(positions: Tensor) -> Tensor:
    """Outward unit normals of position maps, by central differences.

    Args:
        positions: B x 3 x N x N mm, u to the face's image-right, v down.

    Returns:
        B x 3 x N x N in the same frame (z towards the camera for what faces it), differentiable.
    """
    padded = functional.pad(positions, (1, 1, 1, 1), mode="replicate")
    along_u = padded[:, :, 1:-1, 2:] - padded[:, :, 1:-1, :-2]
    along_v = padded[:, :, 2:, 1:-1] - padded[:, :, :-2, 1:-1]
    # Much faster on a CPU than a cross product and a norm over the strided axis.
    (a, b, c), (x, y, z) = along_v.unbind(1), along_u.unbind(1)
    normals = torch.stack([b * z - c * y, c * x - a * z, a * y - b * x], 1)
    return normals / normals.square().sum(1, keepdim=True).clamp_min(1e-20).sqrt()


def harmonics(normals: Tensor) -> Tensor:
    """Spherical harmonics of unit normals: B x 3 x ... to B x 9 x ...."""
    x, y, z = normals.unbind(1)
    terms = (torch.ones_like(x), y, z, x, x * y, y * z, 3 * z * z - 1, x * z, x * x - y * y)
    return torch.stack([constant * term for constant, term in zip(_CONSTANTS, terms, strict=True)], 1)


def shading(normals: Tensor, light: Tensor) -> Tensor:
    """Irradiance, sum_i l_i H_i(N) of Eq. (10): normals B x 3 x ... and light B x C x 9 to B x C x ....

    It may be negative for unphysical light. Times the albedo it is what a Lambertian surface reflects.
    """
    basis = harmonics(normals)
    return (light @ basis.flatten(2)).view(len(basis), light.shape[1], *basis.shape[2:])


def fit_light(texture: Tensor, normals: Tensor, weights: Tensor, albedo: Tensor | None = None) -> Tensor:
    """Least squares light that shades a texture, per colour channel.

    Args:
        texture: B x C x N x N.
        normals: B x 3 x N x N, unit.
        weights: B x 1 x N x N, not negative; 0 leaves a pixel out.
        albedo: B x C x N x N reflectance; None takes each channel's weighted mean (a face of one colour), so that the
            light holds all the shading.

    Returns:
        B x C x 9. The higher orders are damped slightly, so that a few visible pixels cannot make wild light.
    """
    if albedo is None:
        total = weights.sum((2, 3), keepdim=True).clamp_min(1e-6)
        albedo = ((texture * weights).sum((2, 3), keepdim=True) / total).expand_as(texture)
    basis = harmonics(normals).flatten(2)[:, None]
    columns = albedo.flatten(2)[:, :, None] * basis  # B x C x 9 x P
    weighted = columns * weights.flatten(2)[:, :, None]
    system = weighted @ columns.transpose(2, 3)
    right = weighted @ texture.flatten(2)[..., None]
    strength = system.diagonal(dim1=2, dim2=3).mean(2)[..., None]
    damping = strength * torch.tensor([1e-4] + [1e-3] * 3 + [1e-2] * 5, dtype=strength.dtype, device=strength.device)
    return torch.linalg.solve(system + torch.diag_embed(damping + 1e-8), right)[..., 0]


def fit_albedo(texture: Tensor, shade: Tensor, weights: Tensor, floor: float = 0.1) -> Tensor:
    """Reflectance that, under the shading, gives the texture; where the weight is low, the mean reflectance.

    Args:
        texture: B x C x N x N.
        shade: B x C x N x N, from `shading`.
        weights: B x 1 x N x N in [0, 1].
        floor: shading below it is taken as it, lest deep shadow divide by nothing.

    Returns:
        B x C x N x N.
    """
    albedo = texture / shade.clamp_min(floor)
    total = weights.sum((2, 3), keepdim=True).clamp_min(1e-6)
    mean = (albedo * weights).sum((2, 3), keepdim=True) / total
    return weights * albedo + (1 - weights) * mean
