"""Complete textures: evidence from the photo where it shows the face, a completion elsewhere, no seam between them."""

import torch
from torch import Tensor
from torch.nn import functional


def blend(texture: Tensor, visibility: Tensor, completion: Tensor | None = None) -> Tensor:
    """Evidence where it is visible, the completion elsewhere, matched in colour to the evidence.

    What the completion lacks of the evidence where both are known is carried on smoothly into what is not: so colours
    agree at the seam, and far from it on average.

    Args:
        texture: B x 3 x N x N float, colours from the photo, of any kind where visibility is 0.
        visibility: B x 1 x N x N float in [0, 1]: weight of evidence; in between, the blend is feathered.
        completion: B x 3 x N x N float; None: nothing is known but the evidence, which is carried on smoothly.

    Returns:
        B x 3 x N x N in [0, 1].
    """
    if completion is None:
        return pull_push(texture, visibility).clamp(0, 1)
    return (completion + pull_push(texture - completion, visibility)).clamp(0, 1)


def mirrored(texture: Tensor, visibility: Tensor) -> Tensor:
    """The face's other side as its completion, and what neither side shows carried on smoothly: B x 3 x N x N."""
    return pull_push(texture.flip(3), visibility.flip(3))


def pull_push(values: Tensor, weights: Tensor) -> Tensor:
    """Fills what is unknown from what is known around it, smoothly (pyramid interpolation).

    Args:
        values: B x C x N x N.
        weights: B x 1 x N x N in [0, 1]: 1 keeps a value, 0 replaces it, in between mixes. Rows without any weight
            become 0.

    Returns:
        B x C x N x N.

    Source: Gortler et al., The Lumigraph, SIGGRAPH 1996, section 3.4.
    """
    size = values.shape[-1]
    if size == 1:
        return values * (weights > 0).to(values.dtype)
    pooled = functional.avg_pool2d(torch.cat([values * weights, weights], 1), 2, ceil_mode=True)
    summed, total = pooled[:, :-1], pooled[:, -1:]
    coarse = pull_push(summed / total.clamp_min(1e-6), (4 * total).clamp_max(1))
    filled = functional.interpolate(coarse, (size, size), mode="bilinear", align_corners=False)
    return torch.lerp(filled, values, weights)
