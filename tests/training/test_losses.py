"""Losses against values worked out by hand."""

import math

import pytest
import torch

from pifr.training import losses
from pifr.training.losses import shading_loss


def test_segmentation_loss_of_even_odds_is_log_two() -> None:
    # Eq. (1): -(1 log 1/2) and -(0 + 1 log 1/2), whatever the mask.
    logits, mask = torch.zeros(1, 1, 1, 2), torch.tensor([[[[1.0, 0.0]]]])
    assert losses.segmentation_loss(logits, mask).item() == pytest.approx(math.log(2))


def test_segmentation_loss_of_odds_three_to_one() -> None:
    logits = torch.full((1, 1, 1, 2), math.log(3.0))
    mask = torch.tensor([[[[1.0, 0.0]]]])
    assert losses.segmentation_loss(logits, mask).item() == pytest.approx(-(math.log(3 / 4) + math.log(1 / 4)) / 2)


def test_pncc_loss_counts_masked_pixels_only() -> None:
    predicted = torch.tensor([[0.5, 9.0], [0.5, 9.0], [0.2, 9.0]]).view(1, 3, 1, 2)
    target = torch.tensor([[0.4, 0.0], [0.7, 0.0], [0.2, 0.0]]).view(1, 3, 1, 2)
    mask = torch.tensor([1.0, 0.0]).view(1, 1, 1, 2)
    # Eq. (2) on one pixel: (0.1 + 0.2 + 0) / 3; without the mask also three times 9, over six values.
    assert losses.pncc_loss(predicted, target, mask).item() == pytest.approx(0.1)
    assert losses.pncc_loss(predicted, target).item() == pytest.approx(27.3 / 6)


def test_pncc_loss_of_an_empty_mask_is_zero() -> None:
    ones = torch.ones(1, 3, 2, 2, requires_grad=True)
    loss = losses.pncc_loss(ones, torch.zeros(1, 3, 2, 2), torch.zeros(1, 1, 2, 2))
    loss.backward()
    assert loss.item() == 0
    assert ones.grad is not None
    assert ones.grad.abs().max() == 0


def test_reconstruction_loss_weighs_pixels() -> None:
    predicted, target = torch.tensor([0.1, 0.5]).view(1, 1, 1, 2), torch.zeros(1, 1, 1, 2)
    weight = torch.tensor([3.0, 1.0]).view(1, 1, 1, 2)
    # Eq. (3): (3 x 0.1 + 1 x 0.5) / 4.
    assert losses.reconstruction_loss(predicted, target, weight).item() == pytest.approx(0.2)
    assert losses.reconstruction_loss(predicted, target).item() == pytest.approx(0.3)


def test_perceptual_loss_compares_activations() -> None:
    def doubled_mean(images: torch.Tensor) -> torch.Tensor:
        return 2 * images.mean((1, 2, 3))

    predicted, target = torch.full((1, 3, 2, 2), 0.5, requires_grad=True), torch.full((1, 3, 2, 2), 0.2)
    loss = losses.perceptual_loss(predicted, target, doubled_mean)
    loss.backward()
    assert loss.item() == pytest.approx(0.6)  # Eq. (4): |2 x 0.5 - 2 x 0.2|
    assert predicted.grad.sum().item() == pytest.approx(2.0)


def test_identity_loss_is_one_minus_the_mean_cosine() -> None:
    predicted, target = torch.tensor([[1.0, 0.0], [0.6, 0.8]]), torch.tensor([[0.6, 0.8], [0.6, 0.8]])
    assert losses.identity_loss(predicted, target).item() == pytest.approx(1 - (0.6 + 1.0) / 2)


def test_adversarial_losses_are_the_papers_logarithms() -> None:
    real, fake = torch.tensor([0.3, -1.2]), torch.tensor([2.0, -0.5])
    sigmoid = [1 / (1 + math.exp(-x)) for x in (0.3, -1.2, 2.0, -0.5)]
    eq5 = -(math.log(sigmoid[0]) + math.log(sigmoid[1])) / 2 - (math.log(1 - sigmoid[2]) + math.log(1 - sigmoid[3])) / 2
    eq6 = -(math.log(sigmoid[2]) + math.log(sigmoid[3])) / 2
    assert losses.discriminator_loss(real, fake).item() == pytest.approx(eq5, rel=1e-5)
    assert losses.generator_loss(fake).item() == pytest.approx(eq6, rel=1e-5)


def test_adversarial_losses_are_finite_for_any_logit() -> None:
    logits = torch.tensor([-1e4, 1e4], requires_grad=True)
    loss = losses.discriminator_loss(logits, logits) + losses.generator_loss(logits)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()


def test_gradient_penalty_of_a_linear_discriminator() -> None:
    weight = torch.tensor([3.0, 4.0], requires_grad=True)
    real = torch.randn(5, 1, 1, 2)
    # Eq. (7): by textures in [-1, 1] the gradient is (1.5, 2), its squared norm 6.25, d/dw of it w / 2.
    penalty = losses.gradient_penalty(lambda x: (x.flatten(1) * weight).sum(1), real)
    penalty.backward()
    assert penalty.item() == pytest.approx(6.25)
    torch.testing.assert_close(weight.grad, torch.tensor([1.5, 2.0]))


def test_surface_loss_is_the_mean_absolute_coordinate_error() -> None:
    predicted, target = torch.zeros(1, 3, 1, 1), torch.tensor([1.0, -2.0, 6.0]).view(1, 3, 1, 1)
    assert losses.surface_loss(predicted, target).item() == pytest.approx(3.0)  # Eq. (9)


def test_shading_loss_is_a_weighted_mean_square() -> None:
    reflected, texture = torch.tensor([1.0, 3.0]).view(1, 1, 1, 2), torch.zeros(1, 1, 1, 2)
    weight = torch.tensor([1.0, 0.0]).view(1, 1, 1, 2)
    assert losses.shading_loss(reflected, texture).item() == pytest.approx(5.0)  # Eq. (11)
    assert losses.shading_loss(reflected, texture, weight).item() == pytest.approx(1.0)


def test_displacement_penalty_is_the_mean_square() -> None:
    assert losses.displacement_penalty(torch.tensor([1.0, -3.0]).view(1, 1, 1, 2)).item() == pytest.approx(5.0)


def test_shading_is_compared_by_squares_with_and_without_weights() -> None:
    two, none = torch.full((1, 3, 2, 2), 2.0), torch.zeros(1, 3, 2, 2)
    assert shading_loss(two, none) == shading_loss(two, none, torch.ones(1, 1, 2, 2)) == 4
