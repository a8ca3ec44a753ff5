"""Training end to end on tiny shards: it learns, resumes exactly, and exports what it validated."""

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from pifr.errors import CheckpointError, ConfigError, DataError
from pifr.geometry.lighting import surface_normals
from pifr.networks.weights import load_network, read_metadata
from pifr.support.files import file_sha256
from pifr.training import losses
from pifr.training.config import load_training_config

from .conftest import CONFIGS, NAMES


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


def test_a_chain_of_networks_resumes_although_weights_files_were_written_again(
    config: Path, shards: Path, tmp_path: Path
) -> None:
    for name, steps in (("pncc", 2), ("shape-coarse", 2)):
        run(name, config, shards, tmp_path / name, steps, cnet=tmp_path)
    before = file_sha256(tmp_path / "pncc" / "weights.safetensors")
    run("pncc", config, shards, tmp_path / "pncc", 2, resume=True)  # which is finished
    assert file_sha256(tmp_path / "pncc" / "weights.safetensors") != before
    run("shape-coarse", config, shards, tmp_path / "shape-coarse", 4, resume=True, cnet=tmp_path)
    run("pncc", config, shards, tmp_path / "pncc", 3, resume=True)
    with pytest.raises(CheckpointError, match="another C-Net"):
        run("shape-coarse", config, shards, tmp_path / "shape-coarse", 5, resume=True, cnet=tmp_path)


def test_an_inpainting_resumed_with_another_adversary_is_refused(config: Path, shards: Path, tmp_path: Path) -> None:
    run("inpainting", config, shards, tmp_path / "out", 1)
    content = yaml.safe_load(config.read_text())
    content["inpainting"]["adversarial"] = not content["inpainting"]["adversarial"]
    config.write_text(yaml.safe_dump(content))
    with pytest.raises(CheckpointError, match="another discriminator"):
        run("inpainting", config, shards, tmp_path / "out", 2, resume=True)


@pytest.mark.parametrize("name", ["pncc", "inpainting"])
def test_a_periodic_checkpoint_is_of_whole_steps(
    name: str, config: Path, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pifr.training import trainer

    def keep_third(keeper: trainer._Keeper, lightning: object, module: torch.nn.Module) -> None:
        original(keeper, lightning, module)
        if module.completed_steps == 3 and not (tmp_path / "parts").exists():
            shutil.copytree(tmp_path / "whole", tmp_path / "parts")

    original = trainer._Keeper.save
    monkeypatch.setattr(trainer._Keeper, "save", keep_third)
    run(name, config, shards, tmp_path / "whole", 6, checkpoint_minutes=0.0)
    whole, third = (
        torch.load(tmp_path / folder / trainer.CHECKPOINT, weights_only=False) for folder in ("whole", "parts")
    )
    assert third["pifr"]["completed_steps"] == third["state_dict"]["average.n_averaged"].item() == 3
    assert {int(state["step"]) for state in third["optimizer_states"][0]["state"].values()} == {3}
    run(name, config, shards, tmp_path / "parts", 6, resume=True)
    parts = torch.load(tmp_path / "parts" / trainer.CHECKPOINT, weights_only=False)["state_dict"]
    assert all(torch.equal(value, parts[key]) for key, value in whole["state_dict"].items())


@pytest.mark.parametrize("name", ["pncc", "inpainting"])
def test_an_interrupt_waits_for_the_end_of_the_step(
    name: str, config: Path, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pifr.training import modules
    from pifr.training.trainer import CHECKPOINT

    def interrupt(module: modules.NetworkTraining, optimizer: torch.optim.Optimizer) -> None:
        if module.completed_steps == 2 and not module.stop_asked:
            os.kill(os.getpid(), signal.SIGINT)
        original(module, optimizer)

    run(name, config, shards, tmp_path / "whole", 5)
    original = modules.NetworkTraining.on_before_optimizer_step
    monkeypatch.setattr(modules.NetworkTraining, "on_before_optimizer_step", interrupt)
    usual = signal.signal(signal.SIGINT, signal.default_int_handler)  # a test run in the background ignores Ctrl-C
    try:
        with pytest.raises(KeyboardInterrupt):
            run(name, config, shards, tmp_path / "parts", 5)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, usual)
    third = torch.load(tmp_path / "parts" / CHECKPOINT, weights_only=False)
    assert third["pifr"]["completed_steps"] == 3  # so the resumed run is not interrupted again
    run(name, config, shards, tmp_path / "parts", 5, resume=True)
    whole, parts = (torch.load(tmp_path / folder / CHECKPOINT, weights_only=False) for folder in ("whole", "parts"))
    assert all(torch.equal(value, parts["state_dict"][key]) for key, value in whole["state_dict"].items())


def test_what_a_resumed_training_would_not_heed_is_refused(config: Path, shards: Path, tmp_path: Path) -> None:
    from pifr.training.trainer import CHECKPOINT

    weights = run("segmentation", config, shards, tmp_path, 1)
    with pytest.raises(ConfigError, match="leave out --resume or --init-from"):
        run("segmentation", config, shards, tmp_path, 2, resume=True, init_from=weights)
    (tmp_path / CHECKPOINT).unlink()
    with pytest.raises(ConfigError, match=r"weights without last\.ckpt"):
        run("segmentation", config, shards, tmp_path, 2, resume=True)
    assert read_metadata(weights)["steps"] == "1"


def test_shards_that_the_manifest_lists_must_be_there(shards: Path, tmp_path: Path) -> None:
    from pifr.training.dataset import Shards

    shutil.copytree(shards, tmp_path / "part")
    listed = [{"name": "shard-0000"}, {"name": "shard-0001"}]
    (tmp_path / "part" / "manifest.json").write_text(json.dumps({"shards": listed}))
    with pytest.raises(DataError, match="lacks shard-0001: 'pifr train render' goes on"):
        Shards(tmp_path / "part")


@pytest.mark.parametrize(("key", "value"), [("scale", [1.5, 1.06]), ("shift", 5)])
def test_a_framing_without_sense_is_refused(key: str, value: object, config: Path, tmp_path: Path) -> None:
    content = yaml.safe_load(config.read_text())
    content["pncc"]["framing"][key] = value
    (tmp_path / "wrong.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(ConfigError, match=rf"pncc\.framing.*{key}"):
        load_training_config(tmp_path / "wrong.yaml")


def test_a_crop_that_training_never_shows_is_refused(config: Path, tmp_path: Path) -> None:
    content = yaml.safe_load(config.read_text())
    content["pncc"]["network"]["crop_factor"] = 3.0
    (tmp_path / "wrong.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(ConfigError, match=r"pncc.*crop_factor of 3 is outside"):
        load_training_config(tmp_path / "wrong.yaml")


def test_an_error_within_a_step_leaves_the_checkpoint_as_it_was(
    config: Path, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pifr.training import modules
    from pifr.training.trainer import CHECKPOINT

    def fail(*_: object) -> None:
        raise MemoryError

    run("pncc", config, shards, tmp_path, 2)
    before = (tmp_path / CHECKPOINT).read_bytes()
    monkeypatch.setattr(modules.NetworkTraining, "on_before_optimizer_step", fail)
    with pytest.raises(MemoryError):
        run("pncc", config, shards, tmp_path, 4, resume=True)
    assert (tmp_path / CHECKPOINT).read_bytes() == before


def test_a_training_that_diverges_keeps_its_last_good_weights(
    config: Path, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pifr.training import trainer
    from pifr.training.modules import SegmentationTraining

    weights = run("segmentation", config, shards, tmp_path / "out", 3)
    good = weights.read_bytes(), (tmp_path / "out" / trainer.CHECKPOINT).read_bytes()
    usual = SegmentationTraining.training_step
    monkeypatch.setattr(SegmentationTraining, "training_step", lambda *step: usual(*step) * torch.nan)
    with pytest.raises(CheckpointError, match=r"diverged: after 6 steps .* lower learning_rate"):
        run("segmentation", config, shards, tmp_path / "out", 6, resume=True)
    assert (weights.read_bytes(), (tmp_path / "out" / trainer.CHECKPOINT).read_bytes()) == good


def test_several_processes_are_refused(
    config: Path, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="by one process on one device"):
        run("segmentation", config, shards, tmp_path / "out", 3)


def test_weights_say_how_they_were_trained(config: Path, shards: Path, tmp_path: Path) -> None:
    first = run("shape-coarse", config, shards, tmp_path / "first", 1)
    second = run("shape-coarse", config, shards, tmp_path / "second", 1, init_from=first)
    metadata = read_metadata(second)
    task = load_training_config(config).task("shape-coarse")
    assert type(task).model_validate_json(metadata["task"]) == task
    assert metadata["init_from_sha256"] == file_sha256(first)
    assert "init_from_sha256" not in read_metadata(first)
    assert ("C-Net weights" in metadata) == task.network.corrects_fit


def test_a_network_that_sees_segmented_faces_learns_with_predicted_masks(
    config: Path, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pifr.networks.pncc import PnccNetwork

    content = yaml.safe_load(config.read_text())
    content["pncc"]["network"] |= {"segmented_input": True}
    config.write_text(yaml.safe_dump(content))
    seen: list[tuple[bool, torch.Tensor]] = []
    usual = PnccNetwork.forward

    def forward(network: PnccNetwork, pixels: torch.Tensor, mask: torch.Tensor) -> object:
        seen.append((network.training, mask))
        return usual(network, pixels, mask)

    monkeypatch.setattr(PnccNetwork, "forward", forward)
    run("pncc", config, shards, tmp_path / "out", 2)
    soft = {training: [((mask > 0) & (mask < 1)).any().item() for when, mask in seen if when == training]
            for training in (True, False)}  # fmt: skip
    assert all(soft[True])
    assert not any(soft[False])


def test_a_training_is_not_begun_over_another(config: Path, shards: Path, tmp_path: Path) -> None:
    weights = run("segmentation", config, shards, tmp_path, 1)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(ConfigError, match="--resume goes on with it"):
        run("segmentation", config, shards, tmp_path, 2)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    run("segmentation", config, shards, tmp_path, 2, resume=True)
    assert read_metadata(weights)["steps"] == "2"


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


def test_the_paper_configuration_is_the_papers() -> None:
    paper = load_training_config(CONFIGS / "paper.yaml")
    inpainting, fine = paper.inpainting, paper.shape_fine
    weights = (inpainting.perceptual_weight, inpainting.discriminator_weight, inpainting.generator_weight)
    assert (*weights, inpainting.penalty_weight) == (0.1, 0.1, 0.2, 1.0)  # Eq. (8)
    assert (fine.shading_weight, fine.penalty_weight) == (100.0, 1.0)
    assert inpainting.adversarial
    assert inpainting.perceptual
    assert inpainting.penalty_every == 1
    assert inpainting.identity is None
    assert paper.pncc.network.segmented_input
    assert paper.shape_coarse.network.segmented_input
    assert not paper.pncc.masked_loss
    assert not paper.pncc.network.predicts_mask
    assert not paper.shape_coarse.network.corrects_fit


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


def test_a_checkpoint_of_another_training_is_refused(config: Path, shards: Path, tmp_path: Path) -> None:
    from pifr.training.trainer import CHECKPOINT

    run("segmentation", config, shards, tmp_path, 1)
    content = yaml.safe_load(config.read_text())
    content["segmentation"]["optimisation"] |= {"seed": 5, "batch_size": 2}
    config.write_text(yaml.safe_dump(content))
    with pytest.raises(CheckpointError, match="another batch size, seed"):
        run("segmentation", config, shards, tmp_path, 2, resume=True)
    for damaged in (b"no checkpoint", b""):
        (tmp_path / CHECKPOINT).write_bytes(damaged)
        with pytest.raises(CheckpointError, match="no checkpoint of pifr"):
            run("segmentation", config, shards, tmp_path, 2, resume=True)


def test_nobody_is_validated_on_photos_of_the_training(config: Path, shards: Path, tmp_path: Path) -> None:
    from pifr.training.modules import Schedule
    from pifr.training.trainer import Run, _setup

    def photos(batches: object) -> set[str]:
        samples = batches._make._shards
        return set(samples.rows["photo"])

    for name in ("pncc", "inpainting"):
        task = load_training_config(config).task(name)
        plain = Run(name, config, shards, tmp_path)
        _, training, validation, _ = _setup(task, plain, Schedule(0, steps=1), None, None)
        assert photos(training)
        assert photos(validation)
        assert not photos(training) & photos(validation)
        _, _, other, _ = _setup(task, replace(plain, validation=shards), Schedule(0, steps=1), None, None)
        assert photos(other) == photos(training) | photos(validation)


@pytest.mark.parametrize("name", ["pncc", "inpainting", "shape-coarse", "shape-fine"])
def test_only_networks_run_in_bfloat16(name: str, config: Path, shards: Path, tmp_path: Path) -> None:
    content = yaml.safe_load(config.read_text())
    metrics = {}
    for precision in ("float32", "bfloat16"):
        content[name]["optimisation"]["precision"] = precision
        config.write_text(yaml.safe_dump(content))
        weights = run(name, config, shards, tmp_path / precision, 1)
        metrics[precision] = json.loads(read_metadata(weights)["metrics"])
    independent = {"inpainting": ("mirrored", "mean_face"), "shape-coarse": ("aligned_mean_face",),
                   "shape-fine": ("objective_without",), "pncc": ()}[name]  # fmt: skip
    for figure in independent:
        assert metrics["bfloat16"][figure] == metrics["float32"][figure]
    for figure, value in metrics["float32"].items():
        assert metrics["bfloat16"][figure] == pytest.approx(value, rel=0.1, abs=0.02)


def test_inet_minimises_what_eq_8_adds_up(
    config: Path, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pifr.training.modules import InpaintingTraining

    content = yaml.safe_load(config.read_text())
    content["inpainting"] |= {"adversarial": True, "generator_weight": 0.7, "discriminator_weight": 0.3,
                              "penalty_weight": 2.0, "penalty_every": 2}  # fmt: skip
    config.write_text(yaml.safe_dump(content))
    steps: list[dict[str, torch.Tensor]] = []
    descended: list[torch.Tensor] = []
    original = InpaintingTraining._descend

    def descend(module: InpaintingTraining, optimizer: object, loss: torch.Tensor) -> None:
        descended.append(loss.detach().clone())
        original(module, optimizer, loss)

    judged: list[tuple[torch.Tensor, torch.Tensor]] = []
    penalised: list[torch.Tensor] = []
    batches: list[torch.Tensor] = []

    def discriminator_loss(real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
        judged.append((real.detach(), fake.detach()))
        return losses_of_discriminator(real, fake)

    def generator_loss(logits: torch.Tensor) -> torch.Tensor:
        assert logits.requires_grad  # or the adversary would teach I-Net nothing
        return losses_of_generator(logits)

    def gradient_penalty(discriminator: object, real: torch.Tensor) -> torch.Tensor:
        penalised.append(real.detach())
        return penalty_of_gradient(discriminator, real)

    losses_of_discriminator, losses_of_generator = losses.discriminator_loss, losses.generator_loss
    penalty_of_gradient, original_step = losses.gradient_penalty, InpaintingTraining.training_step

    def training_step(module: InpaintingTraining, batch: dict[str, torch.Tensor], batch_idx: int) -> None:
        batches.append(batch["texture"].detach())
        with torch.no_grad():
            real = module.discriminator(batch["texture"])
        original_step(module, batch, batch_idx)
        # It is judged before its own step: the first logits are those of the true textures.
        torch.testing.assert_close(judged[-1][0].float(), real.float(), atol=0.05, rtol=0.05)

    monkeypatch.setattr(InpaintingTraining, "_descend", descend)
    monkeypatch.setattr(InpaintingTraining, "training_step", training_step)
    monkeypatch.setattr(InpaintingTraining, "log_losses", lambda module, **values: steps.append(values))
    for name, function in (("discriminator_loss", discriminator_loss), ("generator_loss", generator_loss),
                           ("gradient_penalty", gradient_penalty)):  # fmt: skip
        monkeypatch.setattr(losses, name, function)
    run("inpainting", config, shards, tmp_path, 2)
    torch.testing.assert_close(penalised[0], batches[0])  # Eq. (7) is about true textures
    assert not any(torch.equal(real, fake) for real, fake in judged)
    for step, (generator, discriminator) in zip(steps, zip(descended[::2], descended[1::2], strict=True), strict=True):
        torch.testing.assert_close(generator, step["reconstruction"].detach() + 0.7 * step["generator"].detach())
        penalty = 2.0 * 2 * step["penalty"].detach() if "penalty" in step else 0.0
        torch.testing.assert_close(discriminator, 0.3 * step["discriminator"].detach() + penalty)
    assert ["penalty" in step for step in steps] == [True, False]


def test_what_the_blend_keeps_of_the_photo_counts_for_a_quarter() -> None:
    from pifr.training.modules import _pixel_weight

    seen, trust = torch.ones(1, 1, 64, 64), torch.ones(1, 1, 64, 64)
    seen[..., 32:] = 0
    trust[..., :8, :] = 0
    weight = _pixel_weight({"visibility": seen, "trust": trust})[0, 0]
    assert weight[40, 10] == 0.25  # deep in what was seen
    assert weight[40, 30] == 1  # seen, but near the edge, where stains are washed off
    assert weight[40, 50] == 1
    assert weight[2, 50] == 0.25  # filled in by the registration, and no truth


def test_a_fine_bump_is_seen_from_the_side_of_the_light() -> None:
    """The displaced surface is lit as the camera sees it: z grows towards the camera."""
    from pifr.geometry import warp
    from pifr.networks.config import FineShapeConfig
    from pifr.training.config import FineShapeTask, Optimisation
    from pifr.training.modules import FineShapeTraining, Schedule

    size = 32
    x, y = warp.pixel_grid(size, size)
    # On a dome, for a plane does not tell where light comes from.
    position = torch.stack([4 * x, -4 * y, (100**2 - (4 * x - 62) ** 2 - (4 * y - 62) ** 2).sqrt()])[None]
    bump = 2 * torch.exp(-((x - 16) ** 2 + (y - 16) ** 2) / 6)[None, None]
    displaced = torch.cat([position[:, :2], position[:, 2:] + bump], 1)
    side = (surface_normals(displaced) * torch.tensor([0.6, 0.0, 0.8]).view(3, 1, 1)).sum(1, keepdim=True)
    texture = (0.5 * side.clamp_min(0)).expand(-1, 3, -1, -1)
    batch = {"texture": texture, "position": position, "trust": torch.ones(1, 1, size, size)}
    module = FineShapeTraining(
        torch.nn.Identity(), FineShapeTask(network=FineShapeConfig(), optimisation=Optimisation()), Schedule(0, steps=1)
    )
    errors = {}
    for sign in (-1, 0, 1):
        _, reflected, _, weight = module._terms(lambda texture, sign=sign: sign * bump, batch)
        errors[sign] = losses.shading_loss(reflected, texture, weight).item()
    assert errors[1] < errors[0]
    assert errors[1] < errors[-1]


def test_biases_and_norms_do_not_decay_and_gradients_are_clipped(config: Path) -> None:
    from pifr.networks.weights import build_network
    from pifr.training.modules import Schedule, SegmentationTraining

    task = load_training_config(config).task("segmentation")
    module = SegmentationTraining(build_network(task.network), task, Schedule(0, steps=1))
    optimizer = module.configure_optimizers()
    decayed, plain = optimizer.param_groups
    assert decayed["weight_decay"] > 0 == plain["weight_decay"]
    assert all(parameter.ndim > 1 for parameter in decayed["params"])
    assert any(parameter.ndim == 1 for parameter in plain["params"])
    for parameter in module.network.parameters():
        parameter.grad = torch.full_like(parameter, 10.0)
    module.on_before_optimizer_step(optimizer)
    total = torch.stack([parameter.grad.norm() for parameter in module.network.parameters()]).norm()
    assert total.item() == pytest.approx(task.optimisation.gradient_clip, rel=1e-3)


def test_modules_can_be_imported_alone() -> None:
    subprocess.run([sys.executable, "-c", "import pifr.training.modules"], check=True, timeout=120)
