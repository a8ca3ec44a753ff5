"""The shipped texture model draws plausible skin, the same for the same seed."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from pifr.errors import DataError
from pifr.geometry.texture_model import TextureModel, load_texture_model
from pifr.training.geometry_assets import texture_model


def test_same_seed_same_people():
    model = load_texture_model()
    first, second = (model.sample(torch.Generator().manual_seed(3), 2) for _ in range(2))
    assert torch.equal(first, second)
    assert first.shape == (2, 3, 128, 128)
    assert first.min() >= 0
    assert first.max() <= 1
    assert (first[0] - first[1]).abs().mean() > 0.01  # two people


def test_zero_coefficients_give_the_mean():
    model = load_texture_model()
    assert torch.allclose(model.textures(torch.zeros(1, 4))[0], model.mean.clamp(0, 1))


def test_nobody_is_drawn_beyond_two_and_a_half_deviations():
    model = TextureModel(torch.full((3, 4, 4), 0.5), torch.full((1, 3, 4, 4), 0.1))
    people = model.sample(torch.Generator().manual_seed(0), 2000, spread=0.8)
    assert people.min().item() == pytest.approx(0.5 - 2.5 * 0.8 * 0.1)
    assert people.max().item() == pytest.approx(0.5 + 2.5 * 0.8 * 0.1)


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


def test_the_model_is_built_from_the_near_frontal_textures_of_all_shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng, near = np.random.default_rng(0), []
    for number, yaws in enumerate(([0.0, -30.0, 15.0], [-5.0, 25.0, 3.0])):
        folder = tmp_path / "shards" / f"shard-{number:04d}"
        folder.mkdir(parents=True)
        textures = rng.integers(0, 256, (3, 8, 8, 3)).astype(np.uint8)
        near += [texture for texture, yaw in zip(textures, yaws, strict=True) if abs(yaw) < 20]
        for name, array in {"texture": textures, "visibility": textures[..., 0], "shape": textures}.items():
            np.save(folder / f"{name}.npy", array)
        pd.DataFrame({"photo": ["a", "b", "c"], "yaw": yaws}).to_parquet(folder / "photos.parquet")
    with pytest.raises(DataError, match="4 near-frontal textures"):
        texture_model.build_texture_model(tmp_path / "shards", tmp_path / "model.npz")
    monkeypatch.setattr(texture_model, "TEXTURE_COMPONENTS", 3)
    texture_model.build_texture_model(tmp_path / "shards", tmp_path / "model.npz")
    mean = np.mean([texture / 255 for texture in near] + [texture[:, ::-1] / 255 for texture in near], 0)
    np.testing.assert_allclose(np.load(tmp_path / "model.npz")["mean"], mean.transpose(2, 0, 1), atol=1e-6)
