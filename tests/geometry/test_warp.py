import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pifr.geometry import warp


def similarity(scale: float, degrees: float, x: float, y: float) -> torch.Tensor:
    angle = np.radians(degrees)
    c, s = scale * np.cos(angle), scale * np.sin(angle)
    return torch.tensor([[c, -s, x], [s, c, y]], dtype=torch.float64)


similarities = st.builds(similarity, st.floats(0.2, 5), st.floats(-180, 180), st.floats(-50, 50), st.floats(-50, 50))


def umeyama(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The published algorithm, by SVD, with the reflection excluded."""
    source_mean, target_mean = source.mean(0), target.mean(0)
    u, d, vt = np.linalg.svd((target - target_mean).T @ (source - source_mean) / len(source))
    sign = np.array([1.0, np.sign(np.linalg.det(u) * np.linalg.det(vt))])
    rotation = (u * sign) @ vt
    scale = (d * sign).sum() / (source - source_mean).var(0).sum()
    return np.column_stack([scale * rotation, target_mean - scale * rotation @ source_mean])


def test_identity_leaves_an_image_unchanged():
    image = torch.rand(2, 3, 9, 13)
    eye = torch.eye(3)[None, :2].expand(2, -1, -1)
    torch.testing.assert_close(warp.affine_warp(image, eye, (9, 13)), image, atol=1e-5, rtol=0)


def test_whole_pixel_shift_moves_whole_pixels():
    image = torch.rand(1, 1, 8, 8)
    shift = torch.tensor([[[1.0, 0.0, 2.0], [0.0, 1.0, 3.0]]])
    moved = warp.affine_warp(image, shift, 4)
    torch.testing.assert_close(moved, image[:, :, 3:7, 2:6], atol=1e-5, rtol=0)


def test_warp_agrees_with_opencv():
    image = torch.rand(1, 1, 64, 64)
    target_to_source = similarity(0.9, 20, 5, 8)
    ours = warp.affine_warp(image, target_to_source[None].float(), 48)[0, 0].numpy()
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    theirs = cv2.warpAffine(
        image[0, 0].numpy(), target_to_source.numpy(), (48, 48), flags=flags, borderMode=cv2.BORDER_REPLICATE
    )
    assert np.abs(ours - theirs).max() < 0.05  # OpenCV rounds coordinates to 1/32 pixel


@given(similarities, st.integers(0, 2**31 - 1))
@settings(max_examples=30, deadline=None)
def test_similarity_is_recovered_from_exact_points(truth, seed):
    source = torch.from_numpy(np.random.default_rng(seed).normal(0, 20, (1, 5, 2)))
    found = warp.similarity_transform(source, warp.transform_points(truth[None], source))
    torch.testing.assert_close(found[0], truth, atol=1e-6, rtol=1e-6)


def test_similarity_agrees_with_umeyama_on_noisy_points():
    rng = np.random.default_rng(0)
    source, target = rng.normal(0, 20, (4, 5, 2)), rng.normal(0, 20, (4, 5, 2))
    target[3] = source[3] * [-1, 1]  # a mirror image: the best similarity must still not reflect
    found = warp.similarity_transform(torch.from_numpy(source), torch.from_numpy(target))
    for k in range(4):
        np.testing.assert_allclose(found[k], umeyama(source[k], target[k]), atol=1e-9)
        assert torch.linalg.det(found[k, :, :2]) >= 0


def test_similarity_of_a_given_scale_is_the_best_of_that_scale():
    rng = np.random.default_rng(1)
    source, target = (torch.from_numpy(rng.normal(0, 20, (3, 5, 2))) for _ in range(2))
    scale = torch.tensor([0.7, 2.0, torch.nan], dtype=torch.float64)
    found = warp.similarity_transform(source, target, scale=scale)
    torch.testing.assert_close(found[:2, :, 0].norm(dim=1), scale[:2])
    torch.testing.assert_close(found[2], warp.similarity_transform(source, target)[2])

    def distance(maps):
        return (warp.transform_points(maps, source) - target).square().sum((1, 2))

    for angle, shift in ((2.0, 0.0), (-2.0, 0.0), (0.0, 0.5), (0.0, -0.5)):
        other = warp.compose_affine(similarity(1, angle, shift, shift)[None], found)
        assert (distance(other) > distance(found)).all()


def test_similarity_ignores_points_without_weight():
    source = torch.randn(1, 6, 2, dtype=torch.float64)
    truth = similarity(2, 30, 1, 2)[None]
    target = warp.transform_points(truth, source)
    target[:, 5] += 100
    weights = torch.tensor([[1.0, 2, 1, 3, 1, 0]], dtype=torch.float64)
    torch.testing.assert_close(warp.similarity_transform(source, target, weights), truth)


def test_similarity_of_coinciding_points_is_finite():
    assert warp.similarity_transform(torch.ones(1, 5, 2), torch.randn(5, 2)).isfinite().all()


@given(similarities, similarities)
@settings(max_examples=30, deadline=None)
def test_inverse_undoes_and_composition_chains(first, second):
    points = torch.randn(7, 2, dtype=torch.float64)
    there = warp.transform_points(first, points)
    torch.testing.assert_close(warp.transform_points(warp.invert_affine(first), there), points, atol=1e-8, rtol=1e-8)
    torch.testing.assert_close(
        warp.transform_points(warp.compose_affine(second, first), points), warp.transform_points(second, there)
    )


@pytest.mark.parametrize("size", [4, 7])
def test_uv_maps_hold_their_pixels_at_half_steps(size):
    maps = torch.rand(2, 3, size, size)
    uv = warp.uv_grid(size).expand(2, -1, -1, -1)
    torch.testing.assert_close(warp.sample_uv(maps, uv), maps, atol=1e-5, rtol=0)
    corner = torch.tensor([[0.5 / size, 0.5 / size]])
    torch.testing.assert_close(warp.points_at(maps, corner)[..., 0], maps[..., 0, 0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [16, 12])
def test_a_resized_uv_map_holds_the_coordinates_of_its_own_pixels(size):
    resized = warp.resized(warp.uv_grid(8)[None], size)
    # Beyond the centres of the outermost pixels the coarse map's edge is repeated.
    torch.testing.assert_close(resized[0, :, 1:-1, 1:-1], warp.uv_grid(size)[:, 1:-1, 1:-1])


def test_the_affine_map_of_points_is_found_and_outliers_without_weight_do_not_matter():
    generator = torch.Generator().manual_seed(0)
    source = torch.rand(4, 2, 50, generator=generator) * 100
    affine = torch.cat([torch.eye(2) + 0.3 * torch.rand(4, 2, 2, generator=generator), torch.full((4, 2, 1), 7.0)], 2)
    target = affine[:, :, :2] @ source + affine[:, :, 2:]
    weights = torch.ones(4, 50)
    target[:, :, 40:], weights[:, 40:] = 1000.0, 0.0
    torch.testing.assert_close(warp.affine_transform(source, target, weights), affine, atol=1e-3, rtol=1e-4)


def test_the_affine_map_of_one_point_is_a_shift_and_that_of_none_changes_nothing():
    source = torch.rand(2, 2, 9) * 100
    weights = torch.zeros(2, 9)
    identity = torch.eye(2, 3).expand(2, -1, -1)
    torch.testing.assert_close(warp.affine_transform(source, source + 5, weights), identity)
    weights[:, 4] = 1
    shifted = warp.transform_points(warp.affine_transform(source, source + 5, weights), source.transpose(1, 2))
    torch.testing.assert_close(shifted, source.transpose(1, 2) + 5)


@pytest.mark.parametrize("points", [[[10.0, 30.0], [10.0, 30.0]], [[5.0, 5.0], [0.0, 111.0]], [[7.0, 7.0], [3.0, 3.0]]])
def test_points_on_a_line_leave_a_shift(points):
    source = torch.tensor(points)[None]
    found = warp.affine_transform(source, source + torch.tensor([[3.0], [7.0]]), torch.ones(1, 2))
    moved = warp.transform_points(found, source.mT)
    torch.testing.assert_close(moved, source.mT + torch.tensor([3.0, 7.0]), atol=0.05, rtol=0)
    torch.testing.assert_close(found[..., :2], torch.eye(2)[None], atol=0.01, rtol=0)
