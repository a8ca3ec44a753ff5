"""Similarities between point sets, recovered from points moved by a known one."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from pifr.geometry.similarity import brought_onto, fit_similarity

POINTS = np.array(
    [[-45, 35, -20], [-15, 33, -8], [15, 33, -8], [45, 35, -20], [0, -12, 12], [-25, -35, -8], [25, -35, -8]], float
)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 999), scale=st.floats(0.1, 10))
def test_a_similarity_is_recovered_exactly(seed: int, scale: float) -> None:
    rotation = Rotation.random(rng=np.random.default_rng(seed)).as_matrix()
    shift = np.random.default_rng(seed).normal(size=3) * 50
    found = fit_similarity(POINTS, scale * POINTS @ rotation.T + shift)
    assert found.scale == pytest.approx(scale)
    np.testing.assert_allclose(found.rotation, rotation, atol=1e-9)
    np.testing.assert_allclose(found.translation, shift, atol=1e-6)


def test_a_mirrored_prediction_is_never_mirrored_back() -> None:
    uneven = POINTS + np.random.default_rng(0).normal(size=POINTS.shape) * 5
    found = fit_similarity(uneven * [-1, 1, 1], uneven)
    assert np.linalg.det(found.rotation) == pytest.approx(1)
    assert np.abs(found(uneven * [-1, 1, 1]) - uneven).max() > 1


def test_rigid_alignment_keeps_the_size() -> None:
    assert fit_similarity(POINTS, 2 * POINTS, scale=False).scale == 1


def test_position_maps_are_brought_onto_their_targets_as_single_point_sets_are() -> None:
    generator = torch.Generator().manual_seed(0)
    maps, target = (torch.randn(3, 3, 4, 4, generator=generator, dtype=torch.float64) * 30 for _ in range(2))
    target[0] = -maps[0]  # only a reflection would do
    moved = brought_onto(maps, target)
    for source, wanted, found in zip(maps, target, moved, strict=True):
        a, b = (points.flatten(1).t().numpy() for points in (source, wanted))
        np.testing.assert_allclose(found.flatten(1).t(), fit_similarity(a, b)(a), atol=1e-9)


def test_a_rigid_motion_is_recovered():
    away = POINTS + [100, 20, -30]
    found = fit_similarity(away, 2 * away, scale=False)
    assert found.scale == 1
    np.testing.assert_allclose(found(away).mean(0), 2 * away.mean(0))
