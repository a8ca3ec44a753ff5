"""What a report says follows from the score tables, and from nothing else."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

from pifr.errors import DataError
from protocols import metrics, summary
from protocols.base import COMPARISON, SYSTEM
from protocols.summary import Statistics
from reports.build import build_report
from reports.content import Report, Section
from reports.figures import Series
from reports.identification import identification_studies
from reports.measurements import digest
from reports.rates import notes_on_fnmr
from reports.runs import read_runs
from reports.tables import Row, Table, to_frame
from reports.verification import VerificationStudy, verification_studies

FAST = Statistics(replicates=120)
CLEAR = {("sface", "none", "weighted"): 1.0, ("sface", "srtc", "weighted"): 4.0}
HARMFUL = {("sface", "none", "weighted"): 4.0, ("sface", "srtc", "weighted"): 1.0}
Make = Callable[..., pd.DataFrame]
Write = Callable[..., Path]


def report_of(*folders: Path) -> Report:
    return build_report(read_runs(folders), "fixed", FAST)


def only_section(*folders: Path) -> Section:
    (section,) = report_of(*folders).sections
    return section


def row_of(table: Table, label: str) -> Row:
    (row,) = (row for row in table.rows if label in row.labels)
    return row


def test_a_clear_gain_is_called_better_and_hurts_nobody(tmp_path: Path, score_table: Make, write_run: Write) -> None:
    section = only_section(write_run(tmp_path / "run", scores=score_table(CLEAR)))
    assert [finding.verdict for finding in section.findings] == ["better"]
    assert not section.hurts


@pytest.mark.parametrize("system", ["none", "srtc"])
@pytest.mark.parametrize("genuine_only", [True, False])
def test_a_system_that_measured_nothing_is_reported_and_not_judged(
    tmp_path: Path, score_table: Make, write_run: Write, system: str, genuine_only: bool
) -> None:
    scores = score_table(CLEAR)
    lost = (scores["frontalizer"] == system) & (scores["same"] | (not genuine_only))
    scores.loc[lost, ["score", "status", "reason"]] = [np.nan, "failed", "probe:no_face"]
    section = only_section(write_run(tmp_path / "run", scores=scores))
    (finding,) = section.findings
    assert finding.verdict == "unknown"
    assert "too few comparisons" in finding.text
    assert [failure.reason for failure in section.failures] == ["no_face"]


def test_a_damaged_table_is_named(tmp_path: Path, score_table: Make, write_run: Write) -> None:
    folder = write_run(tmp_path / "run", scores=score_table(CLEAR))
    (folder / "shape.parquet").write_bytes(b"half a table")
    with pytest.raises(DataError, match=r"shape\.parquet' is not a Parquet table"):
        read_runs([folder])


def test_unnamed_subjects_are_not_counted_as_one(tmp_path: Path, score_table: Make, write_run: Write) -> None:
    scores = score_table(CLEAR).assign(probe_subject="", reference_subject="")
    section = only_section(write_run(tmp_path / "run", scores=scores))
    assert section.data_set.detail.startswith("subjects not named, ")
    captions = " ".join(note for table in section.tables for note in table.notes)
    assert "resamples of inferred subjects" in captions
    assert "resamples of subjects" not in captions


def test_a_system_whose_probes_have_no_known_yaw_has_no_point_by_yaw(
    tmp_path: Path, score_table: Make, write_run: Write
) -> None:
    scores = score_table(CLEAR, pairs=200)
    other = score_table({("other", "none", "weighted"): 1.0}).assign(setting="FP")
    other["probe"] = "unseen/" + other["probe"]
    section = only_section(write_run(tmp_path / "run", scores=pd.concat([scores, other], ignore_index=True)))
    assert [chart.key for chart in section.charts if chart.key.endswith("-yaw")] == ["cfp-fp-sface-yaw"]


def test_a_clear_loss_is_called_worse_and_listed_as_harm(tmp_path: Path, score_table: Make, write_run: Write) -> None:
    section = only_section(write_run(tmp_path / "run", scores=score_table(HARMFUL)))
    assert [finding.verdict for finding in section.findings] == ["worse"]
    assert section.hurts[0].verdict == "worse"
    assert any("|yaw|" in finding.text for finding in section.hurts)


def test_harm_by_yaw_is_looked_for_with_one_bootstrap_a_system_and_bin(
    tmp_path: Path, score_table: Make, write_run: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("none", "mirror", "align", "srtc")
    scores = score_table({("sface", name, "weighted"): 4.0 - k for k, name in enumerate(names)}, pairs=200)
    (study,) = verification_studies(read_runs([write_run(tmp_path / "run", scores=scores)]), FAST)
    harm = len(study.findings)  # has its own bootstraps
    calls = []
    draw = summary.Comparisons.eer_replicates
    monkeypatch.setattr(
        summary.Comparisons, "eer_replicates", lambda pairs, *how: calls.append(pairs) or draw(pairs, *how)
    )
    assert len(study.hurts()) > harm
    assert len(calls) == len(names) * len(study.yaw_bins) > len(names)


def test_a_frontalizer_that_changes_nothing_is_within_noise(
    tmp_path: Path, score_table: Make, write_run: Write
) -> None:
    scores = score_table({("sface", "none", "weighted"): 2.0})
    scores = pd.concat([scores, scores.assign(frontalizer="srtc")], ignore_index=True)
    section = only_section(write_run(tmp_path / "run", scores=scores))
    assert [finding.verdict for finding in section.findings] == ["noise"]
    row = row_of(section.tables[1], "within noise")
    assert row.estimates[0] is not None
    assert (row.estimates[0].value, row.estimates[0].low, row.estimates[0].high) == (0, None, None)


def test_every_view_maker_is_measured_against_each_weaker_control(
    tmp_path: Path, score_table: Make, write_run: Write
) -> None:
    names = ("none", "mirror", "align:some/weights", "srtc")
    scores = score_table({("sface", name, "weighted"): 1.0 + k for k, name in enumerate(names)})
    section = only_section(write_run(tmp_path / "run", scores=scores))
    assert [(row.labels[0], row.labels[3]) for row in section.tables[1].rows] == [
        ("sface + mirror", "none"),
        ("sface + align:some/weights", "none"),
        ("sface + srtc", "none"),
        ("sface + align:some/weights", "mirror"),
        ("sface + srtc", "mirror"),
        ("sface + srtc", "align:some/weights"),
    ]
    assert section.findings[0].view == "srtc"


def test_the_summary_counts_verdicts_and_warns_of_chance(tmp_path: Path, score_table: Make, write_run: Write) -> None:
    report = report_of(write_run(tmp_path / "run", scores=score_table(CLEAR)))
    assert report.headlines == ("srtc: better in 1 of 1 paired test against none.",)
    assert any("if nothing differed at all" in caution for caution in report.cautions)


def test_the_eer_is_that_of_the_score_table(tmp_path: Path, score_table: Make, write_run: Write) -> None:
    scores = score_table(CLEAR)
    section = only_section(write_run(tmp_path / "run", scores=scores))
    plain = scores[scores["frontalizer"] == "none"]
    expected = np.mean(
        [
            metrics.equal_error_rate(fold["same"].to_numpy(), fold["score"].to_numpy())
            for _, fold in plain.groupby("fold")
        ]
    )
    estimate = row_of(section.tables[0], "sface + none").estimates[0]
    assert estimate is not None
    assert estimate.value == pytest.approx(100 * expected)


def test_failures_are_listed_with_reason_and_images(tmp_path: Path, score_table: Make, write_run: Write) -> None:
    scores = score_table(CLEAR, failing=2)
    section = only_section(write_run(tmp_path / "run", scores=scores))
    (failure,) = section.failures
    assert (failure.system, failure.outcome, failure.reason) == ("all systems", "failed", "no_face")
    failed = scores[(scores["status"] == "failed") & (scores["frontalizer"] == "none")]
    assert set(failure.images) == set(failed["probe"])
    assert failure.comparisons == len(failed)
    fta = row_of(section.tables[0], "sface + none").estimates[7]
    assert fta is not None
    assert fta.value == pytest.approx(100 * 2 / len(set(scores["probe"]) | set(scores["reference"])))


def test_fallbacks_are_not_called_failures(tmp_path: Path, score_table: Make, write_run: Write) -> None:
    scores = score_table(CLEAR)
    at = scores["probe"] == scores["probe"].iloc[0]
    scores.loc[at, ["status", "reason"]] = ["fallback", "probe:fallback:no_face"]
    (failure,) = only_section(write_run(tmp_path / "run", scores=scores)).failures
    assert (failure.outcome, failure.reason, failure.images) == ("fallback", "no_face", (scores["probe"].iloc[0],))


def test_synthetic_and_real_figures_never_share_a_column(tmp_path: Path, score_table: Make, write_run: Write) -> None:
    real = write_run(tmp_path / "real", scores=score_table(CLEAR))
    synthetic = write_run(tmp_path / "synthetic", synthetic=True, scores=score_table(CLEAR, seed=1))
    report = report_of(real, synthetic)
    (table,) = report.paper
    groups = [heading for heading, _ in table.groups()]
    assert [heading.split(" (")[0] for heading in groups] == [
        "published: CFP FP",
        "measured: CFP FP",
        "measured: SYNTHETIC CFP FP",
    ]
    frame = to_frame(table)
    assert set(frame[frame["origin"] == "published"]["synthetic"]) == {False}
    assert len({section.key for section in report.sections}) == 2
    assert any("do not exist" in caution for caution in report.cautions)


def test_table_3_holds_frontal_to_profile_alone(tmp_path: Path, score_table: Make, write_run: Write) -> None:
    assert not report_of(write_run(tmp_path / "run", scores=score_table(CLEAR, setting="FF"))).paper


def test_captions_name_rule_data_alignment_and_versions(tmp_path: Path, score_table: Make, write_run: Write) -> None:
    report = report_of(write_run(tmp_path / "run", scores=score_table(CLEAR)))
    for table in (report.paper[0], report.sections[0].tables[0]):
        caption = " ".join(table.notes)
        for words in (
            "interpolated ROC",
            "Real data",
            "detector yunet",
            "numpy 2.4",
            "FTA",
            "48 subjects",
            "Alignment",
        ):
            assert words in caption


def test_runs_with_the_same_systems_are_compared_with_the_first(
    tmp_path: Path, score_table: Make, write_run: Write
) -> None:
    first = write_run(tmp_path / "old", scores=score_table(HARMFUL))
    second = write_run(tmp_path / "new", scores=score_table(CLEAR), configuration={"detector": "mtcnn"})
    report = report_of(first, second)
    rates, differences = report.sections[0].tables
    assert {row.labels[2] for row in rates.rows} == {"old", "new"}
    against = {
        row.labels[3]: row.labels[4] for row in differences.rows if row.labels[:3] == ("sface + srtc", "", "new")
    }
    assert against == {"none": "better", "run old": "better"}
    assert any("differ in detector" in caution for caution in report.cautions)


def test_runs_with_different_systems_are_joined(tmp_path: Path, score_table: Make, write_run: Write) -> None:
    scores = score_table(CLEAR)
    folders = [write_run(tmp_path / name, scores=scores[scores["frontalizer"] == name]) for name in ("none", "srtc")]
    assert [finding.verdict for finding in only_section(*folders).findings] == ["better"]


def test_a_run_without_the_weakest_control_is_judged_by_the_one_it_holds(
    tmp_path: Path, score_table: Make, identification_table: Make, write_run: Write
) -> None:
    scores = score_table({("sface", name, "weighted"): 1.0 + k for k, name in enumerate(("none", "align", "srtc"))})
    ranks = identification_table({"none": POSES, "align": POSES, "srtc": BETTER_POSES})
    for kind, name, table in (("scores", "cfp", scores), ("identification", "multipie", ranks)):
        first = write_run(
            tmp_path / kind / "first", name=name, **{kind: table[table["frontalizer"].isin(["none", "srtc"])]}
        )
        second = write_run(
            tmp_path / kind / "second", name=name, **{kind: table[table["frontalizer"].isin(["align", "srtc"])]}
        )
        section = only_section(first, second)
        assert {(finding.view, finding.against) for finding in section.findings} == {
            ("first: srtc", "none"),
            ("second: srtc", "align"),
        }


def test_a_part_of_a_data_set_gets_a_section_of_its_own(tmp_path: Path, score_table: Make, write_run: Write) -> None:
    scores = score_table(CLEAR)
    whole = write_run(tmp_path / "whole", scores=scores)
    part = write_run(tmp_path / "part", scores=scores[scores["fold"] <= 2])
    report = report_of(whole, part)
    first, second = report.sections
    assert first.data_set.size != second.data_set.size
    assert (first.key, second.key) == ("cfp-fp", "cfp-fp-2")
    assert second.data_set.size in second.title
    for section in report.sections:
        assert {row.data_set for row in section.tables[0].rows} == {section.data_set}
    assert any("another part of the data" in caution for caution in report.cautions)
    (table,) = report.paper
    assert len({heading for heading, _ in table.groups()}) == 3  # the paper's, the whole's and the part's


def test_headlines_name_what_was_compared_with(tmp_path: Path, score_table: Make, write_run: Write) -> None:
    scores = score_table({("sface", "mirror", "weighted"): 1.6, ("sface", "srtc", "weighted"): 2.4})
    report = report_of(write_run(tmp_path / "run", scores=scores))
    assert report.headlines == ("srtc: better in 1 of 1 paired test against mirror.",)


def test_a_view_maker_looks_alike_in_all_sections(
    tmp_path: Path, score_table: Make, identification_table: Make, write_run: Write
) -> None:
    scores = write_run(tmp_path / "cfp", scores=score_table())
    ranks = identification_table({"srtc": BETTER_POSES, "mirror": POSES})
    report = report_of(scores, write_run(tmp_path / "multipie", name="multipie", identification=ranks))
    colours: dict[str, set[str]] = {}
    for chart in report.charts():
        for trace in chart.hover["series"]:
            colours.setdefault(trace["label"], set()).add(trace["color"])
    assert {len(found) for name, found in colours.items() if name in ("mirror", "srtc")} == {1}


def test_a_perfect_rate_is_not_certain(tmp_path: Path, identification_table: Make, write_run: Write) -> None:
    ranks = identification_table({"none": POSES | {45: 1.0}})
    section = only_section(write_run(tmp_path / "run", name="multipie", identification=ranks))
    perfect, subjects = section.tables[0].rows[0].estimates[0], ranks["probe_subject"].nunique()
    assert perfect is not None
    assert (perfect.value, perfect.high) == (100.0, 100.0)
    assert perfect.low == pytest.approx(100 * binomtest(subjects, subjects).proportion_ci(0.95).low)


def test_a_plain_crop_borrows_the_pose_that_another_system_saw(
    tmp_path: Path, score_table: Make, write_run: Write
) -> None:
    section = only_section(write_run(tmp_path / "run", scores=score_table(CLEAR)))
    (chart,) = (chart for chart in section.charts if chart.key.endswith("yaw"))
    counts = {trace["label"]: len(trace["points"]) for trace in chart.hover["series"]}
    assert counts["none"] == counts["srtc"] > 1


def test_the_last_bin_holds_90_degrees_and_all_beyond(tmp_path: Path, score_table: Make, write_run: Write) -> None:
    scores = score_table(CLEAR, pairs=200)
    scores["yaw"] = np.where(scores["probe"].str.endswith("01.jpg"), -95.0, 90.0)
    bins = studied(tmp_path, write_run, scores).yaw_bins
    assert [(label, len(rows)) for label, _, rows in bins] == [("75–90°", len(scores))]


def test_bands_of_curves_have_their_lower_bound_below(
    tmp_path: Path, score_table: Make, write_run: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = []

    def noted(*values: object, **named: object) -> Series:
        drawn.append(Series(*values, **named))
        return drawn[-1]

    monkeypatch.setattr("reports.verification.Series", noted)
    charts = studied(tmp_path, write_run, score_table(pairs=200)).charts()
    assert {"roc", "det", "yaw"} <= {chart.key.rpartition("-")[2] for chart in charts}
    for series in drawn:
        known = np.isfinite(series.low) & np.isfinite(series.high)
        assert (series.low[known] <= series.high[known]).all()
        assert (series.low[known] < series.high[known]).any()


def test_few_impostors_are_said_to_measure_no_low_fmr(tmp_path: Path, score_table: Make, write_run: Write) -> None:
    study = studied(tmp_path, write_run, score_table(CLEAR))
    caution = f"{study.impostors:,} impostor comparisons: they cannot measure an FMR below"
    assert any(caution in line for line in study.cautions())
    study.impostors = round(3 / min(summary.FMR_POINTS))
    assert not any("impostor comparisons" in line for line in study.cautions())


def test_without_a_pose_there_is_no_chart_by_yaw_and_the_report_says_so(
    tmp_path: Path, score_table: Make, write_run: Write
) -> None:
    scores = score_table(CLEAR).assign(yaw=math.nan)
    section = only_section(write_run(tmp_path / "run", scores=scores))
    assert not any(chart.key.endswith("yaw") for chart in section.charts)
    assert "estimates the pose" in section.lead[0]


def test_a_run_that_does_not_say_whether_it_is_synthetic_is_refused(
    tmp_path: Path, score_table: Make, write_run: Write
) -> None:
    folder = write_run(tmp_path / "run", scores=score_table(CLEAR))
    record = json.loads((folder / "run.json").read_text())
    del record["dataset"]["synthetic"]
    (folder / "run.json").write_text(json.dumps(record))
    with pytest.raises(DataError, match="synthetic"):
        read_runs([folder])
    (folder / "run.json").unlink()
    with pytest.raises(DataError, match="synthetic"):
        read_runs([folder])


def test_a_folder_without_tables_is_refused(tmp_path: Path, write_run: Write) -> None:
    with pytest.raises(DataError, match="no table"):
        read_runs([write_run(tmp_path / "run")])


POSES = {45: 0.9, 60: 0.8, 75: 0.6, 90: 0.4}
BETTER_POSES = {45: 0.9, 60: 0.9, 75: 0.9, 90: 0.9}


def test_rank_1_by_yaw_stands_beside_table_4(tmp_path: Path, identification_table: Make, write_run: Write) -> None:
    table = identification_table({"none": POSES, "srtc": BETTER_POSES})
    report = report_of(write_run(tmp_path / "run", name="multipie", identification=table))
    (paper,) = report.paper
    measured = row_of(paper, "sface + none")
    values = [estimate.value for estimate in measured.estimates if estimate is not None]
    assert values[:4] == pytest.approx([40, 60, 80, 90])
    assert [finding.verdict for finding in report.sections[0].findings] == ["better"]


def test_a_failed_probe_is_a_miss_and_is_counted(tmp_path: Path, identification_table: Make, write_run: Write) -> None:
    table = identification_table({"none": dict.fromkeys(POSES, 1.0)})
    failed = table["probe"].isin(table["probe"].iloc[:8])
    table.loc[failed, "rank"] = pd.NA
    table.loc[failed, "reason"] = "probe:no_face"
    section = only_section(write_run(tmp_path / "run", name="multipie", identification=table))
    row = row_of(section.tables[0], "sface + none")
    everything, _, unranked, acquired = row.estimates[4:8]
    assert everything is not None
    assert unranked is not None
    assert acquired is not None
    assert everything.value == pytest.approx(99.0)
    assert unranked.value == pytest.approx(1.0)
    images = table["probe"].nunique() + table["reference"].nunique()
    assert acquired.value == pytest.approx(100 * 8 / images)
    assert section.failures[0].images == tuple(sorted(table["probe"][failed]))


def test_failures_of_identification_name_the_side_that_failed_or_fell_back(
    tmp_path: Path, identification_table: Make, write_run: Write
) -> None:
    table = identification_table({"none": POSES})
    for subject, reason in (
        ("000", "reference:unreadable"),
        ("001", "reference:not_enrolled"),
        ("002", "reference:fallback:no_face"),
    ):
        table.loc[table["probe_subject"] == subject, "reason"] = reason
    table.loc[table["probe_subject"] == "001", "reference"] = None
    table.loc[table["probe_subject"].isin(["000", "001"]), "rank"] = pd.NA
    section = only_section(write_run(tmp_path / "run", name="multipie", identification=table))
    found = {(each.outcome, each.reason): (each.images, each.comparisons) for each in section.failures}
    assert found == {
        ("failed", "unreadable"): (("000/frontal",), 40),
        ("failed", "not_enrolled"): ((), 40),
        ("fallback", "no_face"): (("002/frontal",), 40),
    }


def test_cmc_ends_where_every_found_probe_is_counted(
    tmp_path: Path, identification_table: Make, write_run: Write
) -> None:
    table = identification_table({"none": POSES})
    section = only_section(write_run(tmp_path / "run", name="multipie", identification=table))
    (chart,) = (chart for chart in section.charts if chart.key.endswith("cmc"))
    texts = [point[3] for point in chart.hover["series"][0]["points"]]
    assert texts[0].startswith("67.5 %")
    assert texts[2].startswith("100.0 %")


def test_the_cmc_has_the_tables_interval_at_rank_1(
    tmp_path: Path, identification_table: Make, write_run: Write
) -> None:
    table = identification_table({"none": dict.fromkeys(POSES, 1.0)})
    section = only_section(write_run(tmp_path / "run", name="multipie", identification=table))
    (chart,) = (chart for chart in section.charts if chart.key.endswith("cmc"))
    rate = section.tables[0].rows[0].estimates[4]
    assert rate is not None
    assert rate.low is not None
    assert rate.low < 100
    assert chart.hover["series"][0]["points"][0][3] == f"100.0 % [{rate.low:.1f}, 100.0 %]"


def landmark_table() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    images = pd.DataFrame(
        {
            "protocol": "landmarks",
            "setting": "cfp",
            "sample": [f"{k:03d}" for k in range(60)],
            "subject": [f"{k // 3:02d}" for k in range(60)],
            "yaw": rng.uniform(50, 89, 60),
            "status": "ok",
            "reason": "",
        }
    )
    error, harm = rng.uniform(0.05, 0.1, 60), rng.uniform(0.08, 0.12, 60)
    best = images.assign(predictor="c-net", nme_nose=error, nme_box=error / 3)
    other = images.assign(predictor="mediapipe", nme_nose=error + harm, nme_box=error, yaw=math.nan)
    other.loc[:5, ["nme_nose", "nme_box"]] = math.nan
    other.loc[:5, ["status", "reason"]] = ["failed", "no_face"]
    return pd.concat([best, other], ignore_index=True)


def test_landmark_errors_stand_beside_table_2_with_their_failures(tmp_path: Path, write_run: Write) -> None:
    table = landmark_table()
    report = report_of(write_run(tmp_path / "run", landmarks=table))
    (paper,) = report.paper
    assert paper.key == "table2"
    error, failures = (estimate for estimate in row_of(paper, "mediapipe").estimates if estimate is not None)
    assert error.value == pytest.approx(100 * table[table["predictor"] == "mediapipe"]["nme_nose"].mean())
    assert failures.value == pytest.approx(10)
    (finding,) = report.sections[0].findings
    assert finding.verdict == "better"
    assert "54 images" in finding.detail


def test_cumulative_error_ends_below_one_where_images_failed(tmp_path: Path, write_run: Write) -> None:
    section = only_section(write_run(tmp_path / "run", landmarks=landmark_table()))
    ends = {trace["label"]: trace["points"][-1][3] for trace in section.charts[0].hover["series"]}
    assert ends == {"c-net": "100.0 %", "mediapipe": "90.0 %"}


def test_images_of_people_who_are_not_named_are_resampled_one_by_one(tmp_path: Path, write_run: Write) -> None:
    table = landmark_table().assign(subject="")
    section = only_section(write_run(tmp_path / "run", landmarks=table))
    error = row_of(section.tables[0], "c-net").estimates[0]
    assert error is not None
    assert error.low < error.value < error.high
    assert section.data_set.detail == "60 images of people who are not all named."


def test_one_subject_says_nothing_of_others_and_the_report_says_that(tmp_path: Path, write_run: Write) -> None:
    shape = {"protocol": "shape", "setting": "", "subject": "a", "status": "ok", "reason": ""}
    table = pd.DataFrame([shape | {"predictor": "s-net", "rmse": 1.0}, shape | {"predictor": "mean", "rmse": 2.0}])
    section = only_section(write_run(tmp_path / "run", name="scans", shape=table))
    (finding,) = section.findings
    assert finding.text == (
        "scans: s-net (1.00 mm) cannot, by so few subjects, be told better or worse than mean (2.00 mm), "
        "difference −1.00."
    )
    assert (finding.verdict, finding.detail) == ("unknown", "On the 1 subject that both measured.")
    assert section.data_set.detail == "1 subject."
    assert section.tables[0].rows[0].estimates[0].format() == "1.00"


def test_shape_errors_stand_beside_table_5(tmp_path: Path, write_run: Write) -> None:
    table = pd.DataFrame(
        {
            "protocol": "shape",
            "setting": "",
            "subject": list("abcabc"),
            "predictor": ["mean face"] * 3 + ["s-net"] * 3,
            "rmse": [2.0, 3.0, 4.0, 1.0, 2.0, 3.0],
            "status": "ok",
            "reason": "",
        }
    )
    (paper,) = report_of(write_run(tmp_path / "run", name="scans", synthetic=True, shape=table)).paper
    assert paper.key == "table5"
    rmse = row_of(paper, "s-net").estimates[1]
    assert rmse is not None
    assert rmse.value == pytest.approx(2.0)
    assert [heading for heading, _ in paper.groups()][1] == "measured: SYNTHETIC scans (3 subjects)"


# --- every figure stands under its heading --------------------------------------------------------------------------


def studied(tmp_path: Path, write_run: Callable[..., Path], scores: pd.DataFrame) -> VerificationStudy:
    (study,) = verification_studies(read_runs([write_run(tmp_path / "run", scores=scores)]), FAST)
    return study


def test_every_column_holds_the_figure_of_its_heading(tmp_path: Path, score_table, write_run) -> None:
    scores = score_table(CLEAR, pairs=200, failing=2)
    table = studied(tmp_path, write_run, scores).verification_table()
    wanted = {"EER (%)": "eer", "EER (%), failures rejected": "eer_rejecting", "accuracy (%)": "accuracy"}
    wanted |= {"AUC (%)": "auc", "FTA (%)": "fta"}
    wanted |= {f"FNMR (%) at FMR {100 * fmr:g} %": summary.fnmr_column(fmr) for fmr in summary.FMR_POINTS}
    assert set(wanted) <= {column.name for column in table.columns}
    figures = summary.summarise(scores, FAST)
    for row, (_, measured) in zip(table.rows, figures.iterrows(), strict=True):
        for column, estimate in zip(table.columns, row.estimates, strict=True):
            if column.name in wanted:
                assert estimate.value == pytest.approx(100 * measured[wanted[column.name]], nan_ok=True), column.name
    assert [row.estimates[-1].value for row in table.rows] == [1, 3]  # passes, as the record has them


def test_a_finding_says_from_what_to_what_and_which_decisions_changed(tmp_path: Path, score_table, write_run) -> None:
    scores = score_table(CLEAR)
    study = studied(tmp_path, write_run, scores)
    (finding,) = study.findings
    own, plain = (study.summary.set_index("frontalizer")["eer"][name] for name in ("srtc", "none"))
    assert f"lowers the EER from {100 * plain:.2f} % to {100 * own:.2f} %" in finding.text
    right = {}
    for name, rows in scores.groupby("frontalizer"):
        threshold = metrics.eer_threshold(rows["same"].to_numpy(), rows["score"].to_numpy())
        right[name] = ((rows["score"] >= threshold) == rows["same"]).to_numpy()
    gained, lost = (right["srtc"] & ~right["none"]).sum(), (right["none"] & ~right["srtc"]).sum()
    assert gained > lost
    assert f"{gained:,} wrong decisions became right, {lost:,} right ones wrong" in finding.detail


def test_differences_state_points_p_value_and_number(tmp_path: Path, score_table, write_run) -> None:
    scores = score_table(CLEAR)
    (row,) = studied(tmp_path, write_run, scores).difference_table().rows
    wanted = summary.paired_differences(scores, {"frontalizer": "none"}, FAST).iloc[0]
    figures = [100 * wanted["difference"], wanted["p_value"], wanted["pairs"]]
    assert [estimate.value for estimate in row.estimates] == pytest.approx(figures)


def test_the_eer_threshold_is_where_both_rates_meet() -> None:
    same = np.repeat([True, False], 50)
    score = np.concatenate([np.linspace(0.4, 1, 50), np.linspace(0, 0.6, 50)])
    threshold = metrics.eer_threshold(same, score)
    assert np.mean(score[~same] >= threshold) == pytest.approx(np.mean(score[same] < threshold), abs=0.02)


def test_a_rate_of_zero_is_not_certain() -> None:
    low, high = Statistics().interval_of_rate(np.zeros(60), np.repeat(np.arange(20), 3))
    assert (low, high) == (0.0, pytest.approx(binomtest(0, 20).proportion_ci(0.95).high))


def test_ranks_and_the_finding_of_identification(tmp_path: Path, identification_table, write_run) -> None:
    table = identification_table({"none": POSES, "srtc": BETTER_POSES})
    run = write_run(tmp_path / "run", name="multipie", identification=table)
    (study,) = identification_studies(read_runs([run]), FAST)
    rates = study.rank_table()
    names = [column.name for column in rates.columns]
    for row, (_, rows) in zip(rates.rows, study.systems, strict=True):
        for rank in (1, 5):
            found = row.estimates[names.index(f"all rank-{rank} (%)")].value
            assert found == pytest.approx(100 * (rows["rank"] <= rank).mean())
    (finding,) = study.findings
    assert "raises rank-1 from 67.50 % to 90.00 %" in finding.text
    assert not study.hurts()


def test_harm_at_one_pose_is_said(tmp_path: Path, identification_table, write_run) -> None:
    table = identification_table({"none": POSES, "srtc": POSES | {45: 0.3, 90: 0.95}})
    run = write_run(tmp_path / "run", name="multipie", identification=table)
    (study,) = identification_studies(read_runs([run]), FAST)
    (finding,) = study.hurts()
    assert finding.text.split(",")[0].endswith("±45°")


# --- reasons and captions -------------------------------------------------------------------------------------------


def test_a_finding_states_both_rates_on_the_comparisons_of_its_difference(
    tmp_path: Path, score_table, write_run
) -> None:
    scores = score_table(CLEAR)
    lost = (scores["frontalizer"] == "srtc") & (scores["probe_subject"] < "010") & scores["same"]
    scores.loc[lost, ["score", "status", "reason"]] = [np.nan, "failed", "probe:no_face"]
    study = studied(tmp_path, write_run, scores)
    ((_, differences),) = study.differences
    row = differences.iloc[0]
    assert row["baseline_eer"] != study.summary.set_index("frontalizer")["eer"]["none"]
    rates = f"from {100 * row['baseline_eer']:.2f} % to {100 * row['own_eer']:.2f} %"
    assert rates in study.findings[0].text


def test_systems_without_a_difference_are_not_said_to_lack_folds(tmp_path: Path, score_table, write_run) -> None:
    scores = score_table({("sface", "none", "weighted"): 2.0})
    scores = pd.concat([scores, scores.assign(frontalizer="srtc")], ignore_index=True)
    (row,) = studied(tmp_path, write_run, scores).difference_table().rows
    assert row.estimates[1].format() == "no difference"


def test_too_few_subjects_are_not_called_too_few_comparisons(tmp_path: Path, score_table, write_run) -> None:
    (finding,) = studied(tmp_path, write_run, score_table(CLEAR, subjects=2)).findings
    assert finding.verdict == "unknown"
    assert "too few subjects" in finding.text


@pytest.mark.parametrize(
    ("impostors", "words"), [(3500, "FMR 0.1 % is a rough figure: it rests on 3.5 "), (350, "FMR 1 % is")]
)
def test_an_fnmr_that_few_false_matches_determine_is_called_rough(impostors: int, words: str) -> None:
    assert any(words in note for note in notes_on_fnmr(impostors))
    assert not any("rough" in note for note in notes_on_fnmr(10_000))


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"weights": {"sface": "1" * 64, "mine": "2" * 64}}, "the weights of sface,"),
        ({"versions": {"numpy": "2.5"}}, "the version of numpy"),
        ({"pifr_version": "0.2.0"}, "the version of pifr"),
    ],
)
def test_runs_by_other_weights_or_versions_are_cautioned_of(
    tmp_path: Path, score_table, write_run, changed: dict, words: str
) -> None:
    folders = [write_run(tmp_path / name, scores=score_table(CLEAR)) for name in ("old", "new")]
    record = json.loads((folders[1] / "run.json").read_text()) | changed
    (folders[1] / "run.json").write_text(json.dumps(record))
    (study,) = verification_studies(read_runs(folders), FAST)
    (caution,) = (caution for caution in study.cautions() if "the runs differ" in caution)
    assert words in caution
    assert "mine" not in caution


def test_a_list_is_known_again_in_any_order_and_not_where_it_repeats_a_pair(score_table: Make) -> None:
    table = score_table(pairs=30)
    own = digest(table, SYSTEM, COMPARISON)
    assert table.groupby(list(SYSTEM)).ngroups > 1
    assert digest(table.sample(frac=1, random_state=0), SYSTEM, COMPARISON) == own
    repeated = pd.concat([table, *(rows.head(3) for _, rows in table.groupby(list(SYSTEM)))])
    assert digest(repeated, SYSTEM, COMPARISON) != own


def test_recognizers_whose_names_differ_in_punctuation_have_charts_of_their_own(
    tmp_path: Path, score_table, write_run
) -> None:
    names = ("onnx:a_b.onnx", "onnx:a-b.onnx")
    scores = score_table({(name, view, "weighted"): 2.0 for name in names for view in ("none", "srtc")})
    charts = [chart.key for chart in studied(tmp_path, write_run, scores).charts()]
    assert len(set(charts)) == len(charts)


def test_the_gallery_is_as_large_as_the_record_says(tmp_path: Path, identification_table, write_run) -> None:
    table = identification_table({"none": POSES})
    run = write_run(tmp_path / "run", name="multipie", identification=table)
    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    record["dataset"]["counts"] = {"setting-1": {"reference": 249, "probe": len(table)}}
    (run / "run.json").write_text(json.dumps(record), encoding="utf-8")
    (study,) = identification_studies(read_runs([run]), FAST)
    assert study.references == 249
    assert study.data_set.size.startswith("249 references")


def test_an_eer_by_an_unusual_rule_is_named_wherever_it_stands(tmp_path: Path, score_table, write_run) -> None:
    run = write_run(tmp_path / "run", scores=score_table(CLEAR))
    for rule, name in (("interpolated", "EER (%)"), ("nearest", "EER (%), nearest")):
        (study,) = verification_studies(read_runs([run]), Statistics(rule, replicates=10))
        assert to_frame(study.verification_table())["quantity"].iloc[0] == name
