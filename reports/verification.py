"""Verification runs (CFP, pair lists): tables, charts and findings, one section a data set and setting."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from pifr.errors import DataError
from protocols import metrics, summary
from protocols.base import COMPARISON, SYSTEM
from protocols.summary import FMR_POINTS, Statistics
from reports import figures
from reports.content import VERDICT_WORDS, Failure, Finding, Section, Verdict
from reports.figures import Chart, Series
from reports.measurements import (
    Measurement,
    controls,
    counted,
    failures,
    fusions,
    gather,
    is_control,
    percent,
    points,
    slugs,
    styles,
    verdict,
    view_name,
)
from reports.montage import Montage, PanelSource, build_montage
from reports.rates import notes_on_fnmr, notes_on_rates, rate_cells, rate_columns, resampled
from reports.runs import MeasuredRun
from reports.tables import Column, Estimate, Row, Table

if TYPE_CHECKING:
    import pandas as pd

YAW_EDGES = (0, 15, 30, 45, 60, 75, 90)
_LAXEST_FMR = 0.5  # where curves begin at the latest; a DET curve ends here
_BIN_REPLICATES = 400  # many bins times many systems: enough for a bar of a figure
_LEAST_PER_BIN = 30  # genuine and impostor comparisons each; fewer say nothing about an EER


def verification_studies(runs: Sequence[MeasuredRun], statistics: Statistics) -> list[VerificationStudy]:
    """One study a data set, protocol and setting, over all runs that measured it."""
    return [VerificationStudy(found, statistics) for found in gather(runs, "scores", SYSTEM, COMPARISON)]


class VerificationStudy:
    """All systems that were compared on one data set and setting.

    Args:
        measurement: rows of the score tables.
        statistics: EER rule and bootstrap.
    """

    def __init__(self, measurement: Measurement, statistics: Statistics) -> None:
        self.measurement, self.statistics, self.key = measurement, statistics, measurement.key
        scores = summary.prepared(measurement.table)
        # A view maker that knows no pose takes it from one that saw the same probe, so that all share the same bins.
        self.scores = scores.assign(yaw=scores["probe"].map(scores["yaw"].abs().groupby(scores["probe"]).median()))
        comparisons = scores.drop_duplicates(summary.LISTED)
        subjects = set(comparisons["probe_subject"]) | set(comparisons["reference_subject"])
        self.named = summary.subjects_named(measurement.table)
        self.resampled = resampled(self.named)
        who = counted(len(subjects), "subject") if self.named else "subjects not named"
        images = set(comparisons["probe"]) | set(comparisons["reference"])
        same = comparisons["same"].astype(bool)
        folds = counted(comparisons["fold"].nunique(), "fold")
        self.impostors = int((~same).sum())
        self.data_set = measurement.data_set(
            measurement.setting,
            f"{folds}, {counted(len(comparisons), 'comparison')}",
            f"{who}, {counted(len(images), 'image')}, {int(same.sum()):,} genuine and {self.impostors:,} "
            f"impostor comparisons in {folds}.",
        )

    # --- numbers ----------------------------------------------------------------------------------------------------

    @cached_property
    def summary(self) -> pd.DataFrame:
        """One row a system: `protocols.summary.summarise`."""
        return summary.summarise(self.scores, self.statistics)

    @cached_property
    def differences(self) -> list[tuple[str, pd.DataFrame]]:
        """For each control that the runs hold, the differences of every stronger view maker from it."""
        return list(_differences(self.scores, self.statistics))

    @cached_property
    def between_runs(self) -> pd.DataFrame | None:
        """Differences of each system from the system of the same name in the first run; None for one run."""
        first = str(self.scores["run"].iloc[0])
        if not first:
            return None
        return summary.paired_differences(self.scores, {"run": first}, self.statistics)

    @cached_property
    def yaw_bins(self) -> list[tuple[str, float, pd.DataFrame]]:
        """Label, middle in degrees and scores of each bin of |yaw| that holds enough comparisons."""
        bins = []
        absolute = self.scores["yaw"].abs().clip(upper=YAW_EDGES[-1])
        for low, high in pairwise(YAW_EDGES):
            inside = (absolute >= low) & ((absolute < high) | ((high == YAW_EDGES[-1]) & (absolute == high)))
            scores = self.scores[inside]
            if scores.empty:
                continue
            counts = scores.drop_duplicates(summary.LISTED)["same"].astype(bool).value_counts()
            if len(counts) == 2 and counts.min() >= _LEAST_PER_BIN:
                bins.append((f"{low}–{high}°", (low + high) / 2, scores))
        return bins

    @cached_property
    def yaw_summaries(self) -> list[tuple[str, float, pd.DataFrame]]:
        """`yaw_bins` with a summary in place of scores; folds are too small to be split by yaw, so EERs are pooled."""
        return [
            (label, middle, summary.summarise(scores, self._bin_statistics, fmr_points=()))
            for label, middle, scores in self.yaw_bins
        ]

    @property
    def _bin_statistics(self) -> Statistics:
        return replace(self.statistics, eer_rule="pooled", replicates=min(_BIN_REPLICATES, self.statistics.replicates))

    # --- names ------------------------------------------------------------------------------------------------------

    def view_name(self, key: Any) -> str:
        """The frontalizer, with the fusion and the run where these runs hold several."""
        return view_name(key, self._fusions)

    def style(self, key: Any) -> int:
        """How charts draw it: a view maker looks alike in all of them."""
        return styles(map(self.view_name, self.summary.itertuples(index=False)))[self.view_name(key)]

    def system_name(self, key: Any) -> str:
        """Recognizer and view name."""
        return f"{key.recognizer} + {self.view_name(key)}"

    @cached_property
    def _fusions(self) -> Mapping[str, int]:
        return fusions(self.scores)

    # --- tables -----------------------------------------------------------------------------------------------------

    def conditions(self) -> tuple[str, ...]:
        """What captions say: data, alignment, versions, EER rule, interval, failures."""
        return (
            *self.measurement.conditions(self.data_set),
            *notes_on_rates(self.statistics, self.named),
            "Passes: runs of the recognizer a face.",
        )

    def verification_table(self) -> Table:
        """Every rate of every system."""
        failures, rows = bool(self.summary["failed"].any()), []
        for key, (_, found) in zip(self.summary.itertuples(index=False), self.summary.iterrows(), strict=True):
            rates = (*rate_cells(found, failures), self.measurement.passes(key.run, key.frontalizer))
            rows.append(Row(self.measurement.labels(key), rates, self.data_set, "measured"))
        return Table(
            f"{self.key}-rates",
            f"Verification on {self.data_set.title}",
            ("System", "Fusion", "Run"),
            (*rate_columns(self.data_set, self.statistics.eer_rule, failures), self._column("passes")),
            tuple(rows),
            (*self.conditions(), *notes_on_fnmr(self.impostors)),
        )

    def difference_table(self) -> Table | None:
        """Every system against each control, paired; None where the runs hold no pair."""
        compared = list(self.differences)
        if self.between_runs is not None and len(self.between_runs):
            compared.append((f"run {self.scores['run'].iloc[0]}", self.between_runs))
        if not compared:
            return None
        columns = (self._column("ΔEER (points)", "lower"), self._column("p"), self._column("comparisons"))
        rows = []
        for against, table in compared:
            for key in table.itertuples(index=False):
                rows.append(
                    Row(
                        (*self.measurement.labels(key), against, VERDICT_WORDS[_verdict(key)]),
                        (
                            _difference(key),
                            _p_value(key),
                            Estimate(key.pairs, decimals=0),
                        ),
                        self.data_set,
                        "measured",
                    )
                )
        return Table(
            f"{self.key}-differences",
            f"Paired differences of EER on {self.data_set.title}",
            ("System", "Fusion", "Run", "Against", "Verdict"),
            columns,
            tuple(rows),
            (
                "Difference on the comparisons that both systems measured; below zero is better. Brackets: "
                f"{self.statistics.interval}, both systems on the same {self.statistics.replicates:,} resamples of "
                f"{self.resampled}. “Within noise”: the interval holds zero. p: two-sided paired t-test over the "
                "folds, shown beside, not used for the verdict.",
            ),
        )

    def _column(self, name: str, better: Any = "") -> Column:
        return Column(name, self.data_set, "measured", better)

    # --- findings ---------------------------------------------------------------------------------------------------

    @cached_property
    def findings(self) -> list[Finding]:
        """Did each view maker that is no mere control help against the plain crop, and against the controls?"""
        fallbacks = {
            self._id(key): f"{key.fallback_images:,} of {key.images:,} images" if key.fallback_images else ""
            for key in self.summary.itertuples(index=False)
        }
        found = []
        for baseline, key in _weakest(self.differences):
            detail = [
                f"{_points(row)} against {control} ({VERDICT_WORDS[_verdict(row)]})"
                for control, more in self.differences
                for row in more.itertuples(index=False)
                if self._id(row) == self._id(key) and control != baseline
            ]
            text = _sentence(self.view_name(key), baseline, key)
            notes = [f"It is {'; '.join(detail)}."] if detail else []
            if left := fallbacks[self._id(key)]:
                notes.insert(0, f"It left {left} to their plain crop.")
            judged = _verdict(key)
            if judged != "unknown":
                gained, lost = self._flips(key, baseline)
                notes.append(
                    f"At their own EER thresholds: {gained:,} wrong decisions became right, {lost:,} right ones wrong."
                )
            text = f"{self.data_set.title}, {text}"
            view, control = self.view_name(key), is_control(key.frontalizer)
            found.append(Finding(self.data_set, judged, text, " ".join(notes), view, baseline, control))
        return found

    def hurts(self) -> list[Finding]:
        """Settings and yaw bins in which a view maker is worse than the weakest control beyond noise."""
        found = [finding for finding in self.findings if finding.verdict == "worse"]
        for label, _, scores in self.yaw_bins:
            for control, key in _weakest(_differences(scores, self._bin_statistics, each_once=True)):
                if _verdict(key) == "worse":
                    text = (
                        f"{self.data_set.title} at |yaw| {label}, {self.system_name(key)}: the EER rises, "
                        f"{_points(key)} against {control}."
                    )
                    detail = f"{key.pairs:,} comparisons; pooled EER, {self.statistics.interval}."
                    found.append(Finding(self.data_set, "worse", text, detail))
        return found

    def _flips(self, key: Any, baseline: str) -> tuple[int, int]:
        """Comparisons that are decided rightly by the system and wrongly by the baseline, and the reverse."""
        own = self._decisions(self._rows(key.run, key.recognizer, key.frontalizer, key.fusion))
        plain = self._decisions(self._rows(key.run, key.recognizer, baseline, key.fusion))
        both = own.merge(plain, on=summary.LISTED, suffixes=("", "_baseline"))
        gained = both["right"] & ~both["right_baseline"]
        lost = ~both["right"] & both["right_baseline"]
        return int(gained.sum()), int(lost.sum())

    def _decisions(self, scores: pd.DataFrame) -> pd.DataFrame:
        measured = scores[scores["score"].notna()]
        threshold = metrics.eer_threshold(measured["same"].to_numpy(bool), measured["score"].to_numpy())
        right = (measured["score"] >= threshold) == measured["same"].astype(bool)
        return measured[summary.LISTED].assign(right=right)

    def _rows(self, run: str, recognizer: str, frontalizer: str, fusion: str) -> pd.DataFrame:
        """Scores of one system; its first fusion where it was not measured with the one asked for."""
        s = self.scores
        rows = s[(s["run"] == run) & (s["recognizer"] == recognizer) & (s["frontalizer"] == frontalizer)]
        asked = rows[rows["fusion"] == fusion]
        return asked if len(asked) else rows[rows["fusion"] == rows["fusion"].iloc[0]]

    @staticmethod
    def _id(key: Any) -> tuple[str, ...]:
        return (key.run, key.recognizer, key.frontalizer, key.fusion)

    # --- charts -----------------------------------------------------------------------------------------------------

    def charts(self) -> list[Chart]:
        """All charts: the paired differences of all systems, then the curves of each recognizer."""
        charts = []
        if self.differences:
            charts.append(self._difference_chart())
        for recognizer in self.summary["recognizer"].unique():
            systems = self.summary[self.summary["recognizer"] == recognizer]
            charts += self._curves(recognizer, systems)
            charts += self._yaw_chart(recognizer, systems)
        return charts

    def _difference_chart(self) -> Chart:
        compared = _weakest(self.differences)
        against = {control for control, _ in compared}
        rows = []
        for control, key in compared:
            if not math.isnan(key.difference):
                name = self.system_name(key) + (f" against {control}" if len(against) > 1 else "")
                rows.append((name, np.asarray(key.per_fold), key.difference, key.low, key.high, self.style(key)))
        return figures.fold_differences(
            f"{self.key}-folds",
            f"Difference of EER from {' or '.join(sorted(against))}, paired",
            f"Ticks: folds. Symbol and bar: mean over folds and {self.statistics.interval}; a bar that touches zero is "
            "within noise.",
            rows,
        )

    def _curves(self, recognizer: str, systems: pd.DataFrame) -> Iterator[Chart]:
        grid = self._fmr_grid()
        rejects: list[Series] = []
        scores = []
        for key in systems.itertuples(index=False):
            rows = self._rows(*self._id(key))
            pairs = summary.Comparisons.of(rows[rows["score"].notna()])
            if pairs.same.all() or not pairs.same.any():
                continue
            label = self.view_name(key)
            curve = metrics.roc(pairs.same, pairs.score)
            draws = metrics.fnmr_replicates(
                pairs.same, pairs.score, pairs.first, pairs.second, grid,
                replicates=min(200, self.statistics.replicates), seed=self.statistics.seed,
            )  # fmt: skip
            tail = (1 - self.statistics.confidence) / 2
            low, high = np.nanquantile(draws, [tail, 1 - tail], axis=0)
            rejects.append(Series(label, grid, np.interp(grid, curve.fmr, curve.fnmr), low, high, self.style(key)))
            threshold = metrics.eer_threshold(pairs.same, pairs.score)
            scores.append((label, pairs.score[pairs.same], pairs.score[~pairs.same], threshold))
        if not rejects:
            return
        accepts = [Series(s.label, s.x, 1 - s.y, 1 - s.high, 1 - s.low, s.style) for s in rejects]
        note = (
            f"All folds together, band: {self.statistics.interval} over {self.resampled}. Begins at the FMR that three "
            "impostor comparisons make."
        )
        key = self._chart_key(recognizer)
        yield figures.roc(f"{key}-roc", f"ROC, {recognizer}", note, accepts, float(grid[0]))
        if grid[0] < _LAXEST_FMR:
            note += " Normal-deviate axes."
            yield figures.det(f"{key}-det", f"DET, {recognizer}", note, rejects, float(grid[0]))
        yield figures.histograms(
            f"{key}-scores",
            f"Scores, {recognizer}",
            "Share of genuine (filled) and impostor (hatched) comparisons by score.",
            scores,
        )

    def _fmr_grid(self) -> np.ndarray:
        return np.geomspace(min(_LAXEST_FMR, 3 / max(self.impostors, 1)), 1.0, 80)

    def _chart_key(self, recognizer: str) -> str:
        return f"{self.key}-{slugs(self.summary['recognizer'].unique())[recognizer]}"

    def _yaw_chart(self, recognizer: str, systems: pd.DataFrame) -> Iterator[Chart]:
        series = []
        for key in systems.itertuples(index=False):
            points = [
                (middle, row.eer, row.eer_low, row.eer_high)
                for _, middle, table in self.yaw_summaries
                for row in table.itertuples(index=False)
                if self._id(row) == self._id(key)
            ]
            if points:  # a run may hold only probes that no view maker knows the yaw of
                series.append(Series(self.view_name(key), *np.array(points, float).T, style=self.style(key)))
        if not series:
            return
        counts = ", ".join(
            f"{label}: {len(scores.drop_duplicates(summary.LISTED)):,}" for label, _, scores in self.yaw_bins
        )
        yield figures.by_yaw(
            f"{self._chart_key(recognizer)}-yaw",
            f"EER by yaw of the probe, {recognizer}",
            f"Pooled EER and {self.statistics.interval} of {self._bin_statistics.resamples(self.resampled)}. "
            f"Comparisons: {counts}.",
            series,
            "EER",
            {middle: label for label, middle, _ in self.yaw_bins},
        )

    # --- failures and pictures --------------------------------------------------------------------------------------

    def failures(self) -> list[Failure]:
        """See `reports.measurements.failures`."""
        return failures(
            [(self.system_name(key), self._rows(*self._id(key))) for key in self.summary.itertuples(index=False)]
        )

    def montage(self, source: PanelSource, count: int = 3) -> Montage | None:
        """Pictures of the probes that the last frontalizer changed most; None where no frontalizer can be judged."""
        compared = [
            (key, control)
            for control, key in _weakest(self.differences)
            if not is_control(key.frontalizer) and _verdict(key) != "unknown"
        ]
        if not compared:
            return None
        key, control = compared[-1]
        rows = self._rows(*self._id(key))
        run = self.measurement.runs[rows["source"].iloc[0]]
        return build_montage(
            f"{self.key}-montage",
            f"{self.system_name(key)} against {control}",
            rows,
            self._rows(key.run, key.recognizer, control, key.fusion),
            run.record.get("configuration") or {},
            source,
            count=count,
        )

    def cautions(self) -> list[str]:
        """What a reader has to know to weigh the numbers."""
        notes = self.measurement.cautions(self.data_set)
        if self.impostors * min(FMR_POINTS) < 3:
            notes.append(
                f"{self.data_set.title} has {self.impostors:,} impostor comparisons: they cannot measure an FMR below "
                f"{300 / max(self.impostors, 1):.2g} %."
            )
        return notes

    def section(self, source: PanelSource | None = None) -> Section:
        """Everything, ready to be rendered; pictures only where a source is given."""
        montage, lead = None, ()
        try:
            montage = self.montage(source) if source else None
            if source and montage is None:
                lead = ("No montage: of no frontalizer can be said what it changed.",)
        except DataError as error:  # the pictures are those of another run, which has a montage
            lead = (f"No montage: {error}.",)
        differences = self.difference_table()
        if not self.yaw_bins:
            known = self.scores["yaw"].notna().any()
            reason = "too few comparisons at any yaw" if known else "no view maker of these runs estimates the pose"
            lead = (f"No rates by yaw: {reason}.", *lead)
        return Section(
            self.key,
            self.measurement.title(self.data_set),
            self.data_set,
            lead,
            tuple(self.findings),
            tuple(self.hurts()),
            (self.verification_table(), *((differences,) if differences else ())),
            tuple(self.charts()),
            (montage,) if montage else (),
            tuple(self.failures()),
        )


def _differences(
    scores: pd.DataFrame, statistics: Statistics, *, each_once: bool = False
) -> Iterator[tuple[str, pd.DataFrame]]:
    """For each control among the systems, weakest first, the paired differences of every stronger view maker.

    With `each_once`, of those view makers that no weaker control was found for, which spares most of the bootstrap.
    """
    import pandas as pd

    present = controls(scores)
    systems = pd.MultiIndex.from_frame(scores[["run", *SYSTEM]])
    judged: list[tuple[str, ...]] = []
    for place, control in enumerate(present):
        left_out = scores["frontalizer"].isin(present[:place])
        if each_once:
            left_out |= systems.isin(judged) & (scores["frontalizer"] != control)
        stronger = scores[~left_out]
        table = summary.paired_differences(stronger, {"frontalizer": control}, statistics)
        table = table[table["frontalizer"] != control]  # a control's other fusions are no stronger view maker
        if len(table):
            judged += map(VerificationStudy._id, table.itertuples(index=False))
            yield control, table


def _weakest(differences: Iterable[tuple[str, pd.DataFrame]]) -> list[tuple[str, Any]]:
    """Each system once, against the weakest control that its own run holds: the control, and the row of differences."""
    found: dict[tuple[str, ...], tuple[str, Any]] = {}
    for control, table in differences:
        for key in table.itertuples(index=False):
            found.setdefault(VerificationStudy._id(key), (control, key))
    return list(found.values())


def _p_value(row: Any) -> Estimate:
    reason = "no difference" if row.difference == 0 else "needs two folds that differ, of different people"
    return Estimate(row.p_value, decimals=3, reason=reason, positive=True)


def _difference(row: Any) -> Estimate:
    return percent(row.difference, row.low, row.high)


def _verdict(row: Any) -> Verdict:
    return verdict(_difference(row), "lower")


def _points(row: Any) -> str:
    return points(_difference(row))


def _sentence(view: str, baseline: str, row: Any) -> str:
    """What a row of paired differences says, with both EERs on the comparisons that it is about."""
    own, plain = f"{100 * row.own_eer:.2f} %", f"{100 * row.baseline_eer:.2f} %"
    match _verdict(row):
        case "better":
            text = f"{view} lowers the EER from {plain} to {own}, {_points(row)} against {baseline}."
        case "worse":
            text = f"{view} raises the EER from {plain} to {own}, {_points(row)} against {baseline}."
        case "noise":
            text = f"{view} ({own}) and {baseline} ({plain}) cannot be told apart: {_points(row)}."
        case _ if math.isnan(row.difference):
            text = f"{view} and {baseline} share too few comparisons to be compared."
        case _:
            text = f"{view} ({own}) and {baseline} ({plain}) were compared on too few subjects to be told apart."
    return f"{row.recognizer}: {text}"
