"""Faces for predictors that do not look at them."""

import torch

from pifr.faces import FaceCrops


def black_faces(count: int) -> FaceCrops:
    return FaceCrops(
        torch.zeros(count, 3, 256, 256),
        torch.eye(2, 3).repeat(count, 1, 1),
        torch.full((count, 5, 2), torch.nan),
        ("ok",) * count,
        ("",) * count,
    )
