"""`pifr train`: what it offers, and how it fails."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from feature_extractors import RecognizerConfig
from pifr.alignment import ARCFACE_112
from pifr.cli import train
from pifr.cli.train import app
from pifr.errors import ConfigError, DataError
from pifr.training.config import IdentityConfig, load_training_config


def test_every_step_of_the_road_is_a_command() -> None:
    text = CliRunner().invoke(app, ["--help"]).output
    for name in ("register", "render", "segmentation", "pncc", "inpainting", "shape-coarse", "shape-fine", "all"):
        assert name in text


def test_missing_shards_and_configurations_are_named(tmp_path: Path) -> None:
    arguments = ["segmentation", "--data", str(tmp_path), "--out", str(tmp_path / "out")]
    lite = Path(__file__).parents[2] / "configs" / "train" / "lite.yaml"
    with pytest.raises(DataError, match="pifr train render"):
        CliRunner().invoke(app, [*arguments, "--config", str(lite)], catch_exceptions=False)
    with pytest.raises(ConfigError, match=r"none\.yaml"):
        CliRunner().invoke(app, [*arguments, "--config", str(tmp_path / "none.yaml")], catch_exceptions=False)


def test_keeping_the_person_needs_a_torch_network_of_images(monkeypatch: pytest.MonkeyPatch) -> None:
    class Onnx:
        config = RecognizerConfig(
            name="flat", input_size=16, alignment=ARCFACE_112, embedding_size=3, licence="MIT", origin="this test"
        )

    monkeypatch.setattr("feature_extractors.load_recognizer", lambda name: Onnx())
    lite = load_training_config(Path(__file__).parents[2] / "configs" / "train" / "lite.yaml")
    task = lite.inpainting.model_copy(update={"identity": IdentityConfig(recognizer="flat"), "perceptual": None})
    with pytest.raises(ConfigError, match="flat is none"):
        train._critics(task)
