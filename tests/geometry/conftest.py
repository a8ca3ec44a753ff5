import pytest
import torch
from torch import Tensor

from pifr.geometry import warp


def ellipsoid_with_nose(size: int) -> Tensor:
    """3 x size x size mm: a smooth, symmetric head front whose nose stands out 28 mm at UV (0.5, 0.55)."""
    u, v = warp.uv_grid(size)
    longitude, latitude = (u - 0.5) * 2.9, (v - 0.5) * 2.4
    nose = torch.exp(-(((u - 0.5) / 0.06) ** 2) - ((v - 0.55) / 0.09) ** 2)
    return torch.stack(
        [
            75 * torch.sin(longitude) * torch.cos(0.6 * latitude),
            -95 * torch.sin(latitude),
            85 * torch.cos(longitude) * torch.cos(0.8 * latitude) + 28 * nose,
        ]
    )


@pytest.fixture
def analytic_face():
    return ellipsoid_with_nose
