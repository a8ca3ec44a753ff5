"""Benchmarks and the demo, reached as users reach them."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

Pifr = Callable[..., tuple[int, str, str]]


def test_scoring_reports_bounded_memory(pifr: Pifr, tmp_path: Path) -> None:
    file = tmp_path / "new" / "scoring.json"
    sizes = ("--probes", 3000, "--references", 3000, "--size", 16, "--repeats", 1)
    code, output, _ = pifr("bench", "scoring", *sizes, "--json", file)
    assert code == 0
    assert "million comparisons a second" in output
    record = json.loads(file.read_text(encoding="utf-8"))
    smallest = record["results"][0]
    assert smallest["block"] == "256 x 1024"
    assert smallest["peak MB"] < record["all_scores_at_once_MB"] / 3
    assert record["machine"]["cores"] >= 1


def test_recognizers_are_compared_at_equal_batch_size(pifr: Pifr, tmp_path: Path) -> None:
    file = tmp_path / "r.json"
    names = ("--recognizer", "small", "--recognizer", "bgr")
    code, _, _ = pifr("bench", "recognizers", *names, "--batch-size", 2, "--repeats", 1, "--json", file)
    assert code == 0
    rows = json.loads(file.read_text(encoding="utf-8"))["results"]
    assert [(row["recognizer"], row["batch"]) for row in rows] == [("small", 2), ("bgr", 2)]
    assert rows[0]["ratio"] == 1.0


def test_harness_overhead_stands_beside_its_budget(pifr: Pifr, tmp_path: Path) -> None:
    file = tmp_path / "h.json"
    sizes = ("--images", 5, "--batch-size", 2, "--repeats", 1)
    code, _, _ = pifr("bench", "harness", "--recognizer", "small", *sizes, "--json", file)
    assert code == 0
    record = json.loads(file.read_text(encoding="utf-8"))
    assert record["budget"] == 0.15
    bare, harness = record["results"]
    assert record["overhead"] == pytest.approx(harness["seconds"] / bare["seconds"] - 1)
    assert sum(record["share_of_stages"].values()) == pytest.approx(1)
    assert "embed:small" in record["share_of_stages"]


def test_demo_draws_evaluates_and_is_labelled_synthetic(
    pifr: Pifr, cfp_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import protocols.synthetic
    from pifr import __version__

    drawn = []

    def write_cfp(out: Path, subjects: int, seed: int, **_: object) -> None:
        drawn.append((subjects, seed))
        cfp_root.rename(out)
        record = {"name": "synthetic-cfp", "synthetic": True, "subjects": subjects, "seed": seed}
        (out / "dataset.json").write_text(json.dumps(record | {"pifr_version": __version__}), encoding="utf-8")

    monkeypatch.setattr(protocols.synthetic, "write_cfp", write_cfp)
    monkeypatch.setenv("PIFR_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("pifr.cli.demo.DETECTOR", f"file:{tmp_path / 'demo' / 'synthetic-cfp' / 'landmarks.csv'}")
    (tmp_path / "demo").mkdir()
    for _ in range(2):
        options = ("--subjects", 8, "--recognizer", "small", "--frontalizer", "none", "--frontalizer", "mirror")
        code, output, errors = pifr("demo", "--out", tmp_path / "demo", *options)
        assert code == 0, errors
        assert "SYNTHETIC cfp FP" in output
        assert "synthetic" in (tmp_path / "demo" / "report.html").read_text(encoding="utf-8").lower()
    assert drawn == [(8, 1)]  # the second time they are there
    code, _, errors = pifr("demo", "--out", tmp_path / "demo", "--subjects", 9)
    assert code == 1
    assert "holds other people" in errors
    code, _, errors = pifr("demo", "--out", tmp_path / "other", "--recognizer", "small", "--frontalizer", "mirorr")
    assert code == 1
    assert "Did you mean 'mirror'" in errors
    assert len(drawn) == 1  # nobody was drawn for it
