"""Fuse the features of a face's views into one template; templates are compared by the dot product."""

from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn.functional import normalize

from pifr.errors import UnknownNameError

Fusion = Literal["mean", "weighted", "score-mean", "concatenation", "yaw"]
FUSIONS: tuple[Fusion, ...] = get_args(Fusion)
DEFAULT_FUSION: Fusion = "weighted"

GATE_CENTRE = 45.0
"""Degrees of |yaw| at which `yaw` fusion gives the extra views half of their weight."""

GATE_STEEPNESS = 10.0
"""Steepness of the gate: 0.03 at 30 degrees, 0.97 at 60."""


def fuse(features: Tensor, weights: Tensor, yaw: Tensor, method: Fusion = DEFAULT_FUSION) -> Tensor:
    """One template a face.

    | method | template |
    | --- | --- |
    | mean | unit vector along the mean of the views in use (weight > 0) |
    | weighted | unit vector along the weighted sum |
    | score-mean | weighted sum as it is: the dot product of two templates is the weighted mean of all cosines |
    | concatenation | blocks scaled by sqrt(weight): dot products add up same views' cosines times sqrt(w w') |
    | yaw | as weighted, the extra views gated by |yaw|; where yaw is unknown, as weighted |

    Args:
        features: B x V x D float; each view is L2-normalised first.
        weights: B x V float, rows sum to 1; a view of weight 0 does not count (its features may be anything).
        yaw: B float, degrees, NaN where unknown; read by `yaw` alone.
        method: one of `FUSIONS`.

    Returns:
        B x D, or B x (V D) for `concatenation`; dtype and device of the features. A row whose used features hold NaN
        holds NaN.

    Raises:
        UnknownNameError: no such method.
        ValueError: shapes do not fit together.
    """
    check_fusion(method)
    if features.ndim != 3 or weights.shape != features.shape[:2] or yaw.shape != features.shape[:1]:
        raise ValueError(
            f"features {tuple(features.shape)}, weights {tuple(weights.shape)} and yaw {tuple(yaw.shape)} "
            "are not B x V x D, B x V and B"
        )
    used = weights > 0
    # In half precision, the square of a length may be 0 or infinite.
    exact = torch.promote_types(features.dtype, torch.float32)
    units = normalize(features.masked_fill(~used[..., None], 0.0).to(exact), dim=-1)
    weights = weights.to(exact)
    if method == "concatenation":
        return (units * weights.sqrt()[..., None]).flatten(1).to(features.dtype)
    if method == "mean":
        weights = used.to(exact)
    elif method == "yaw":
        weights = torch.cat([weights[:, :1], weights[:, 1:] * yaw_gate(yaw.to(exact))[:, None]], dim=1)
    fused = (units * weights[..., None]).sum(1)
    return (fused if method == "score-mean" else normalize(fused, dim=-1)).to(features.dtype)


def yaw_gate(yaw: Tensor) -> Tensor:
    """How much of a frontalized view to believe: 0 for a frontal face, 1 for a profile, 1 where yaw (degrees) is NaN.

    Source: the gate of the DREAM block, Cao et al., Pose-Robust Face Recognition via Deep Residual Equivariant
    Mapping, CVPR 2018 (Eq. 3: sigmoid of 10 (|yaw| / 45 - 1)).
    """
    gate = torch.sigmoid(GATE_STEEPNESS * (yaw.abs() / GATE_CENTRE - 1.0))
    return torch.where(yaw.isnan(), torch.ones_like(gate), gate)


def check_fusion(method: str) -> None:
    """Raise `UnknownNameError` unless `method` is one of `FUSIONS`."""
    if method not in FUSIONS:
        raise UnknownNameError("fusion", method, FUSIONS)
