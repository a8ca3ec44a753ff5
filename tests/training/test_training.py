"""Training end to end on tiny shards: it learns, resumes exactly, and exports what it validated."""

import json
from pathlib import Path

import pytest
import torch
import yaml

from pifr.errors import ConfigError
from pifr.networks.weights import load_network, read_metadata
from pifr.training.config import load_training_config

CONFIGS = Path(__file__).parents[2] / "configs" / "train"
NAMES = ("segmentation", "pncc", "inpainting", "shape-coarse", "shape-fine")
UNET = {"kind": "residual", "widths": [8, 8, 8], "encoder_blocks": [0, 1], "decoder_blocks": [1, 1]}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """The lite configuration, shrunk until a step takes milliseconds."""
    content = yaml.safe_load((CONFIGS / "lite.yaml").read_text())
    content["segmentation"]["network"] |= {"input_size": 32, "unet": UNET}
    content["pncc"]["network"] |= {"input_size": 32, "unet": UNET}
    content["inpainting"]["network"] |= {"resolution": 32, "widths": [8, 8], "dilations": [1, 2]}
    content["inpainting"] |= {"discriminator": {"widths": [8, 8]}, "visibilities": 4, "perceptual": None}
    content["shape-coarse"]["network"] |= {"encoder_widths": [8] * 7, "decoder_widths": [8] * 9}
    content["shape-fine"]["network"] |= {"resolution": 32, "working_size": 32, "unet": UNET}
    for name in NAMES:
        content[name]["optimisation"] |= {
            "batch_size": 4, "validation_every": 10, "validation_limit": 4, "workers": 0, "warm_up_steps": 2
        }  # fmt: skip
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def run(name: str, config: Path, data: Path, out: Path, steps: int, **options: object) -> Path:
    from pifr.training.trainer import Run, train

    return train(Run(name, config, data, out, max_steps=steps, threads=1, **options))


@pytest.mark.parametrize("name", NAMES)
def test_twenty_steps_give_weights_pictures_and_numbers(name: str, config: Path, shards: Path, tmp_path: Path) -> None:
    weights = run(name, config, shards, tmp_path / "out", 20)
    metadata = read_metadata(weights)
    assert (metadata["steps"], metadata["images"], len(metadata["data"])) == ("20", "80", 64)
    assert json.loads(metadata["metrics"])
    assert load_network(weights).config.network == name
    assert list((tmp_path / "out" / "pictures").glob("*.jpg"))
    assert "train/loss" in (tmp_path / "out" / "csv" / "from-step-0000000" / "metrics.csv").read_text()


def test_resumed_training_ends_bit_identical(config: Path, shards: Path, tmp_path: Path) -> None:
    from pifr.training.trainer import CHECKPOINT

    def state(folder: str) -> dict[str, torch.Tensor]:
        return torch.load(tmp_path / folder / CHECKPOINT, weights_only=False)["state_dict"]

    for name in ("pncc", "inpainting"):  # the second draws noise and has two optimisers
        run(name, config, shards, tmp_path / name / "whole", 6)
        _interrupt_after(3, name, config, shards, tmp_path / name / "parts")
        run(name, config, shards, tmp_path / name / "parts", 6, resume=True)
        whole, parts = state(f"{name}/whole"), state(f"{name}/parts")
        assert all(torch.equal(value, parts[key]) for key, value in whole.items())


def _interrupt_after(steps: int, name: str, config: Path, shards: Path, out: Path) -> None:
    """A run of six steps that ends by an error before its fourth, as a killed one would."""
    from pifr.training import modules

    class Killed(Exception):
        pass

    def start(module: modules.NetworkTraining, batch: object, number: int) -> int | None:
        if module.completed_steps == steps:
            raise Killed
        return original(module, batch, number)

    original = modules.NetworkTraining.on_train_batch_start
    modules.NetworkTraining.on_train_batch_start = start
    try:
        with pytest.raises(Killed):
            run(name, config, shards, out, 6)
    finally:
        modules.NetworkTraining.on_train_batch_start = original


def test_pncc_learns(config: Path, shards: Path, tmp_path: Path) -> None:
    early = json.loads(read_metadata(run("pncc", config, shards, tmp_path / "a", 1))["metrics"])
    late = json.loads(read_metadata(run("pncc", config, shards, tmp_path / "b", 60))["metrics"])
    assert late["mm"] < 0.7 * early["mm"]


def test_the_person_pulls_at_inet_and_judges_it(config: Path, shards: Path, tmp_path: Path) -> None:
    from pifr.training.identity import TextureCritics
    from pifr.training.trainer import Run, train

    def quarters(textures: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.normalize(torch.nn.functional.adaptive_avg_pool2d(textures, 2).flatten(1), dim=1)

    content = yaml.safe_load(config.read_text())
    heads = {}
    for weight in (0.0, 10.0):
        content["inpainting"]["identity_weight"] = weight
        config.write_text(yaml.safe_dump(content))
        run = Run("inpainting", config, shards, tmp_path / str(weight), max_steps=3, threads=1)
        weights = train(run, TextureCritics(identity=quarters, judge=quarters))
        heads[weight] = load_network(weights).head.weight
        metrics = json.loads(read_metadata(weights)["metrics"])
        assert all(0.5 < metrics[name] <= 1 for name in ("identity", "identity_mirrored", "identity_mean_face"))
    assert not torch.equal(heads[0.0], heads[10.0])


def test_training_starts_from_given_weights(config: Path, shards: Path, tmp_path: Path) -> None:
    first = run("segmentation", config, shards, tmp_path / "a", 10)
    second = run("segmentation", config, shards, tmp_path / "b", 1, init_from=first)
    before, after = load_network(first).state_dict(), load_network(second).state_dict()
    change = max((after[name] - before[name]).abs().max() for name in before if name.endswith("weight"))
    assert change < 0.02


def test_a_schedule_in_minutes_ends_complete(config: Path, shards: Path, tmp_path: Path) -> None:
    from pifr.training.trainer import Run, train

    weights = train(Run("segmentation", config, shards, tmp_path, max_minutes=0.02, threads=1))
    assert int(read_metadata(weights)["steps"]) > 0
    with pytest.raises(ConfigError, match="not both"):
        train(Run("segmentation", config, shards, tmp_path, max_steps=1, max_minutes=1.0))


def test_shipped_configurations_are_valid() -> None:
    for name in ("lite", "paper"):
        loaded = load_training_config(CONFIGS / f"{name}.yaml")
        assert all(loaded.task(network) for network in NAMES)


def test_wrong_keys_of_a_training_file_are_named(tmp_path: Path) -> None:
    content = yaml.safe_load((CONFIGS / "lite.yaml").read_text())
    content["pncc"]["optimisation"]["learningrate"] = 1
    path = tmp_path / "wrong.yaml"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(ConfigError, match=r"pncc\.optimisation\.learningrate"):
        load_training_config(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        load_training_config(tmp_path / "none.yaml")


def test_schedule_warms_up_then_falls_to_two_percent() -> None:
    from pifr.training.modules import Schedule

    steps, minutes = Schedule(10, steps=100), Schedule(10, minutes=2.0)
    assert steps.rate(0, 0) == pytest.approx(0.1)
    assert steps.rate(50, 0) == pytest.approx(0.02 + 0.98 / 2)
    assert steps.rate(100, 0) == pytest.approx(0.02)
    assert minutes.rate(50, 60) == pytest.approx(0.02 + 0.98 / 2)
    assert minutes.progress(10**6, 119) < 1
    assert minutes.progress(0, 121) == 1


def test_metrics_are_means_by_nearest_yaw() -> None:
    import numpy as np

    from pifr.training.modules import summarise

    rows = {"mm": np.array([1.0, 3.0, np.nan, 5.0]), "yaw": np.array([-3.0, 85.0, 88.0, 10.0])}
    assert summarise(rows) == {"mm": 3.0, "mm@0": 3.0, "mm@90": 3.0}


def test_pncc_error_of_a_shifted_face_is_the_shift() -> None:
    from pifr.training.modules import pncc_errors

    size, extent = 32, torch.tensor([160.0, 200.0, 120.0])
    axis = (torch.arange(size) + 0.5) / size
    target = torch.stack([axis.expand(size, size), 1 - axis[:, None].expand(size, size), axis.expand(size, size) ** 2])
    predicted = target.clone()
    predicted[1] -= 2 / size  # what lies two pixels further down
    mask = torch.ones(1, 1, size, size)
    millimetres, pixels = pncc_errors(predicted[None], target[None], mask, extent)
    assert millimetres.item() == pytest.approx(2 / size * 200)
    assert pixels.item() == pytest.approx(2, rel=0.05)
    assert torch.isnan(pncc_errors(predicted[None], target[None], 0 * mask, extent)[0]).all()


def test_intersection_over_union_by_hand() -> None:
    from pifr.training.modules import intersection_over_union

    one, two = torch.zeros(1, 1, 2, 2, dtype=torch.bool), torch.zeros(1, 1, 2, 2, dtype=torch.bool)
    one[0, 0, 0], two[0, 0, :, 0] = True, True
    assert intersection_over_union(one, two).item() == pytest.approx(1 / 3)
