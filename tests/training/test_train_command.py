"""`pifr train`: what it offers, and how it fails."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from pifr.cli.train import app
from pifr.errors import ConfigError, DataError


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
