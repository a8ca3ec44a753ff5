"""Batches are functions of (seed, step); validation photos are never trained on."""

import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from pifr.completion import certain
from pifr.errors import DataError
from pifr.geometry.correspondence import Correspondence
from pifr.training import dataset
from pifr.training.augment import Framing
from pifr.training.dataset import (
    PairSamples,
    Shards,
    TextureSamples,
    TrainingBatches,
    ValidationBatches,
    is_held_out,
    sample_order,
    training_loader,
    visibility_bank,
)

from .conftest import write_shards

FRAMING = Framing((1.2, 1.6), 0.1)


def test_every_epoch_visits_every_sample_once() -> None:
    order = [index for step in range(10) for index in sample_order(3, step, 7, 35)]
    assert sorted(order[:35]) == list(range(35))
    assert sorted(order[35:]) == list(range(35))
    assert order[:35] != order[35:]


def test_split_goes_by_photo(shards: Path) -> None:
    train, unseen = Shards(shards, split="train"), Shards(shards, split="validation")
    assert len(train) + len(unseen) == 128
    assert len(unseen) > 0
    assert not set(train.rows["photo"]) & set(unseen.rows["photo"])
    assert all(map(is_held_out, unseen.rows["photo"]))
    assert set(Shards(shards, "textures", "validation").rows["photo"]) == set(unseen.rows["photo"])


def test_about_three_percent_are_held_out() -> None:
    share = np.mean([is_held_out(f"set/{number}.jpg") for number in range(20_000)])
    assert share == pytest.approx(0.03, abs=0.005)


def test_shards_in_the_making_are_left_out(shards: Path, tmp_path: Path) -> None:
    (tmp_path / "shard-0000").symlink_to(shards / "shard-0000")
    (tmp_path / ".shard-0001.77").symlink_to(shards / "shard-0000")
    for link in tmp_path.iterdir():  # rglob does not follow links: real folders instead
        target = link.readlink()
        link.unlink()
        link.mkdir()
        for file in target.iterdir():
            (link / file.name).symlink_to(file)
    assert len(Shards(tmp_path, split="all")) == 128


def test_a_spawned_worker_is_sent_names_and_not_the_data(shards: Path) -> None:
    here = Shards(shards)
    sent = pickle.dumps(here)
    assert len(sent) < 50_000 < here.read("image", 0).nbytes
    there = pickle.loads(sent)
    assert all(np.array_equal(there.read(name, 5), here.read(name, 5)) for name in ("image", "pncc", "position"))


def test_missing_and_short_shards_are_named(shards: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"pairs\.parquet"):
        Shards(tmp_path)
    (tmp_path / "pairs.parquet").symlink_to(shards / "shard-0000" / "pairs.parquet")
    for name in ("image", "position"):
        (tmp_path / f"{name}.npy").symlink_to(shards / "shard-0000" / f"{name}.npy")
    with pytest.raises(DataError, match=r"pncc\.npy"):
        Shards(tmp_path)
    np.save(tmp_path / "pncc.npy", np.zeros((5, 4, 4, 3), np.uint8))
    with pytest.raises(DataError, match="5 rows"):
        Shards(tmp_path)


def test_a_damaged_table_is_named_with_its_remedy(tmp_path: Path) -> None:
    damaged = write_shards(tmp_path, photos=2) / "shard-0000" / "pairs.parquet"
    damaged.write_bytes(damaged.read_bytes()[:100])
    with pytest.raises(DataError, match=r"pairs\.parquet.*delete .*shard-0000.*pifr train render"):
        Shards(tmp_path)


def test_a_batch_depends_on_seed_and_step_alone(shards: Path) -> None:
    def batches(seed: int) -> TrainingBatches:
        pairs = Shards(shards)
        return TrainingBatches(len(pairs), PairSamples(pairs, FRAMING, 64), 4, seed)

    first, second = batches(1), batches(1)
    second[0]
    for name, value in first[5].items():
        assert torch.equal(value, second[5][name])
    assert not torch.equal(first[5]["image"], batches(2)[5]["image"])


def test_loader_starts_where_it_is_told_whatever_the_workers(shards: Path) -> None:
    pairs = Shards(shards)
    batches = TrainingBatches(len(pairs), PairSamples(pairs, FRAMING, 32), 2, 0)
    loader = iter(training_loader(batches, start=3, workers=1))
    for step in (3, 4):
        assert torch.equal(next(loader)["image"], batches[step]["image"])


def test_pair_sample_mirrors_everything(shards: Path) -> None:
    pairs = Shards(shards)
    plain = PairSamples(pairs, Framing.plain(1.4), 64, augmented=False)(5, np.random.default_rng(0))
    mirrored = PairSamples(pairs, Framing.plain(1.4)._replace(mirror=1.0), 64, augmented=False)(
        5, np.random.default_rng(0)
    )
    assert mirrored["yaw"] == -plain["yaw"]
    np.testing.assert_allclose(mirrored["position"][0], -plain["position"][0][:, ::-1])
    np.testing.assert_allclose(mirrored["position"][1:], plain["position"][1:, :, ::-1])
    both = (mirrored["mask"] & plain["mask"][:, ::-1]).astype(bool)
    assert both.sum() > 0.95 * plain["mask"].sum()
    difference = mirrored["pncc"][both].astype(float) - plain["pncc"][:, ::-1][both] * [-1, 1, 1] - [1, 0, 0]
    assert np.abs(difference).mean() < 0.02


def test_validation_is_always_the_same(shards: Path) -> None:
    pairs = Shards(shards, split="all")
    checks = ValidationBatches(len(pairs), PairSamples(pairs, Framing.plain(1.4), 32, augmented=False), 4, limit=10)
    assert [len(checks[number]["yaw"]) for number in range(len(checks))] == [4, 4, 2]
    assert torch.equal(checks[1]["image"], checks[1]["image"])
    assert len(ValidationBatches(0, lambda index, rng: {}, 4, 10)) == 0


def test_texture_sample_is_the_texture_at_its_size(shards: Path) -> None:
    textures = Shards(shards, "textures", "all")
    full = np.full((1, 64, 64), 255, np.uint8)
    samples = TextureSamples(textures, full, 64, augmented=False)
    sample = samples(2, np.random.default_rng(0))
    assert {name: value.shape for name, value in sample.items()} == {
        "texture": (3, 64, 64), "shown": (3, 64, 64), "visibility": (1, 64, 64), "trust": (1, 64, 64),
        "position": (3, 64, 64),
    }  # fmt: skip
    assert sample["visibility"].min() == 1
    expected = textures.read("texture", 2).reshape(64, 2, 64, 2, 3).mean((1, 3)) / 255
    np.testing.assert_allclose(sample["texture"].transpose(1, 2, 0), expected, atol=0.6 / 255)


def test_texture_sample_mirrors_truth_trust_and_shape_together(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset, "_tint", lambda texture, rng: texture)
    textures = Shards(shards, "textures", "all")
    samples = TextureSamples(textures, np.full((1, 128, 128), 255, np.uint8), 128)
    trust = textures.read("visibility", 2).astype(np.float32) / 255
    texture, position = textures.read("texture", 2), textures.read("shape", 2).astype(np.float32)
    mirrored = set()
    for seed in range(8):
        sample = samples(2, np.random.default_rng(seed))
        flipped = np.array_equal(sample["trust"][0], trust[:, ::-1])
        mirrored.add(flipped)
        assert flipped or np.array_equal(sample["trust"][0], trust)
        shown = sample["texture"].transpose(1, 2, 0) * 255
        np.testing.assert_allclose(shown, texture[:, ::-1] if flipped else texture, atol=0.01)
        expected = cv2.resize(position, (128, 128)) if position.shape[0] != 128 else position
        expected = expected[:, ::-1] * [-1, 1, 1] if flipped else expected
        np.testing.assert_allclose(sample["position"], expected.transpose(2, 0, 1), atol=0.05)
    assert mirrored == {True, False}


def test_some_photos_have_no_colours_and_some_end_above_the_brows(shards: Path) -> None:
    full = np.full((1, 64, 64), 255, np.uint8)
    samples = TextureSamples(Shards(shards, "textures", "all"), full, 64)
    drawn = [samples(0, np.random.default_rng(seed)) for seed in range(60)]
    grey = [np.ptp(sample["texture"], axis=0).max() < 1 / 255 for sample in drawn]
    assert 3 < sum(grey) < 20  # of 9 that are expected
    unseen = np.array([[band.mean() for band in np.split(1 - sample["visibility"][0], 2)] for sample in drawn])
    assert 8 < (unseen[:, 0] > unseen[:, 1] + 0.2).sum() < 35  # half of 18 lose more than a fifth of the upper half
    assert unseen[:, 1].max() < 0.3  # an occluder's hole, no photo that ends below the eyes


def test_stains_lie_along_the_edges_of_what_is_seen(shards: Path) -> None:
    half = np.zeros((1, 64, 64), np.uint8)
    half[..., :32] = 255
    samples = TextureSamples(Shards(shards, "textures", "all"), half, 64, augmented=False)
    drawn = [samples(0, np.random.default_rng(seed)) for seed in range(40)]
    stained = [(sample["shown"] != sample["texture"]).any(0) & (sample["visibility"][0] > 0) for sample in drawn]
    assert 10 < sum(map(np.any, stained)) < 39  # of 28 that are expected; some reach nowhere
    from_edge = np.abs(np.arange(64) - 31.5)
    assert max(from_edge[columns.any(0)].max(initial=0) for columns in stained) < 8
    assert all(sample["shown"].min() > -0.001 and sample["shown"].max() < 1.001 for sample in drawn)


def test_visibility_bank_is_what_inference_is_certain_of_on_true_codes(tmp_path: Path) -> None:
    pairs = Shards(write_shards(tmp_path, photos=4))
    bank = visibility_bank(pairs, size=64, count=2, seed=0)
    stored = torch.from_numpy(np.stack([pairs.read("pncc", index) for index in range(len(pairs))])).permute(0, 3, 1, 2)
    mask = (stored[:, :1] > 0).float()
    codes = (stored - mask) / 254  # as docs/architecture.md stores them: 1 + 254 * NCC
    every = certain(Correspondence().unwrap(codes, codes, mask, 64).visibility)[:, 0] * 255
    for drawn in bank:
        assert (every.byte().numpy() == drawn).all((1, 2)).any()


def test_visibility_bank_is_empty_where_nothing_is_seen(shards: Path) -> None:
    bank = visibility_bank(Shards(shards), size=64, count=3, seed=0)
    assert bank.shape == (3, 64, 64)
    assert bank.dtype == np.uint8
