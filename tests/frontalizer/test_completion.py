"""What a complete texture must keep, and what it may invent."""

import pytest
import torch

from pifr.completion import MARGIN, WASHED, blend, certain, mirrored, pull_push


@pytest.fixture
def texture() -> torch.Tensor:
    return torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def half() -> torch.Tensor:
    visibility = torch.zeros(2, 1, 32, 32)
    visibility[..., :16] = 1
    return visibility


def test_evidence_is_kept_as_it_is(texture, half):
    for completion in (None, torch.zeros_like(texture), texture.flip(3)):
        torch.testing.assert_close(blend(texture, half, completion)[..., :16], texture[..., :16])


def test_a_colour_cast_of_the_completion_is_taken_off(half):
    truth = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 0.6 + 0.2
    cast = torch.tensor([0.1, -0.05, 0.15])[:, None, None]
    torch.testing.assert_close(blend(truth, half, truth + cast), truth, atol=1e-5, rtol=0)


def test_a_constant_is_filled_with_itself(half):
    torch.testing.assert_close(pull_push(torch.full((2, 3, 32, 32), 0.3), half), torch.full((2, 3, 32, 32), 0.3))


def test_filling_stays_within_what_is_known(texture, half):
    filled = pull_push(texture, half)
    assert filled.min() >= texture[..., :16].min() - 1e-6
    assert filled.max() <= texture[..., :16].max() + 1e-6


def test_what_is_not_visible_has_no_influence(texture, half):
    other = torch.where(half > 0, texture, torch.rand_like(texture))
    torch.testing.assert_close(blend(texture, half), blend(other, half))


def test_nothing_visible_gives_black(texture):
    assert (blend(texture, torch.zeros(2, 1, 32, 32)) == 0).all()


def test_partial_visibility_mixes(texture, half):
    completion = torch.zeros_like(texture)
    quarter = blend(texture, half * 0.25, completion)
    assert (quarter[..., :8] - texture[..., :8]).abs().mean() > 0.05


def test_the_mirrored_completion_is_the_other_side(texture, half):
    torch.testing.assert_close(mirrored(texture, half)[..., 16:], texture.flip(3)[..., 16:])


@pytest.mark.parametrize("size", [84, 96, 128])
def test_any_size_can_be_filled(size):
    values, weights = torch.full((1, 3, size, size), 0.5), torch.zeros(1, 1, size, size)
    weights[..., 0, 0] = 1
    torch.testing.assert_close(pull_push(values, weights), values)


@pytest.mark.parametrize("size", [1, 2, 7, 84, 128])
def test_the_compiled_filling_is_that_of_torch(size):
    generator = torch.Generator().manual_seed(2)
    values = torch.rand(3, 2, size, size, generator=generator)
    weights = (2 * torch.rand(3, 1, size, size, generator=generator) - 1).clamp_min(0)
    weights[0] = 0
    weights[1, :, : size // 2] = 0
    plain = pull_push(values.clone().requires_grad_(), weights).detach()
    torch.testing.assert_close(pull_push(values, weights), plain, atol=1e-6, rtol=0)


@pytest.mark.parametrize(("margin", "pixels"), [(MARGIN, 2), (MARGIN + WASHED, 10)])
def test_nothing_is_certain_near_what_is_doubtful(margin, pixels):
    visibility = torch.ones(1, 1, 128, 128)
    visibility[..., 60:] = 0.1
    sure = certain(visibility, margin)
    assert (sure[..., : 60 - pixels] == 1).all()
    assert (sure[..., 60 - pixels :] == 0).all()


def test_small_doubts_stay_small():
    visibility = torch.ones(1, 1, 128, 128)
    visibility[..., 40:47, 50:90] = 0  # a mouth, say
    torch.testing.assert_close(certain(visibility, MARGIN + WASHED), visibility)


def test_certainty_grows_with_visibility():
    visibility = torch.linspace(0, 1, 11)[:, None, None, None].expand(-1, 1, 16, 16)
    sure = certain(visibility)[:, 0, 8, 8]
    assert (sure.diff() >= 0).all()
    assert sure[1] == 0 < sure[2] < sure[4] == 1


def test_what_is_seen_is_not_mixed_with_the_other_side():
    texture = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(mirrored(texture, torch.ones(1, 1, 32, 32)), texture)


@pytest.mark.parametrize("size", [112, 128, 150])
def test_what_is_filled_is_neither_moved_nor_sided(size):
    generator = torch.Generator().manual_seed(size)
    weights = (torch.rand(8, 1, size, size, generator=generator) < 0.01).float()
    ramp = torch.arange(float(size)).expand(8, 1, size, size)
    inner = slice(size // 4, -size // 4)
    for values in (ramp, ramp.mT):
        filled = pull_push(values, weights)
        assert (filled - values)[..., inner, inner].mean().abs() < 0.3
        torch.testing.assert_close(pull_push(values.flip(3), weights.flip(3)).flip(3), filled)
