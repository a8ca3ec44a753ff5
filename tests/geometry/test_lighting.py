import math

import pytest
import torch

from pifr.geometry.lighting import fit_albedo, fit_light, harmonics, shading, surface_normals


def sphere_points(count: int = 20_000) -> torch.Tensor:
    """1 x 3 x count points spread evenly on the unit sphere (Fibonacci)."""
    k = torch.arange(count, dtype=torch.float64) + 0.5
    z, angle = 1 - 2 * k / count, math.pi * (1 + math.sqrt(5)) * k
    ring = (1 - z * z).sqrt()
    return torch.stack([ring * angle.cos(), ring * angle.sin(), z])[None]


def front_of_a_sphere(size: int = 48) -> torch.Tensor:
    """1 x 3 x size x size unit normals of the front of a sphere; also its position map for radius 1."""
    axis = (torch.arange(size) + 0.5) / size * 1.3 - 0.65
    y, x = torch.meshgrid(-axis, axis, indexing="ij")
    return torch.stack([x, y, (1 - x * x - y * y).sqrt()])[None]


def test_normals_of_a_sphere_are_its_points():
    positions = front_of_a_sphere(96)
    inner = (slice(None), slice(None), slice(1, -1), slice(1, -1))
    torch.testing.assert_close(surface_normals(90 * positions)[inner], positions[inner], atol=2e-3, rtol=0)


def test_harmonics_are_orthonormal_on_the_sphere():
    basis = harmonics(sphere_points())[0]
    gram = basis @ basis.t() * (4 * math.pi / basis.shape[1])
    torch.testing.assert_close(gram, torch.eye(9, dtype=gram.dtype), atol=1e-3, rtol=0)


def test_shading_sums_the_light_of_each_channel_times_its_harmonics():
    ahead, light = torch.tensor([0.0, 0.0, 1.0]).view(1, 3, 1, 1), torch.zeros(1, 2, 9)
    light[0, 0, 0], light[0, 0, 2], light[0, 1, 6] = 1.0, 2.0, 4.0
    # Eq. (10): sqrt(1 / 4 pi) + 2 sqrt(3 / 4 pi) z, and 4 sqrt(5 / 16 pi) (3 z^2 - 1).
    expected = torch.tensor([0.282095 + 2 * 0.488603, 4 * 0.315392 * 2]).view(1, 2, 1, 1)
    torch.testing.assert_close(shading(ahead, light), expected, atol=1e-5, rtol=0)


def test_light_is_recovered_from_a_shaded_surface():
    normals = front_of_a_sphere()
    light = torch.tensor([[[2.0, 0.5, 0.8, -0.3, 0.1, -0.1, 0.1, 0.05, 0.1]]]).expand(1, 3, -1)
    shade = shading(normals, light)
    found = fit_light(shade * 0.6, normals, torch.ones(1, 1, 48, 48), torch.full((1, 3, 48, 48), 0.6))
    again = shading(normals, found)
    assert (again - shade).abs().max() < 0.05 * shade.max()


def test_pixels_without_weight_do_not_light():
    normals, light = front_of_a_sphere(), torch.zeros(1, 3, 9)
    light[:, :, 0], light[:, :, 3] = 2.0, 0.6
    texture, weights = shading(normals, light), torch.ones(1, 1, 48, 48)
    texture[..., :12], weights[..., :12] = 9.0, 0.0
    found = fit_light(texture, normals, weights, torch.ones(1, 3, 48, 48))
    torch.testing.assert_close(shading(normals, found), shading(normals, light), atol=0.03, rtol=0)


def test_albedo_times_shading_is_the_texture_where_it_was_seen():
    texture, shade = torch.rand(2, 3, 16, 16) + 0.1, torch.rand(2, 3, 16, 16) + 0.2
    weights = torch.ones(2, 1, 16, 16)
    weights[:, :, :, 8:] = 0
    albedo = fit_albedo(texture, shade, weights)
    torch.testing.assert_close((albedo * shade)[..., :8], texture[..., :8])
    unseen = albedo[..., 8:].flatten(2)
    assert unseen.std(2).max() < 1e-5
    assert unseen[0, 0, 0].item() == pytest.approx(albedo[0, 0, :, :8].mean().item(), rel=1e-4)
