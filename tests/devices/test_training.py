"""Networks learn on another device what they learn on the CPU, by `pifr train`'s own road."""

import json
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from feature_extractors.base import ModuleRecognizer, RecognizerConfig
from pifr.geometry.alignment import ARCFACE_112
from pifr.geometry.correspondence import Correspondence
from pifr.networks.weights import load_network, read_metadata

from ..training.conftest import NAMES, config, shards
from .conftest import small_network

__all__ = ["config", "shards"]

pytestmark = pytest.mark.usefixtures("without_loops")


@pytest.fixture
def trainers(
    device: torch.device, made_correspondence: Correspondence, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], None]:
    """Sets where trainers run, "here" or "elsewhere"."""
    from pifr.training import trainer  # before lightning, which it lets be imported

    L = trainer.L
    from lightning.pytorch.accelerators import CPUAccelerator
    from lightning.pytorch.strategies import SingleDeviceStrategy

    class Accelerator(CPUAccelerator):
        def setup_device(self, device: torch.device) -> None:
            pass

    class Watcher(L.Callback):
        def on_train_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
            assert {tensor.device.type for tensor in module.state_dict().values()} == {device.type}

    def here(**options: Any) -> L.Trainer:
        return made(**options | {"accelerator": "cpu"})

    def elsewhere(**options: Any) -> L.Trainer:
        options["callbacks"] = [*options["callbacks"], Watcher()]
        return made(**options | {"strategy": SingleDeviceStrategy(device, Accelerator())})

    monkeypatch.setattr("pifr.training.modules.Correspondence", lambda: deepcopy(made_correspondence))
    made = L.Trainer
    return lambda place: monkeypatch.setattr(L, "Trainer", elsewhere if place == "elsewhere" else here)


def small_recognizer(name: str, *_: object) -> ModuleRecognizer:
    config = RecognizerConfig(
        name=name, input_size=32, alignment=ARCFACE_112, embedding_size=72, licence="none", origin="made here"
    )
    return ModuleRecognizer(small_network(), config, name)


@pytest.mark.parametrize("name", NAMES)
def test_a_network_learns_the_same(
    name: str,
    config: Path,
    shards: Path,
    tmp_path: Path,
    trainers: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from pifr.cli.train import texture_critics
    from pifr.training.config import load_training_config
    from pifr.training.trainer import Run, train

    content = yaml.safe_load(config.read_text())
    recognizers = {
        "perceptual": {"recognizer": "small", "layer": "1"},
        "identity": {"recognizer": "small", "judge": "small"},
    }
    content["inpainting"] |= recognizers | {"adversarial": True}
    for task in NAMES:
        content[task]["optimisation"]["precision"] = "float32"
    config.write_text(yaml.safe_dump(content))
    monkeypatch.setattr("feature_extractors.load_recognizer", small_recognizer, raising=False)
    written = {}
    for place in ("elsewhere", "here"):
        trainers(place)
        critics = texture_critics(load_training_config(config).inpainting) if name == "inpainting" else None
        written[place] = train(Run(name, config, shards, tmp_path / place, max_steps=1, threads=1), critics)
    metrics = {place: json.loads(read_metadata(file)["metrics"]) for place, file in written.items()}
    assert metrics["elsewhere"] == pytest.approx(metrics["here"], rel=1e-3)
    learned, expected = (load_network(written[place]).state_dict() for place in ("elsewhere", "here"))
    assert learned.keys() == expected.keys()
    alike = [torch.isclose(learned[key], expected[key], rtol=1e-3, atol=1e-4).flatten() for key in expected]
    # Adam's first step has one length whatever the gradient's: where that is zero up to rounding, either way is right.
    assert torch.cat(alike).float().mean() > 0.999
