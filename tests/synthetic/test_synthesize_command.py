"""`pifr synthesize` and the evaluate commands of the three protocols, as a user types them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pifr.cli.main import main

from ..black_faces import black_faces


def _run(*arguments: str) -> None:
    with pytest.raises(SystemExit) as end:
        main(list(arguments))
    assert not end.value.code


def test_shape_is_synthesized_and_evaluated(tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch) -> None:
    monkeypatch.setattr("pifr.faces.FaceFinder", _NoFinder)
    tree, run = tmp_path / "tree", tmp_path / "run"
    _run("synthesize", "shape", "--subjects", "1", "--frames", "1", "--workers", "1", "--out", str(tree))
    _run("evaluate", "shape", "--data", str(tree), "--predictor", "mean", "--out", str(run))
    shown = capsys.readouterr().out
    assert shown.startswith("synthetic people: ")
    assert (run / "shape.parquet").is_file()
    record = json.loads((run / "run.json").read_text())
    assert record["dataset"]["counts"] == {"subjects": 1, "images": 1}
    assert record["versions"]["torch"]


class _NoFinder:
    """Every picture has a face; the mean face does not look at it."""

    fingerprint = "none"

    def __init__(self, detector: str) -> None: ...

    def __call__(self, images: list[bytes]):
        return black_faces(len(images))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("evaluate", "multipie", "--data", "{}", "--out", "{}/run"), "give the folder that holds session01"),
        (("evaluate", "multipie", "--data", "{}", "--out", "{}/run", "--poses", "50"), "poses is 50; allowed: 15, 30"),
        (("evaluate", "shape", "--data", "{}", "--out", "{}/run"), "no <subject>/<scan>.ply or .obj"),
        (("evaluate", "landmarks", "--data", "{}", "--out", "{}/run"), "no fiducials"),
        (("synthesize", "multipie", "--out", "{}/tree", "--poses", "50"), "no camera at |yaw| 50"),
    ],
)
def test_wrong_data_ends_with_one_line_that_says_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture, arguments: tuple[str, ...], message: str
) -> None:
    with pytest.raises(SystemExit) as end:
        main([argument.format(tmp_path) for argument in arguments])
    assert end.value.code == 1
    assert message in capsys.readouterr().err
