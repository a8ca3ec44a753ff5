"""What a recognizer sees of textures while I-Net is trained."""

import pytest
import torch
from torch import Tensor

from pifr.alignment import ARCFACE_112
from pifr.training.identity import FrontalIdentity


def colours(images: Tensor) -> Tensor:
    """A recognizer that knows people by the colours of the left and the right half of the image."""
    return torch.cat([half.mean((2, 3)) for half in images.tensor_split(2, 3)], 1)


@pytest.fixture(scope="module")
def identity() -> FrontalIdentity:
    return FrontalIdentity(colours, ARCFACE_112, 56)


def test_a_texture_of_one_colour_is_seen_in_that_colour(identity: FrontalIdentity) -> None:
    texture = torch.tensor([0.2, 0.5, 0.7]).view(1, 3, 1, 1).expand(1, 3, 32, 32)
    assert torch.allclose(identity.rendered(texture), torch.tensor([0.2, 0.5, 0.7]).view(1, 3, 1, 1), atol=1e-5)


def test_the_face_fills_the_middle_and_its_sides_stay_apart(identity: FrontalIdentity) -> None:
    texture = torch.zeros(1, 3, 64, 64)
    texture[:, 0, :, :32], texture[:, 2, :, 32:] = 1, 1
    seen = identity.rendered(texture)
    assert seen.shape == (1, 3, 56, 56)
    left, right = seen[0, :, 30, 20], seen[0, :, 30, 36]
    assert (left - right).abs()[[0, 2]].min() > 0.9
    corner = seen[0, :, 0, 0]
    assert torch.allclose(corner, torch.tensor([0.5, 0.0, 0.5]), atol=0.03)


def test_templates_have_unit_length_and_gradients_reach_the_texture(identity: FrontalIdentity) -> None:
    texture = torch.rand(2, 3, 32, 32, requires_grad=True)
    templates = identity(texture)
    assert torch.allclose(templates.norm(dim=1), torch.ones(2))
    templates[:, 0].sum().backward()
    assert texture.grad.abs().amax((1, 2, 3)).min() > 0
