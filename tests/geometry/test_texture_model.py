"""The shipped texture model draws plausible skin, the same for the same seed."""

import pytest
import torch

from pifr.geometry.texture_model import TextureModel, load_texture_model


def test_same_seed_same_people():
    model = load_texture_model()
    first, second = (model.sample(torch.Generator().manual_seed(3), 2) for _ in range(2))
    assert torch.equal(first, second)
    assert first.shape == (2, 3, 128, 128)
    assert first.min() >= 0
    assert first.max() <= 1


def test_zero_coefficients_give_the_mean():
    model = load_texture_model()
    assert torch.allclose(model.textures(torch.zeros(1, 4))[0], model.mean.clamp(0, 1))


def test_the_mean_is_mirror_symmetric():
    mean = load_texture_model().mean
    assert (mean - mean.flip(-1)).abs().max() < 0.01


def test_components_are_orthogonal():
    flat = load_texture_model().components[:20].flatten(1)
    flat = torch.nn.functional.normalize(flat)
    assert ((flat @ flat.T) - torch.eye(20)).abs().max() < 0.02


def test_components_of_another_size_are_refused():
    with pytest.raises(ValueError, match="do not match"):
        TextureModel(torch.zeros(3, 8, 8), torch.zeros(2, 3, 4, 4))
