"""What a recognizer sees of textures while I-Net is trained."""

import pytest
import torch
from torch import Tensor

from pifr.geometry.alignment import ARCFACE_112
from pifr.training.identity import FrontalIdentity, as_photographed


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


def test_another_photo_moves_and_blurs_a_texture_but_keeps_what_it_shows() -> None:
    torch.manual_seed(0)
    dot = torch.zeros(32, 1, 64, 64)
    dot[:, :, 31:33, 31:33] = 1
    seen = as_photographed(dot)
    axis = torch.arange(64.0)
    centre = torch.stack([(seen.sum(2) * axis).sum((1, 2)), (seen.sum(3) * axis).sum((1, 2))], 1) / seen.sum((2, 3))
    assert 0.5 < (centre - 31.5).abs().max() < 0.03 * 64 + 0.5
    assert seen.amax((1, 2, 3)).min() < 0.5
    assert (seen.sum((1, 2, 3)) - 4).abs().max() < 1
    flat = torch.full((4, 3, 64, 64), 0.3)
    torch.testing.assert_close(as_photographed(flat), flat)


def test_channels_of_a_texture_are_photographed_together() -> None:
    texture = torch.rand(3, 1, 32, 32, requires_grad=True)
    first, second = as_photographed(texture.expand(-1, 2, -1, -1)).chunk(2, 1)
    torch.testing.assert_close(first, second)
    first.sum().backward()
    assert texture.grad.abs().sum() > 0
