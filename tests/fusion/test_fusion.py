"""Each fusion against the formula that it is named after."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from pifr.errors import UnknownNameError
from pifr.fusion import FUSIONS, fuse, yaw_gate

B, V, D = 5, 3, 16


@pytest.fixture
def faces() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2 * B, V, D, generator=generator, dtype=torch.float64) * 7
    weights = torch.rand(2 * B, V, generator=generator, dtype=torch.float64)
    yaw = torch.linspace(-90, 90, 2 * B, dtype=torch.float64)
    return features, weights / weights.sum(1, keepdim=True), yaw


def score(templates: Tensor) -> Tensor:
    """Each of the first B faces against its partner among the last B."""
    return (templates[:B] * templates[B:]).sum(1)


def cosines(features: Tensor) -> Tensor:
    """B x V x V cosines between the views of the two faces of a comparison."""
    units = normalize(features, dim=-1)
    return units[:B] @ units[B:].mT


@pytest.mark.parametrize("method", FUSIONS)
def test_one_view_gives_the_cosine_whatever_the_fusion(method: str, faces: tuple) -> None:
    features, _, yaw = faces
    templates = fuse(features[:, :1], torch.ones(2 * B, 1), yaw, method)
    torch.testing.assert_close(score(templates), cosines(features)[:, 0, 0])


def test_mean_is_the_direction_of_the_sum_of_units(faces: tuple) -> None:
    features, weights, yaw = faces
    expected = normalize(normalize(features, dim=-1).sum(1), dim=-1)
    torch.testing.assert_close(fuse(features, weights, yaw, "mean"), expected)


def test_weighted_with_equal_weights_is_the_mean(faces: tuple) -> None:
    features, _, yaw = faces
    weights = torch.full((2 * B, V), 1 / V, dtype=torch.float64)
    torch.testing.assert_close(fuse(features, weights, yaw, "weighted"), fuse(features, weights, yaw, "mean"))


def test_score_mean_is_the_weighted_mean_of_all_cosines(faces: tuple) -> None:
    features, weights, yaw = faces
    expected = torch.einsum("bv,bvw,bw->b", weights[:B], cosines(features), weights[B:])
    torch.testing.assert_close(score(fuse(features, weights, yaw, "score-mean")), expected)


def test_concatenation_is_a_weighted_mean_of_same_view_cosines(faces: tuple) -> None:
    features, weights, yaw = faces
    templates = fuse(features, weights, yaw, "concatenation")
    expected = ((weights[:B] * weights[B:]).sqrt() * cosines(features).diagonal(dim1=1, dim2=2)).sum(1)
    assert templates.shape == (2 * B, V * D)
    torch.testing.assert_close(score(templates), expected)
    torch.testing.assert_close(templates.norm(dim=1), torch.ones(2 * B, dtype=torch.float64))


def test_yaw_leaves_frontal_faces_to_their_crop_and_profiles_to_the_weights(faces: tuple) -> None:
    features, weights, _ = faces
    frontal = fuse(features, weights, torch.zeros(2 * B), "yaw")
    profile = fuse(features, weights, torch.full((2 * B,), -90.0), "yaw")
    crop = normalize(features[:, 0], dim=-1)
    assert ((frontal * crop).sum(1) > 0.999).all()
    torch.testing.assert_close(profile, fuse(features, weights, torch.zeros(2 * B), "weighted"), atol=1e-3, rtol=0)


def test_unknown_yaw_is_fused_by_weight_alone(faces: tuple) -> None:
    features, weights, _ = faces
    unknown = torch.full((2 * B,), torch.nan)
    torch.testing.assert_close(fuse(features, weights, unknown, "yaw"), fuse(features, weights, unknown, "weighted"))


def test_gate_rises_with_turning_either_way() -> None:
    gate = yaw_gate(torch.tensor([0.0, 20.0, 45.0, -45.0, 70.0, -90.0]))
    assert gate[0] < 1e-4
    assert gate[2] == gate[3] == 0.5
    assert gate[5] > 0.99
    assert (gate[[0, 1, 2, 4]].diff() > 0).all()


@pytest.mark.parametrize("method", FUSIONS)
def test_a_view_of_weight_zero_does_not_count(method: str, faces: tuple) -> None:
    features, weights, yaw = faces
    weights[:, 2] = 0
    weights /= weights.sum(1, keepdim=True)
    spoilt = features.clone()
    spoilt[:, 2] = torch.nan
    full, two = fuse(spoilt, weights, yaw, method), fuse(features[:, :2], weights[:, :2], yaw, method)
    torch.testing.assert_close(score(full), score(two))


@pytest.mark.parametrize("method", FUSIONS)
def test_the_length_of_a_feature_does_not_count(method: str, faces: tuple) -> None:
    features, weights, yaw = faces
    lengths = torch.rand(2 * B, V, 1, dtype=torch.float64) + 0.5
    torch.testing.assert_close(fuse(features * lengths, weights, yaw, method), fuse(features, weights, yaw, method))


def test_an_unknown_fusion_says_what_is_close(faces: tuple) -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'concatenation'"):
        fuse(*faces, "concat")


def test_shapes_that_do_not_fit_are_named(faces: tuple) -> None:
    features, weights, yaw = faces
    with pytest.raises(ValueError, match=r"\(10, 3, 16\)"):
        fuse(features, weights[:, :2], yaw)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_fused_as_exactly_as_it_can_be(dtype: torch.dtype) -> None:
    features = 6e4 * torch.randn(3, 2, 400, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)
    features[0, 0] = 0
    weights, yaw = torch.tensor([[0.3, 0.7]]).expand(3, -1), torch.tensor([0.0, 40.0, 80.0])
    for method in FUSIONS:
        fused = fuse(features.to(dtype), weights, yaw, method)
        assert fused.dtype == dtype
        torch.testing.assert_close(fused.float(), fuse(features, weights, yaw, method), atol=0.01, rtol=0)
