"""`pifr train`: what it offers, and how it fails."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from feature_extractors import ModuleRecognizer, RecognizerConfig
from pifr import zoo
from pifr.cli.train import app, texture_critics
from pifr.errors import CheckpointError, ConfigError, DataError, MissingExtraError
from pifr.geometry.alignment import ARCFACE_112
from pifr.networks.weights import build_network, save_network
from pifr.training.config import IdentityConfig, PerceptualConfig, load_training_config
from pifr.training.identity import TextureCritics


def test_every_step_of_the_road_is_a_command() -> None:
    text = CliRunner().invoke(app, ["--help"]).output
    for name in ("register", "render", "segmentation", "pncc", "inpainting", "shape-coarse", "shape-fine", "all"):
        assert name in text


def test_registering_ends_with_what_became_of_the_photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def register(photos: Path, out: Path, **_: object) -> Iterator[tuple[int, int]]:
        pd.DataFrame({"status": ["ok", "rejected"], "reason": ["", "no_face"]}).to_parquet(out / "registration.parquet")
        yield 2, 2

    monkeypatch.setattr("pifr.training.registration.register", register)
    monkeypatch.setattr("pifr.training.contact_sheet.write_contact_sheet", lambda *_: None)
    result = CliRunner().invoke(app, ["register", "photos", str(tmp_path)], catch_exceptions=False)
    assert result.stdout.splitlines()[-1] == "1 of 2 photos, rejected: no_face 1"


def test_missing_shards_and_configurations_are_named(tmp_path: Path) -> None:
    arguments = ["segmentation", "--data", str(tmp_path), "--out", str(tmp_path / "out")]
    with pytest.raises(DataError, match="pifr train render"):
        CliRunner().invoke(app, arguments, catch_exceptions=False)
    with pytest.raises(ConfigError, match=r"none\.yaml"):
        CliRunner().invoke(app, [*arguments, "--config", str(tmp_path / "none.yaml")], catch_exceptions=False)


def test_training_all_looks_for_used_folders_before_it_begins(tmp_path: Path) -> None:
    (tmp_path / "pncc").mkdir()
    (tmp_path / "pncc" / "last.ckpt").touch()
    with pytest.raises(ConfigError, match="pncc' holds a training"):
        CliRunner().invoke(app, ["all", "--data", "none", "--out", str(tmp_path)], catch_exceptions=False)


@pytest.fixture
def packaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where networks are packaged in place of the package."""
    folder = tmp_path / "assets"
    folder.mkdir()
    monkeypatch.setattr(zoo, "ASSETS", folder)
    return folder


def trained(folder: Path, name: str, network: str) -> Path:
    lite = load_training_config("lite")
    config = lite.task(network).network
    small = {"unet": config.unet.model_copy(update={"widths": (8,) * len(config.unet.widths)})}
    save_network(build_network(config.model_copy(update=small)), folder / name / "weights.safetensors", {})
    return folder


def test_weights_are_packaged_with_the_licence_and_origin_that_are_given(tmp_path: Path, packaged: Path) -> None:
    command = ["package", str(trained(tmp_path / "weights", "segmentation", "segmentation"))]
    assert CliRunner().invoke(app, command).exit_code == 2  # nobody but the user knows them
    command += ["--licence", "CC-BY-4.0", "--origin", "photos of my own"]
    assert CliRunner().invoke(app, [*command, "--configuration", "mine"]).exit_code == 2
    CliRunner().invoke(app, command, catch_exceptions=False)
    entry = zoo.packaged_weights()["lite-segmentation"]
    assert (entry["licence"], entry["origin"]) == ("CC-BY-4.0", "pifr train segmentation on photos of my own")


def test_a_network_in_the_folder_of_another_is_not_packaged(tmp_path: Path, packaged: Path) -> None:
    folder = trained(tmp_path / "weights", "pncc", "segmentation")
    trained(folder, "segmentation", "segmentation")
    command = ["package", str(folder), "--licence", "MIT", "--origin", "a test"]
    with pytest.raises(CheckpointError, match="holds the network 'segmentation'"):
        CliRunner().invoke(app, command, catch_exceptions=False)
    assert not list(packaged.iterdir())


def critics_of(**changes: object) -> TextureCritics:
    task = load_training_config("lite").inpainting.model_copy(update={"identity": None, "perceptual": None} | changes)
    return texture_critics(task)


def test_recognizers_that_inet_is_trained_against_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.LazyLinear(3))
    config = RecognizerConfig(
        name="small", input_size=16, alignment=ARCFACE_112, embedding_size=3, licence="MIT", origin="this test"
    )
    network(torch.zeros(1, 3, 16, 16))
    monkeypatch.setattr("feature_extractors.load_recognizer", lambda name: ModuleRecognizer(network, config, name))
    for changes in (
        {"identity": IdentityConfig(recognizer="small", judge="small")},
        {"perceptual": PerceptualConfig(recognizer="small", layer="1")},
    ):
        network.requires_grad_(True)
        critics = critics_of(**changes)
        textures = torch.rand(1, 3, 32, 32, requires_grad=True)
        (critics.identity or critics.features)(textures).sum().backward()
        assert textures.grad.abs().sum() > 0
        assert all(parameter.grad is None for parameter in network.parameters())
    with pytest.raises(ConfigError, match="no layer '9'"):
        critics_of(perceptual=PerceptualConfig(recognizer="small", layer="9"))


def test_keeping_the_person_needs_a_torch_network_of_images(monkeypatch: pytest.MonkeyPatch) -> None:
    class Onnx:
        config = RecognizerConfig(
            name="flat", input_size=16, alignment=ARCFACE_112, embedding_size=3, licence="MIT", origin="this test"
        )

    monkeypatch.setattr("feature_extractors.load_recognizer", lambda name: Onnx())
    with pytest.raises(ConfigError, match="which flat is not"):
        critics_of(identity=IdentityConfig(recognizer="flat"))


@pytest.mark.parametrize("command", ["all", "pncc"])
def test_without_the_packages_that_train_the_command_says_what_to_install(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "lightning", None)
    arguments = [command, "--data", str(tmp_path), "--out", str(tmp_path / "out")]
    with pytest.raises(MissingExtraError, match=r"training needs the package 'lightning': pip install '\.\[train\]'"):
        CliRunner().invoke(app, arguments, catch_exceptions=False)
