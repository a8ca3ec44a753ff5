"""Losses of SRTC-Net, by the paper's equation numbers. Pure functions of float tensors; all return a scalar.

Norms are means over elements, so that a loss does not change with the batch size or the resolution; only Eq. (7) sums
over a texture's pixels, as in the work that it comes from.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional


def segmentation_loss(logits: Tensor, mask: Tensor) -> Tensor:
    """Eq. (1): binary cross-entropy of the predicted mask, from logits.

    Args:
        logits: B x 1 x N x N.
        mask: B x 1 x N x N in [0, 1]; fractions at the outline are allowed.
    """
    return functional.binary_cross_entropy_with_logits(logits, mask)


def pncc_loss(predicted: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
    """Eq. (2): L1 distance of PNCC maps.

    Args:
        predicted, target: B x 3 x N x N.
        mask: B x 1 x N x N weights in [0, 1]: the mean is over masked pixels and channels (0 where the mask is
            empty). None: over all pixels, the target being 0 outside the face, as the paper writes it.
    """
    if mask is None:
        return functional.l1_loss(predicted, target)
    return _weighted_mean((predicted - target).abs(), mask)


def reconstruction_loss(predicted: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Eq. (3): L1 distance of the generated texture T_G to the ground truth.

    Args:
        predicted, target: B x 3 x N x N in [0, 1].
        weight: B x 1 x N x N >= 0, for textures of which not every pixel is known to be true. None: 1 everywhere.
    """
    if weight is None:
        return functional.l1_loss(predicted, target)
    return _weighted_mean((predicted - target).abs(), weight)


def perceptual_loss(predicted: Tensor, target: Tensor, features: Callable[[Tensor], Tensor]) -> Tensor:
    """Eq. (4): L1 distance of the activations V(T) of a trained network.

    Args:
        predicted, target: B x 3 x N x N in [0, 1].
        features: V, from images to activations of any shape; differentiable, its parameters frozen by the caller.
    """
    with torch.no_grad():
        wanted = features(target)
    return functional.l1_loss(features(predicted), wanted)


def identity_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """One minus the cosine of templates, beside the paper's losses: what is generated shall keep the person.

    Args:
        predicted, target: B x D, of unit length.
    """
    return 1 - (predicted * target).sum(1).mean()


def discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Eq. (5): -E[log D(T_gt)] - E[log(1 - D(T_G))], where D is the sigmoid of the logits.

    -log sigmoid(x) = softplus(-x) and -log(1 - sigmoid(x)) = softplus(x) are finite for every logit.
    """
    return functional.softplus(-real_logits).mean() + functional.softplus(fake_logits).mean()


def generator_loss(fake_logits: Tensor) -> Tensor:
    """Eq. (6): -E[log D(T_G)], from logits."""
    return functional.softplus(-fake_logits).mean()


def gradient_penalty(discriminator: Callable[[Tensor], Tensor], real: Tensor) -> Tensor:
    """Eq. (7): E[||grad D(T_gt)||^2], the R1 penalty, as in Mescheder et al. 2018: of logits, by textures in [-1, 1].

    The paper writes ||.||_2 and calls it the gradient penalty of that work, which squares the norm. Its weight, 1
    beside 0.1 times Eq. (5), is twice that work's. A weight of 4 holds the adversary at chance (Eq. (5) stays at 1.37,
    where 2 log 2 is 1.39); with 1/16 it falls to .9 in 200 steps.

    Args:
        discriminator: from B x 3 x N x N textures to B logits, twice differentiable.
        real: B x 3 x N x N in [0, 1].
    """
    real = real.detach().requires_grad_(True)
    (gradient,) = torch.autograd.grad(discriminator(real).sum(), real, create_graph=True)
    return (gradient / 2).square().flatten(1).sum(1).mean()


def surface_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """Eq. (9): L1 distance of position maps, B x 3 x N x N mm."""
    return functional.l1_loss(predicted, target)


def shading_loss(reflected: Tensor, texture: Tensor, weight: Tensor | None = None) -> Tensor:
    """Eq. (11): mean squared difference between the reflected irradiance (Eq. 10) and the texture.

    Args:
        reflected, texture: B x C x N x N.
        weight: B x 1 x N x N >= 0; None: 1 everywhere.
    """
    if weight is None:
        return functional.mse_loss(reflected, texture)
    return _weighted_mean((reflected - texture).square(), weight)


def displacement_penalty(displacement: Tensor) -> Tensor:
    """L_regu of section 3.5.3: the squared two-norm of the displacement map (B x 1 x N x N, mm), as a mean."""
    return displacement.square().mean()


def _weighted_mean(values: Tensor, weight: Tensor) -> Tensor:
    total = weight.sum() * values.shape[1]
    return (values * weight).sum() / total.clamp_min(1e-6)
