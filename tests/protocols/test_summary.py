"""Figures of runs from their tables alone."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pifr.errors import ConfigError, DataError
from protocols import metrics
from protocols.base import SCORE_COLUMNS, Incident, read_reason, write_reason
from protocols.runs import load_run, load_runs, save_run
from protocols.summary import Comparisons, Statistics, count_failures, paired_differences, prepared, summarise


def scores(seed: int = 0, gain: float = 0.0, frontalizer: str = "none", **columns: object) -> pd.DataFrame:
    """Four folds of ten people each, 20 + 20 comparisons a fold."""
    rng = np.random.default_rng(seed)
    rows = []
    for fold in range(1, 5):
        for number in range(40):
            person = 10 * fold + number % 10
            other = person if number < 20 else 10 * fold + (number % 10 + 1 + number // 10 % 5) % 10
            rows.append((fold, f"{person}/p{number}", f"{other}/r{number}", str(person), str(other), person == other))
    table = pd.DataFrame(rows, columns=list(SCORE_COLUMNS[2:8]))
    table["score"] = rng.normal(size=len(table)) + (1.5 + gain) * table["same"]
    defaults = {"protocol": "cfp", "setting": "FP", "recognizer": "small", "frontalizer": frontalizer}
    defaults |= {"fusion": "weighted", "status": "ok", "reason": "", "yaw": np.nan}
    return table.assign(**(defaults | columns))[list(SCORE_COLUMNS)]


def test_every_figure_is_the_metrics() -> None:
    table = scores()
    row = summarise(table, Statistics(replicates=50)).iloc[0]
    same, score, fold = (table[name].to_numpy() for name in ("same", "score", "fold"))
    eer, accuracy = metrics.eer_over_folds(same, score, fold), metrics.cross_validated_accuracy(same, score, fold)
    assert (row["eer"], row["eer_std"]) == (eer.mean, eer.std)
    assert (row["accuracy"], row["accuracy_std"]) == (accuracy.mean, accuracy.std)
    assert row["auc"] == metrics.area_under_curve(same, score)
    assert row["fnmr@0.1"] == metrics.fnmr_at_fmr(same, score, 0.1)
    assert np.isnan(row["fnmr@0.001"])
    assert row["eer_low"] < row["eer"] < row["eer_high"]
    assert (row["genuine"], row["impostor"], row["failed"], row["folds"], row["fta"]) == (80, 80, 0, 4, 0.0)


def test_a_system_and_setting_each_get_a_row_in_order() -> None:
    table = pd.concat([scores(frontalizer=name, setting=setting) for setting in ("FP", "FF") for name in ("none", "z")])
    summary = summarise(table, Statistics(replicates=10))
    assert summary[["setting", "frontalizer"]].apply(tuple, axis=1).tolist() == [
        ("FP", "none"),
        ("FP", "z"),
        ("FF", "none"),
        ("FF", "z"),
    ]


def failed(table: pd.DataFrame, rows: slice, reason: str) -> pd.DataFrame:
    table = table.copy()
    index = table.index[rows]
    table.loc[index, ["score", "status", "reason"]] = [np.nan, "failed", reason]
    return table


def test_failures_are_left_out_of_rates_and_counted_beside_them() -> None:
    table = failed(scores(), slice(0, 4), "probe:no_face")
    row = summarise(table, Statistics(replicates=10)).iloc[0]
    kept = table[table["status"] == "ok"]
    assert row["eer"] == metrics.eer_over_folds(*(kept[n].to_numpy() for n in ("same", "score", "fold"))).mean
    assert (row["failed"], row["failed_images"], row["images"], row["fta"]) == (4, 4, 320, 4 / 320)
    assert row["eer_rejecting"] > row["eer"]  # four genuine comparisons more that are not matched


def test_failed_images_are_told_from_their_partners() -> None:
    table = scores()
    table["reason"] = (
        ["probe:no_face"] + ["reference:fallback:no_face"] + ["probe:no_face;reference:unreadable"] + [""] * 157
    )
    assert count_failures(table) == {"images": 320, "failed_images": 3, "fallback_images": 1, "fta": 3 / 320}


def test_a_reference_that_nobody_has_is_no_image_that_failed() -> None:
    table = scores()[:4].assign(reason=["probe:no_face;reference:not_enrolled", "reference:not_enrolled", "", ""])
    table.loc[table.index[:2], "reference"] = None
    assert count_failures(table) == {"images": 6, "failed_images": 1, "fallback_images": 0, "fta": 1 / 6}


@pytest.mark.parametrize(
    ("reason", "incidents"),
    [
        ("", []),
        ("probe:no_face", [Incident("probe", "failed", "no_face")]),
        ("reference:fallback:no_face", [Incident("reference", "fallback", "no_face")]),
        (
            "probe:fallback:low_visibility;reference:unreadable",
            [Incident("probe", "fallback", "low_visibility"), Incident("reference", "failed", "unreadable")],
        ),
    ],
)
def test_a_reason_is_read_as_it_was_written(reason: str, incidents: list[Incident]) -> None:
    assert write_reason(incidents) == reason
    assert read_reason(reason) == incidents


def test_a_system_that_measured_nothing_keeps_its_row() -> None:
    row = summarise(failed(scores(), slice(None), "probe:no_face"), Statistics(replicates=10)).iloc[0]
    assert np.isnan(row["eer"])
    assert (row["genuine"], row["impostor"], row["failed"], row["fta"]) == (0, 0, 160, 0.5)


def test_people_who_are_not_named_are_resampled_as_if_they_were() -> None:
    """Their pairs share images, so that genuine pairs tell who is who."""
    rng = np.random.default_rng(0)
    rows = [
        (fold, f"{a}/{i}", f"{b}/{j}", str(a), str(b), a == b)
        for fold in range(4)
        for a in range(10 * fold, 10 * fold + 10)
        for b in (a, 10 * fold + (a + 1) % 10)
        for i, j in ((0, 1), (1, 2), (2, 3))
    ]
    known = pd.DataFrame(rows, columns=list(SCORE_COLUMNS[2:8]))
    person = pd.Series(rng.normal(size=40))
    known["score"] = (
        rng.normal(size=len(known)) + 2 * known["same"] + 2 * person[known["probe_subject"].astype(int)].to_numpy()
    )
    known = scores().iloc[:0].reindex(known.index).assign(**scores().iloc[0].to_dict()).assign(**known)
    unknown = known.assign(probe_subject="", reference_subject="")
    a, b = (summarise(table, Statistics(replicates=2000)).iloc[0] for table in (known, unknown))
    assert a["eer"] == b["eer"]
    assert b["eer_high"] - b["eer_low"] == pytest.approx(a["eer_high"] - a["eer_low"], rel=0.1)


def test_people_who_are_none_are_as_unknown_as_those_who_are_not_named() -> None:
    unnamed, none = (scores().assign(probe_subject=who, reference_subject=who) for who in ("", None))
    pd.testing.assert_frame_equal(
        summarise(unnamed, Statistics(replicates=50)), summarise(none, Statistics(replicates=50))
    )


def test_difference_is_on_the_comparisons_that_both_measured() -> None:
    plain, better = scores(), failed(scores(gain=1.0, frontalizer="srtc"), slice(10, 14), "probe:no_face")
    row = paired_differences(pd.concat([plain, better]), {"frontalizer": "none"}, Statistics(replicates=200)).iloc[0]
    keep = [*range(10), *range(14, 160)]
    values = [
        metrics.eer_over_folds(*(table.iloc[keep][n].to_numpy() for n in ("same", "score", "fold"))).values
        for table in (plain, better)
    ]
    assert row["pairs"] == 156
    assert row["difference"] == pytest.approx((values[1] - values[0]).mean())
    assert row["per_fold"] == pytest.approx(values[1] - values[0])
    assert row["low"] < row["difference"] < row["high"]
    assert row["baseline"] == "small / none / weighted"
    assert row["beyond_noise"] == (not row["low"] <= 0 <= row["high"])


def test_order_of_rows_does_not_change_a_difference() -> None:
    plain, other = scores(), scores(seed=1, frontalizer="srtc").assign(probe_subject="")
    plain = plain.assign(probe_subject="")
    shuffled = other.sample(frac=1.0, random_state=0)
    rows = [
        paired_differences(pd.concat([plain, table]), {"frontalizer": "none"}, Statistics(replicates=100)).iloc[0]
        for table in (other, shuffled)
    ]
    assert rows[0][["low", "high"]].tolist() == pytest.approx(rows[1][["low", "high"]].tolist())


def test_baseline_may_be_another_run_or_recognizer() -> None:
    table = pd.concat(
        [scores().assign(run="a"), scores(seed=1).assign(run="b"), scores(seed=2, recognizer="big").assign(run="b")]
    )
    rows = paired_differences(table, {"run": "a", "recognizer": "small"}, Statistics(replicates=10))
    assert rows[["run", "recognizer", "baseline"]].apply(tuple, axis=1).tolist() == [
        ("b", "small", "a: small / none / weighted"),
        ("b", "big", "a: small / none / weighted"),
    ]


def test_baseline_takes_its_own_fusion_where_it_has_another() -> None:
    table = pd.concat([scores(), scores(seed=1, frontalizer="mirror", fusion="concatenation")])
    assert paired_differences(table, {"frontalizer": "none"}, Statistics(replicates=10))["baseline"].tolist() == [
        "small / none / weighted"
    ]


@pytest.mark.parametrize(
    ("baseline", "message"),
    [
        ({"frontalizer": "nothing"}, "no system is frontalizer=nothing: there are small / none"),
        ({"run": "other"}, "no system is run=other: there are [^:]*: small / none"),
        ({"speed": "1"}, "speed"),
    ],
)
def test_a_baseline_that_is_not_there_is_refused(baseline: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        paired_differences(scores(), baseline)


class TestRuns:
    def test_run_comes_back_as_it_was_saved(self, tmp_path: Path) -> None:
        save_run(tmp_path / "new" / "run", scores(), {"views": {"none": 1}, "protocol": "cfp"}, csv=True)
        run = load_run(tmp_path / "new" / "run")
        pd.testing.assert_frame_equal(run.scores, scores(), check_dtype=False)
        assert run.scores["score"].tolist() == scores()["score"].tolist()
        assert (run.label, run.passes) == ("run", {"none": 1})
        assert pd.read_csv(run.folder / "scores.csv")["score"].tolist() == pytest.approx(scores()["score"].tolist())
        assert sorted(file.name for file in run.folder.iterdir()) == ["run.json", "scores.csv", "scores.parquet"]

    def test_tables_of_an_earlier_protocol_do_not_stay_under_a_new_record(self, tmp_path: Path) -> None:
        save_run(tmp_path, scores(), {}, csv=True)
        save_run(tmp_path, scores(), {"protocol": "landmarks"}, file="landmarks.parquet")
        assert sorted(file.name for file in tmp_path.iterdir()) == ["landmarks.parquet", "run.json"]
        assert load_run(tmp_path).scores is None

    def test_a_run_that_is_killed_while_it_is_written_is_not_taken_for_the_earlier_one(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def killed(table: pd.DataFrame, *_: object, **__: object) -> None:
            raise KeyboardInterrupt

        save_run(tmp_path, scores(), {"number": 1})
        monkeypatch.setattr(pd.DataFrame, "to_csv", killed)  # comes after the table and before the record
        with pytest.raises(KeyboardInterrupt):
            save_run(tmp_path, scores(seed=1), {"number": 2}, csv=True)
        with pytest.raises(DataError, match="half a run"):
            load_run(tmp_path)
        save_run(tmp_path, scores(seed=1), {"number": 3}, file="landmarks.parquet")
        assert sorted(file.name for file in tmp_path.iterdir()) == ["landmarks.parquet", "run.json"]
        assert load_run(tmp_path).record["number"] == 3

    def test_a_first_run_that_was_killed_leaves_nothing_that_a_later_one_is_taken_for(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def killed(table: pd.DataFrame, *_: object, **__: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(pd.DataFrame, "to_csv", killed)
        with pytest.raises(KeyboardInterrupt):
            save_run(tmp_path, scores(), {}, csv=True)
        save_run(tmp_path, scores(), {"protocol": "landmarks"}, file="landmarks.parquet")
        assert set(load_run(tmp_path).tables) == {"landmarks"}

    def test_a_table_of_another_run_is_not_read_under_this_ones_record(self, tmp_path: Path) -> None:
        for name, seed in (("own", 0), ("other", 1)):
            save_run(tmp_path / name, scores(seed=seed), {})
        (tmp_path / "other" / "scores.parquet").replace(tmp_path / "own" / "scores.parquet")
        with pytest.raises(DataError, match=r"another scores\.parquet"):
            load_run(tmp_path / "own")

    @pytest.mark.parametrize("about", ["{}", '{"file": "other.parquet", "sha256": "0"}', '{"file": 3}'])
    def test_a_table_that_is_not_there_is_missed(self, about: str, tmp_path: Path) -> None:
        save_run(tmp_path, scores(), {})
        (tmp_path / "run.json").write_text(f'{{"table": {about}}}', encoding="utf-8")
        if about == "{}":
            assert len(load_run(tmp_path).scores) == 160  # a record of before tables were named
        else:
            with pytest.raises(DataError, match="lacks the table"):
                load_run(tmp_path)

    def test_files_that_no_run_wrote_are_let_alone(self, tmp_path: Path) -> None:
        (tmp_path / "landmarks.csv").write_text("the user's")
        save_run(tmp_path, scores(), {})
        assert (tmp_path / "landmarks.csv").read_text() == "the user's"

    @pytest.mark.parametrize("record", ["[1]", '{"views": 3}', '{"dataset": null}', '{"views": {"none": "x"}}'])
    def test_a_record_of_something_else_is_refused(self, record: str, tmp_path: Path) -> None:
        save_run(tmp_path, scores(), {})
        (tmp_path / "run.json").write_text(record, encoding="utf-8")
        with pytest.raises(DataError, match="not the record of a run"):
            load_run(tmp_path)

    def test_scores_that_are_none_are_refused(self, tmp_path: Path) -> None:
        infinite = scores().assign(score=np.inf)
        for table, message in (
            (scores()[:0], "no comparisons"),
            (scores().astype({"score": str}), "not numbers"),
            (infinite, "infinite"),
        ):
            table.to_parquet(tmp_path / "scores.parquet")
            with pytest.raises(DataError, match=message):
                load_run(tmp_path)

    def test_table_alone_is_enough(self, tmp_path: Path) -> None:
        save_run(tmp_path, scores(), {})
        (tmp_path / "run.json").unlink()
        for path in (tmp_path, tmp_path / "scores.parquet"):
            assert len(load_run(path).scores) == 160
            assert load_run(path).passes == {}

    def test_runs_of_one_name_are_told_apart(self, tmp_path: Path) -> None:
        for name in ("a/run", "b/run"):
            save_run(tmp_path / name, scores(), {})
        assert [run.label for run in load_runs([tmp_path / "a" / "run", tmp_path / "b" / "run"])] == ["a/run", "b/run"]
        with pytest.raises(DataError, match="given twice"):
            load_runs([tmp_path / "a" / "run", tmp_path / "a" / ".." / "a" / "run"])

    def test_what_is_no_run_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="does not exist"):
            load_run(tmp_path)
        (tmp_path / "scores.parquet").write_text("no", encoding="utf-8")
        with pytest.raises(DataError, match="is not a Parquet table"):
            load_run(tmp_path)
        (tmp_path / "notes.txt").touch()
        with pytest.raises(DataError, match=r"notes\.txt' is a file"):
            load_run(tmp_path / "notes.txt")
        scores().drop(columns=["fold", "yaw"]).to_parquet(tmp_path / "scores.parquet")
        with pytest.raises(DataError, match="no column fold, yaw"):
            load_run(tmp_path)
        scores().to_parquet(tmp_path / "scores.parquet")
        (tmp_path / "run.json").write_text("{", encoding="utf-8")
        with pytest.raises(DataError, match=r"run\.json' is not JSON"):
            load_run(tmp_path)

    def test_a_run_that_cannot_be_written_leaves_the_old_one(self, tmp_path: Path) -> None:
        save_run(tmp_path, scores(), {"number": 1})
        with pytest.raises(TypeError):
            save_run(tmp_path, scores(), {"number": object()})
        assert json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))["number"] == 1
        (tmp_path / "file").write_text("", encoding="utf-8")
        with pytest.raises(DataError, match="cannot be written"):
            save_run(tmp_path / "file" / "run", scores(), {})


def pairs_of(*rows: tuple[str, str, str, str, bool]) -> pd.DataFrame:
    """Comparisons of (probe, reference, their subjects, same)."""
    columns = ["probe", "reference", "probe_subject", "reference_subject", "same"]
    return pd.DataFrame(rows, columns=columns).assign(fold=1, protocol="list")


def test_images_that_genuine_pairs_join_are_one_subject() -> None:
    table = pairs_of(
        ("a", "b", "", "", True),
        ("c", "b", "", "", True),
        ("c", "d", "", "", False),
        ("d", "e", "", "Eve", True),
        ("a", "f", "", "Eve", False),
        ("g", "h", "", "", False),
    )
    found = prepared(table)
    first, second = found["probe_subject"].tolist(), found["reference_subject"].tolist()
    people = {"abc": {first[0], first[1], second[0], first[4]}, "de": {first[3], second[2], second[3], second[4]}}
    assert [len(names) for names in people.values()] == [1, 1]
    assert len({*people["abc"], *people["de"], first[5], second[5]}) == 4


def test_named_subjects_stay_as_they_are() -> None:
    pd.testing.assert_frame_equal(prepared(scores()).drop(columns="repeat"), scores())


def test_failures_count_below_every_score() -> None:
    for scores in ([-0.5, np.nan, 0.3], [0.5, np.nan, 0.3], [np.nan, np.nan, np.nan]):
        table = pd.DataFrame(
            {
                "probe": list("abc"),
                "reference": list("def"),
                "probe_subject": "",
                "reference_subject": "",
                "same": [True, True, False],
                "score": scores,
                "fold": "1",
            }
        )
        score = Comparisons.of(table, failures_lowest=True).score
        assert score[1] <= np.min(score)
        assert np.isfinite(score).all()
        assert np.isnan(scores[0]) or score[1] < min(score[0], score[2])


@pytest.mark.parametrize("rule", ["interpolated", "nearest", "pooled"])
def test_intervals_are_of_the_rule_seed_and_confidence(rule: str) -> None:
    table = failed(scores(), slice(0, 6), "probe:no_face")
    both = pd.concat([table, scores(seed=1, frontalizer="srtc")])
    asked = Statistics(rule, replicates=60, seed=4, confidence=0.6)
    row = summarise(both, asked).iloc[0]
    draws = Comparisons.of(table[table["score"].notna()]).eer_replicates(asked)
    assert (row["eer_low"], row["eer_high"]) == metrics.percentile_interval(draws, 0.6)
    assert row["eer_rejecting"] == Comparisons.of(table, failures_lowest=True).eer(asked).mean
    change = paired_differences(both, {"frontalizer": "none"}, asked).iloc[0]
    other = Comparisons.of(scores(seed=1)[table["score"].notna().to_numpy()]).eer_replicates(asked)
    assert (change["low"], change["high"]) == pytest.approx(metrics.percentile_interval(other - draws, 0.6))


def test_each_system_meets_the_baseline_on_the_comparisons_that_both_measured() -> None:
    first = failed(scores(seed=1, frontalizer="a"), slice(20, 29), "probe:no_face")
    second = failed(scores(seed=2, frontalizer="b"), slice(40, 49), "probe:no_face")

    def differences(*tables: pd.DataFrame) -> np.ndarray:
        found = paired_differences(pd.concat([scores(), *tables]), {"frontalizer": "none"}, Statistics(replicates=20))
        return found[["difference", "low", "high"]].to_numpy()

    np.testing.assert_array_equal(differences(first, second), np.vstack([differences(first), differences(second)]))


def test_both_rates_of_a_difference_are_on_the_comparisons_that_both_measured() -> None:
    other = failed(scores(seed=1, frontalizer="srtc"), slice(0, 12), "probe:no_face")
    row = paired_differences(pd.concat([scores(), other]), {"frontalizer": "none"}, Statistics(replicates=10)).iloc[0]
    common = [metrics.eer_over_folds(*(t.iloc[12:][n] for n in ("same", "score", "fold"))) for t in (scores(), other)]
    assert [row["baseline_eer"], row["own_eer"]] == [each.mean for each in common]
    assert row["own_eer"] - row["baseline_eer"] == pytest.approx(row["difference"])


def test_no_error_has_no_interval_of_no_width() -> None:
    row = summarise(scores(gain=100), Statistics(replicates=50)).iloc[0]
    assert row["eer"] == 0
    assert np.isnan([row["eer_low"], row["eer_high"]]).all()


def test_a_comparison_counts_as_often_as_its_list_repeats_it() -> None:
    once = [scores(), scores(seed=1, frontalizer="srtc")]
    twice = pd.concat([*once, *(table[:30] for table in once)], ignore_index=True)
    rates = summarise(twice, Statistics(replicates=10))
    assert (rates["genuine"] + rates["impostor"]).tolist() == [190, 190]
    row = paired_differences(twice, {"frontalizer": "none"}, Statistics(replicates=10)).iloc[0]
    assert row["pairs"] == 190
    assert [row["baseline_eer"], row["own_eer"]] == pytest.approx(rates["eer"].tolist())


def test_a_baseline_fusion_that_was_named_is_not_replaced() -> None:
    table = pd.concat([scores(), scores(seed=1, frontalizer="srtc", fusion="mean")])
    with pytest.raises(ConfigError, match="no system is frontalizer=none, fusion=mean"):
        paired_differences(table, {"frontalizer": "none", "fusion": "mean"}, Statistics(replicates=10))


def test_an_interval_does_not_depend_on_the_runs_beside_it() -> None:
    unnamed = scores(probe_subject="", reference_subject="")
    other = scores(seed=3, probe_subject="", reference_subject="")
    other["reference"] = other["reference"].to_numpy()[::-1]  # other pairs of images of the same names
    alone = summarise(unnamed.assign(run="a"), Statistics(replicates=100))
    beside = summarise(pd.concat([unnamed.assign(run="a"), other.assign(run="b")]), Statistics(replicates=100))
    pd.testing.assert_frame_equal(beside[beside["run"] == "a"].reset_index(drop=True), alone)


def test_differences_of_a_run_do_not_depend_on_the_runs_beside_it() -> None:
    unnamed = pd.concat(
        [
            scores(seed=k, frontalizer=name, probe_subject="", reference_subject="")
            for k, name in enumerate(("none", "z"))
        ]
    )
    other = unnamed.assign(reference=unnamed["reference"].to_numpy()[::-1])
    asked = ({"frontalizer": "none"}, Statistics(replicates=100))
    alone = paired_differences(unnamed.assign(run="a"), *asked)
    beside = paired_differences(pd.concat([unnamed.assign(run="a"), other.assign(run="b")]), *asked)
    pd.testing.assert_frame_equal(beside[beside["run"] == "a"].reset_index(drop=True), alone)


def test_folds_that_share_people_have_no_p_value() -> None:
    table = pd.concat([scores(), scores(seed=1, frontalizer="z")])
    shared = table.assign(probe_subject=table["probe_subject"].replace({"20": "10"}))
    asked = ({"frontalizer": "none"}, Statistics(replicates=10))
    assert paired_differences(table, *asked)["p_value"].notna().all()
    assert paired_differences(shared, *asked)["p_value"].isna().all()
