"""`pifr evaluate`, `pifr compare` and `pifr demo` from the outside."""

import io
import json
import pickle
import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from pifr.cli.compare import parse_baseline

Pifr = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(pifr: Pifr, cfp_root: Path, tmp_path: Path) -> Path:
    """A run of two recognizers and two frontalizers."""
    out = tmp_path / "runs" / "first"
    code, output, _ = pifr(
        *("evaluate", "cfp", "--data", cfp_root, "--out", out, "--store", tmp_path / "store.sqlite"),
        *("--recognizer", "small", "--recognizer", "bgr", "--frontalizer", "none", "--frontalizer", "mirror"),
        *("--detector", f"file:{cfp_root / 'landmarks.csv'}", "--batch-size", 7),
    )
    assert code == 0, output
    return out


def rewrite(run: Path, scores: pd.DataFrame) -> None:
    """Other scores under a run's record."""
    scores.to_parquet(run / "scores.parquet")
    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    del record["table"]
    (run / "run.json").write_text(json.dumps(record), encoding="utf-8")


def test_a_run_has_every_system_and_setting(run: Path) -> None:
    scores = pd.read_parquet(run / "scores.parquet")
    systems = scores[["setting", "recognizer", "frontalizer"]].drop_duplicates()
    assert len(systems) == 2 * 2 * 2
    assert sorted(file.name for file in run.iterdir()) == ["run.json", "scores.parquet"]


def test_record_says_how_the_scores_came_about(run: Path, cfp_root: Path) -> None:
    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    assert record["protocol"] == "cfp"
    assert record["dataset"] == {
        "name": "tiny",
        "synthetic": True,
        "root": str(cfp_root.resolve()),
        "counts": {"images": 36},
    }
    assert record["views"] == {"none": 1, "mirror": 2}
    assert record["counts"] == {"images": 36, "failures": {}, "fallbacks": 0}
    assert record["configuration"]["recognizers"] == ["small", "bgr"]
    assert record["configuration"]["batch_size"] == 7
    assert set(record["weights"]) == {"small", "bgr", "none", "mirror"}
    assert set(record["versions"]) >= {"python", "torch", "numpy"}
    assert record["timings"]["embed:small"] > 0


def test_the_same_command_again_gives_the_same_bytes_of_scores(
    run: Path, pifr: Pifr, cfp_root: Path, tmp_path: Path
) -> None:
    again = tmp_path / "again"
    pifr(
        *("evaluate", "cfp", "--data", cfp_root, "--out", again, "--store", tmp_path / "store.sqlite"),
        *("--recognizer", "small", "--recognizer", "bgr", "--frontalizer", "none", "--frontalizer", "mirror"),
        *("--detector", f"file:{cfp_root / 'landmarks.csv'}", "--batch-size", 7),
    )
    assert (again / "scores.parquet").read_bytes() == (run / "scores.parquet").read_bytes()


def test_csv_and_configuration_file(pifr: Pifr, cfp_root: Path, tmp_path: Path) -> None:
    config = tmp_path / "experiment.yaml"
    config.write_text(
        f"data: {cfp_root}\nout: {tmp_path / 'unused'}\nrecognizers: [small]\nfrontalizers: [none]\n"
        f"settings: [FP]\ndetector: file:{cfp_root / 'landmarks.csv'}\nstore: {tmp_path / 's.sqlite'}\n",
        encoding="utf-8",
    )
    code, _, _ = pifr("evaluate", "cfp", "--config", config, "--out", tmp_path / "run", "--csv")
    assert code == 0
    scores = pd.read_csv(tmp_path / "run" / "scores.csv", keep_default_na=False)
    assert scores["setting"].unique().tolist() == ["FP"]
    assert not (tmp_path / "unused").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--recognizer", "smal"), "Did you mean 'small'?"),
        (("--frontalizer", "mirrors"), "Did you mean 'mirror'?"),
        (("--setting", "PF"), "Did you mean 'FP' or 'FF'?"),
        (("--fusion", "max"), "'fusions.0'"),
        (("--batch-size", "0"), "'batch_size'"),
        (("--detector", "yunets"), "Did you mean 'yunet' or 'yunet-close'?"),
    ],
)
def test_a_wrong_name_ends_with_one_line_and_status_1(
    pifr: Pifr, cfp_root: Path, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    code, output, error = pifr(
        *("evaluate", "cfp", "--data", cfp_root, "--out", tmp_path / "run", "--recognizer", "small"),
        *("--store", tmp_path / "s.sqlite", *arguments),
    )
    assert (code, output) == (1, "")
    assert message in error
    assert not (tmp_path / "run").exists()


def test_a_wrong_fusion_is_complained_of_once(pifr: Pifr, tmp_path: Path) -> None:
    _, _, error = pifr("evaluate", "cfp", "--data", tmp_path, "--out", tmp_path / "run", "--fusion", "avg")
    assert error.count("'fusions") == 1


def test_a_stopped_evaluation_says_that_the_same_command_goes_on(
    pifr: Pifr, cfp_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("protocols.runner.extract", stop)
    code, output, error = pifr(
        *("evaluate", "cfp", "--data", cfp_root, "--out", tmp_path / "run", "--recognizer", "small"),
        *("--store", tmp_path / "s.sqlite"),
    )
    assert (code, output) == (130, "")
    assert error == "pifr: stopped; the same command goes on where this one was\n"


def test_broken_data_are_listed_before_any_work(pifr: Pifr, cfp_root: Path, tmp_path: Path) -> None:
    (cfp_root / "Protocol" / "Pair_list_P.txt").unlink()
    code, _, error = pifr(
        "evaluate", "cfp", "--data", cfp_root, "--out", tmp_path / "run", "--store", tmp_path / "s.sqlite"
    )
    assert code == 1
    assert "Pair_list_P.txt: No such file" in error


def test_usage_errors_end_with_status_2(pifr: Pifr) -> None:
    assert pifr("evaluate", "cpf")[0] == 2
    assert pifr("evaluate", "cfp", "--no-such-option")[0] == 2


def test_pairs_of_a_list_run_through_the_same_runner(pifr: Pifr, cfp_root: Path, tmp_path: Path) -> None:
    images = cfp_root / "Data" / "Images"
    lines = [
        f"{a:03d}/frontal/01.png {b:03d}/frontal/02.png {int(a == b)}" for a in range(1, 9) for b in (a, a % 8 + 1)
    ]
    (tmp_path / "list.txt").write_text("\n".join(lines), encoding="utf-8")
    code, output, _ = pifr(
        *("evaluate", "pairs", "--data", tmp_path / "list.txt", "--images", images, "--out", tmp_path / "run"),
        *("--recognizer", "small", "--store", tmp_path / "s.sqlite"),
        *("--detector", f"file:{cfp_root / 'landmarks.csv'}"),
    )
    assert code == 0
    assert "list all" in output


@pytest.mark.parametrize("given", [None, "file"])
def test_aligned_crops_need_no_detector_unless_one_is_named(
    pifr: Pifr, cfp_root: Path, tmp_path: Path, given: str | None
) -> None:
    images = [path.read_bytes() for path in sorted((cfp_root / "Data" / "Images").glob("*/frontal/0[12].png"))]
    (tmp_path / "tiny.bin").write_bytes(pickle.dumps((images, [True] * 8)))
    detector = () if given is None else ("--detector", f"file:{cfp_root / 'landmarks.csv'}")
    code, _, error = pifr(
        *("evaluate", "pairs", "--data", tmp_path / "tiny.bin", "--out", tmp_path / "run", "--recognizer", "small"),
        *("--frontalizer", "none", "--store", tmp_path / "s.sqlite", *detector),
    )
    assert code == 0, error
    record = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))
    assert record["configuration"]["detector"] == (detector[1] if detector else "aligned")
    # The landmark file knows files, and a .bin has none.
    assert record["counts"]["failures"] == ({"no_landmarks": 16} if detector else {})


class TestCompare:
    def test_table_names_rule_interval_baseline_and_passes(self, pifr: Pifr, run: Path) -> None:
        code, output, _ = pifr("compare", run, "--replicates", 100)
        assert code == 0
        output = " ".join(output.split())  # captions are as wide as their table
        for text in (
            "linearly interpolated ROC of each fold",
            "95 % interval",
            "small / none / weighted",
            "SYNTHETIC tiny FP",
        ):
            assert text in output
        assert "insufficient data" in output  # 16 impostors cannot show an FMR of 0.1 %
        assert output.count("mirror") == 4

    def test_a_confidence_between_whole_per_cents_is_printed_as_it_is(self, pifr: Pifr, run: Path) -> None:
        _, output, _ = pifr("compare", run, "--confidence", 0.975, "--replicates", 100)
        assert "97.5 % interval" in output

    def test_a_single_fold_is_one(self, pifr: Pifr, run: Path) -> None:
        scores = pd.read_parquet(run / "scores.parquet")
        rewrite(run, scores[scores["fold"] == 1])
        assert "1 fold, " in pifr("compare", run, "--replicates", 100)[1]

    def test_labels_of_tables_are_each_there_once(self, pifr: Pifr, run: Path) -> None:
        scores = pd.read_parquet(run / "scores.parquet")
        for number in (1, 2):
            folder = run.parent / f"part-{number}"
            folder.mkdir()
            scores[scores["fold"] <= number].to_parquet(folder / "scores.parquet")
        parts = (run.parent / "part-1", run.parent / "part-2")
        _, output, _ = pifr("compare", *parts, "--format", "latex", "--replicates", 100)
        labels = re.findall(r"\\label\{.*\}", output)
        assert len(labels) == len(set(labels)) == 4
        assert r"\label{tab:cfp-fp-2}" in labels

    def test_csv_holds_every_figure_of_every_system(self, pifr: Pifr, run: Path) -> None:
        _, output, _ = pifr("compare", run, "--format", "csv", "--replicates", 100)
        table = pd.read_csv(io.StringIO(output), keep_default_na=False, na_values=[""])
        assert len(table) == 8
        assert table.loc[table["frontalizer"] == "none", "baseline"].isna().all()
        assert table.loc[table["frontalizer"] == "mirror", "passes"].tolist() == [2] * 4
        assert set(table["eer_rule"]) == {"interpolated"}
        mirror = table[table["frontalizer"] == "mirror"]
        assert (mirror["pairs"] == mirror["genuine"] + mirror["impostor"]).all()

    def test_json_and_csv_agree(self, pifr: Pifr, run: Path) -> None:
        values = [
            json.loads(pifr("compare", run, "--format", "json", "--replicates", 100)[1]),
            pd.read_csv(io.StringIO(pifr("compare", run, "--format", "csv", "--replicates", 100)[1])).to_dict(
                "records"
            ),
        ]
        assert [row["eer"] for row in values[0]] == pytest.approx([row["eer"] for row in values[1]])

    @pytest.mark.parametrize(("format", "mark"), [("markdown", "| --- |"), ("latex", r"\begin{tabular}")])
    def test_documents(self, pifr: Pifr, run: Path, format: str, mark: str) -> None:
        code, output, _ = pifr("compare", run, "--format", format, "--replicates", 100)
        assert code == 0
        assert mark in output

    def test_the_rule_changes_figures_and_is_named(self, pifr: Pifr, run: Path) -> None:
        _, output, _ = pifr("compare", run, "--eer-rule", "pooled", "--replicates", 100)
        assert "EER of all folds' comparisons together" in output

    def test_two_runs_stand_in_one_table(self, pifr: Pifr, run: Path) -> None:
        second = run.parent / "second"
        second.mkdir()
        (second / "scores.parquet").write_bytes((run / "scores.parquet").read_bytes())
        record = json.loads((run / "run.json").read_text(encoding="utf-8"))
        record["dataset"]["root"] = "/where/it/lies/on/another/machine"
        (second / "run.json").write_text(json.dumps(record), encoding="utf-8")
        code, output, _ = pifr("compare", run, second, "--baseline", "run=first", "--replicates", 100)
        assert code == 0
        assert "first: small / none / weighted" in output

    def test_lists_of_equal_length_are_kept_apart(self, pifr: Pifr, run: Path) -> None:
        second = run.parent / "second"
        second.mkdir()
        (second / "run.json").write_bytes((run / "run.json").read_bytes())
        scores = pd.read_parquet(run / "scores.parquet")
        scores["probe"] = scores["probe"].str.replace("01.png", "09.png")
        rewrite(second, scores)
        _, output, _ = pifr("compare", run, second, "--replicates", 100)
        assert output.count("Verification on SYNTHETIC tiny FP") == 2
        code, _, error = pifr("compare", run, second, "--baseline", "run=first", "--replicates", 100)
        assert code == 1
        assert "differ in their data set" in error

    def test_labels_hold_letters_digits_and_hyphens_alone(self, pifr: Pifr, run: Path) -> None:
        scores = pd.read_parquet(run / "scores.parquet").assign(protocol="my pairs_1 %")
        rewrite(run, scores)
        _, output, _ = pifr("compare", run, "--format", "latex", "--replicates", 100)
        assert r"\label{tab:my-pairs-1---fp}" in output

    def test_the_caption_says_what_was_resampled_and_what_plus_minus_is(self, pifr: Pifr, run: Path) -> None:
        _, output, _ = pifr("compare", run, "--format", "markdown", "--replicates", 100)
        assert "± is the standard deviation over folds" in output
        assert "100 bootstrap resamples of subjects" in output
        assert "best on the other folds" in output
        scores = pd.read_parquet(run / "scores.parquet").assign(probe_subject="", reference_subject="")
        rewrite(run, scores)
        _, output, _ = pifr("compare", run, "--format", "markdown", "--replicates", 100)
        assert "100 bootstrap resamples of inferred subjects" in output

    def test_a_page_is_not_written_over_a_folder(self, pifr: Pifr, run: Path) -> None:
        code, _, error = pifr("report", run, "--out", run)
        assert code == 1
        assert "is a folder: name the file" in error

    def test_runs_on_other_people_are_no_baseline(self, pifr: Pifr, run: Path) -> None:
        second = run.parent / "second"
        second.mkdir()
        (second / "scores.parquet").write_bytes((run / "scores.parquet").read_bytes())
        record = json.loads((run / "run.json").read_text(encoding="utf-8"))
        record["dataset"] |= {"name": "cfp", "synthetic": False}
        (second / "run.json").write_text(json.dumps(record), encoding="utf-8")
        code, _, error = pifr("compare", run, second, "--baseline", "run=first", "--replicates", 100)
        assert code == 1
        assert "differ in their data set" in error
        _, output, _ = pifr("compare", run, second, "--replicates", 100)
        assert "SYNTHETIC tiny FP" in output
        assert "cfp FP (measured, 4 folds" in output

    def test_runs_that_differ_in_their_counts_alone_are_no_baseline(self, pifr: Pifr, run: Path) -> None:
        second = run.parent / "second"
        second.mkdir()
        (second / "scores.parquet").write_bytes((run / "scores.parquet").read_bytes())
        record = json.loads((run / "run.json").read_text(encoding="utf-8"))
        record["dataset"]["counts"] = {"images": 35}
        (second / "run.json").write_text(json.dumps(record), encoding="utf-8")
        code, _, error = pifr("compare", run, second, "--baseline", "run=first", "--replicates", 100)
        assert code == 1
        assert "differ in their data set" in error

    def test_a_run_without_the_usual_baseline_is_printed_without_differences(
        self, pifr: Pifr, cfp_root: Path, tmp_path: Path
    ) -> None:
        code, output, _ = pifr(
            *("evaluate", "cfp", "--data", cfp_root, "--out", tmp_path / "run", "--recognizer", "small"),
            *("--frontalizer", "mirror", "--setting", "FP", "--store", tmp_path / "s.sqlite"),
            *("--detector", f"file:{cfp_root / 'landmarks.csv'}"),
        )
        assert code == 0
        assert "less than" not in output

    def test_scores_without_a_record_of_their_run_are_printed(self, pifr: Pifr, run: Path, tmp_path: Path) -> None:
        (tmp_path / "bare").mkdir()
        (tmp_path / "bare" / "scores.parquet").write_bytes((run / "scores.parquet").read_bytes())
        code, output, _ = pifr("compare", tmp_path / "bare", "--replicates", 100)
        assert code == 0
        assert "No run.json" in " ".join(output.split())

    def test_what_cannot_be_compared_is_one_line(self, pifr: Pifr, run: Path, tmp_path: Path) -> None:
        code, _, error = pifr("compare", tmp_path / "nothing")
        assert code == 1
        assert "does not exist" in error
        code, _, error = pifr("compare", run, "--baseline", "srtc", "--replicates", 100)
        assert code == 1
        assert "no system is frontalizer=srtc" in error

    def test_baselines_are_read_as_typed(self) -> None:
        assert parse_baseline("none") == {"frontalizer": "none"}
        assert parse_baseline("recognizer=onnx:/a/b.onnx, frontalizer=srtc:paper") == {
            "recognizer": "onnx:/a/b.onnx",
            "frontalizer": "srtc:paper",
        }
        options = "srtc:completion=inet,shape=snet"
        assert parse_baseline(options) == {"frontalizer": options}
        assert parse_baseline(f"recognizer=sface,frontalizer={options}, run=a") == {
            "recognizer": "sface",
            "frontalizer": options,
            "run": "a",
        }


def test_progress_is_silent_where_there_is_no_terminal(pifr: Pifr, cfp_root: Path, tmp_path: Path) -> None:
    _, _, error = pifr(
        *("evaluate", "cfp", "--data", cfp_root, "--out", tmp_path / "run", "--recognizer", "small"),
        *("--store", tmp_path / "s.sqlite", "--detector", f"file:{cfp_root / 'landmarks.csv'}"),
    )
    assert error == f"scores and record: {tmp_path / 'run'}\n"
