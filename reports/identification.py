"""Identification runs (Multi-PIE): rank-1 by yaw, CMC and findings, one section a data set and setting."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from protocols import metrics
from protocols.base import SYSTEM
from protocols.summary import Statistics, count_failures
from reports import figures
from reports.content import VERDICT_WORDS, Failure, Finding, Section
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
from reports.runs import MeasuredRun
from reports.tables import Column, Estimate, Row, Table

if TYPE_CHECKING:
    import pandas as pd

_KEY = ["run", *SYSTEM]
_MOST_RANKS = 20


def identification_studies(runs: Sequence[MeasuredRun], statistics: Statistics) -> list[IdentificationStudy]:
    """One study a data set, protocol and setting, over all runs that measured it."""
    return [
        IdentificationStudy(found, statistics)
        for found in gather(runs, "identification", SYSTEM, ("probe", "reference"))
    ]


class IdentificationStudy:
    """All systems whose probes were searched in one gallery.

    Args:
        measurement: rows of `identification.parquet`.
        statistics: the bootstrap over subjects.
    """

    def __init__(self, measurement: Measurement, statistics: Statistics) -> None:
        self.measurement, self.statistics, self.key = measurement, statistics, measurement.key
        rank = measurement.table["rank"].astype("Float64").to_numpy(dtype="float64", na_value=np.nan)
        self.table = measurement.table.assign(rank=rank, pose=measurement.table["camera_yaw"].abs().astype(int))
        self.poses: list[int] = sorted(self.table["pose"].unique())
        probes = self.table.drop_duplicates("probe")
        setting = measurement.setting
        counts = [run.record["dataset"].get("counts") or {} for run in measurement.runs]
        enrolled = [(each.get(f"setting-{setting}") or {}).get("reference", 0) for each in counts]
        # Those that no probe is of are known to the record alone.
        self.references = max(int(probes["reference"].nunique()), *enrolled)
        poses = ", ".join(f"{pose}°: {(probes['pose'] == pose).sum():,}" for pose in self.poses)
        self.data_set = measurement.data_set(
            f"Setting-{setting}" if setting.isdigit() else setting,
            f"{counted(self.references, 'reference')}, {counted(len(probes), 'probe')}",
            f"{counted(probes['probe_subject'].nunique(), 'subject')}; probes at |yaw| {poses}.",
        )
        self._fusions: Mapping[str, int] = fusions(self.table)

    @cached_property
    def systems(self) -> list[tuple[Any, pd.DataFrame]]:
        """Each system's key (run, recognizer, frontalizer, fusion) and rows, in order of appearance."""
        found = []
        for _, rows in self.table.groupby(_KEY, sort=False):
            found.append((next(rows[_KEY].itertuples(index=False)), rows))
        return found

    def rank_1(self, rows: pd.DataFrame) -> Estimate:
        """Rank-1 rate of some probes in per cent, with its interval; a probe without a rank is a miss."""
        if not len(rows):
            return Estimate(float("nan"), reason="no probes")
        return percent(metrics.rank_k(rows["rank"].to_numpy(), 1), *self._interval(rows, 1))

    def rank_table(self) -> Table:
        """Rank-1 by |yaw|, over all probes, and the failures."""
        columns = [self._column(f"±{pose}° rank-1 (%)" if pose else "0° rank-1 (%)", "higher") for pose in self.poses]
        columns += [self._column("all rank-1 (%)", "higher"), self._column("all rank-5 (%)", "higher")]
        columns += [self._column("no rank (%)", "lower"), self._column("FTA (%)", "lower"), self._column("passes")]
        rows = []
        for key, found in self.systems:
            estimates = [self.rank_1(found[found["pose"] == pose]) for pose in self.poses]
            estimates += [self.rank_1(found), percent(metrics.rank_k(found["rank"].to_numpy(), 5))]
            estimates += [percent(float(found["rank"].isna().mean())), self.failure_to_acquire(found)]
            estimates += [self.measurement.passes(key.run, key.frontalizer)]
            rows.append(Row(self.measurement.labels(key), tuple(estimates), self.data_set, "measured"))
        return Table(
            f"{self.key}-rank1",
            f"Identification on {self.data_set.title}",
            ("System", "Fusion", "Run"),
            tuple(columns),
            tuple(rows),
            self.conditions(),
        )

    def difference_table(self) -> Table | None:
        """Every system against each control on the same probes; None where there is no pair."""
        rows = []
        for key, control, values in self._pairs():
            difference = self._difference(values)
            rows.append(
                Row(
                    (*self.measurement.labels(key), control, VERDICT_WORDS[verdict(difference, "higher")]),
                    (difference, Estimate(len(values), decimals=0)),
                    self.data_set,
                    "measured",
                )
            )
        if not rows:
            return None
        return Table(
            f"{self.key}-differences",
            f"Paired differences of rank-1 on {self.data_set.title}",
            ("System", "Fusion", "Run", "Against", "Verdict"),
            (self._column("Δrank-1 (points)", "higher"), self._column("probes")),
            tuple(rows),
            (
                "Difference on the probes that both systems searched, failures being misses; above zero is better. "
                f"Brackets: {self.statistics.interval} of {self.statistics.resamples()}. “Within noise”: the interval "
                "holds zero.",
            ),
        )

    def conditions(self) -> tuple[str, ...]:
        """What captions say."""
        return (
            *self.measurement.conditions(self.data_set),
            f"Closed-set search; brackets: {self.statistics.interval} of {self.statistics.resamples()}. "
            "Where all probes are found, or none, they are Clopper-Pearson's with one trial a subject. "
            "No rank: share of probes that failed, or whose reference did or is missing; they are misses. FTA: share "
            "of images from which no face was acquired. Passes: runs of the recognizer a face.",
        )

    @cached_property
    def findings(self) -> list[Finding]:
        """Each view maker against the weakest control that its run holds."""
        found = []
        for key, control, values in self._weakest():
            difference = self._difference(values)
            own, plain = 100 * values["hit"].mean(), 100 * values["hit_baseline"].mean()
            judged = verdict(difference, "higher")
            change = f"from {plain:.2f} % to {own:.2f} %, {points(difference)}"
            words = {
                "better": f"raises rank-1 {change}",
                "worse": f"lowers rank-1 {change}",
                "noise": f"({own:.2f} %) and {control} ({plain:.2f} %) cannot be told apart: {points(difference)}",
                "unknown": f"and {control} cannot be compared",
            }
            view = view_name(key, self._fusions)
            text = f"{self.data_set.title}, {key.recognizer}: {view} {words[judged]}."
            detail = f"{len(values):,} probes at all poses together."
            found.append(Finding(self.data_set, judged, text, detail, view, control, is_control(key.frontalizer)))
        return found

    def hurts(self) -> list[Finding]:
        """What is worse than the weakest control beyond noise, over all probes or at one pose."""
        found = [finding for finding in self.findings if finding.verdict == "worse"]
        for key, control, values in self._weakest():
            for pose, rows in values.groupby("pose"):
                difference = self._difference(rows)
                if verdict(difference, "higher") == "worse":
                    name = f"{key.recognizer} + {view_name(key, self._fusions)}"
                    at = f"±{pose}°" if pose else "0°"
                    text = f"{self.data_set.title} at {at}, {name}: rank-1 falls, {points(difference)}."
                    found.append(Finding(self.data_set, "worse", text, f"{len(rows):,} probes, against {control}."))
        return found

    def charts(self) -> Iterator[Chart]:
        """CMC and rank-1 by yaw of each recognizer."""
        if not self.references:  # nobody who is searched is enrolled
            return
        keys = slugs(self.table["recognizer"].unique())
        look = styles(view_name(key, self._fusions) for key, _ in self.systems)
        for recognizer in self.table["recognizer"].unique():
            systems = [(key, rows) for key, rows in self.systems if key.recognizer == recognizer]
            most = min(_MOST_RANKS, self.references)
            ranks = np.arange(1, most + 1, dtype=float)
            curves, by_pose = [], []
            for key, rows in systems:
                name = view_name(key, self._fusions)
                low, high = np.array([self._interval(rows, rank) for rank in ranks]).T
                curves.append(Series(name, ranks, metrics.cmc(rows["rank"].to_numpy(), most), low, high, look[name]))
                rates = [self.rank_1(rows[rows["pose"] == pose]) for pose in self.poses]
                values = np.array([[rate.value, rate.low, rate.high] for rate in rates], float).T / 100
                by_pose.append(Series(name, np.array(self.poses, float), *values, style=look[name]))
            key = f"{self.key}-{keys[recognizer]}"
            note = f"{self.statistics.interval} over subjects."
            yield figures.cmc(f"{key}-cmc", f"CMC, {recognizer}", f"All probes; band: {note}", curves)
            if len(self.poses) > 1:
                bins = {float(pose): f"{pose}°" for pose in self.poses}
                yield figures.by_yaw(
                    f"{key}-yaw",
                    f"Rank-1 by yaw, {recognizer}",
                    f"Both sides pooled; bars: {note}",
                    by_pose,
                    "Rank-1",
                    bins,
                )

    def failures(self) -> list[Failure]:
        """See `reports.measurements.failures`."""
        return failures([(f"{key.recognizer} + {view_name(key, self._fusions)}", rows) for key, rows in self.systems])

    def cautions(self) -> list[str]:
        """What a reader has to know to weigh the numbers."""
        return self.measurement.cautions(self.data_set)

    def section(self) -> Section:
        """Everything, ready to be rendered."""
        differences = self.difference_table()
        return Section(
            self.key,
            self.measurement.title(self.data_set),
            self.data_set,
            findings=tuple(self.findings),
            hurts=tuple(self.hurts()),
            tables=(self.rank_table(), *((differences,) if differences else ())),
            charts=tuple(self.charts()),
            failures=tuple(self.failures()),
        )

    def failure_to_acquire(self, rows: pd.DataFrame) -> Estimate:
        """Share of images, probes and references, from which no face was acquired, per cent."""
        return percent(count_failures(rows)["fta"])

    def _column(self, name: str, better: Any = "") -> Column:
        return Column(name, self.data_set, "measured", better)

    def _interval(self, rows: pd.DataFrame, rank: float) -> tuple[float, float]:
        """Of the rate at a rank."""
        return self.statistics.interval_of_rate(
            (rows["rank"] <= rank).to_numpy(float), rows["probe_subject"].to_numpy()
        )

    def _weakest(self) -> Iterable[tuple[Any, str, pd.DataFrame]]:
        """Of `_pairs` each system once, with the weakest control that its own run holds."""
        found: dict[tuple[str, ...], tuple[Any, str, pd.DataFrame]] = {}
        for pair in self._pairs():
            found.setdefault(tuple(pair[0]), pair)
        return found.values()

    def _pairs(self) -> Iterator[tuple[Any, str, pd.DataFrame]]:
        """System, control (weakest first), and both systems' hits on the probes they share."""
        present = controls(self.table)
        for place, control in enumerate(present):
            for key, rows in self.systems:
                if key.frontalizer in present[: place + 1]:
                    continue
                same = {
                    found.fusion: other
                    for found, other in self.systems
                    if found.frontalizer == control and (found.run, found.recognizer) == (key.run, key.recognizer)
                }
                if same:
                    # A control of one view has one fusion, whatever the others have.
                    baseline = same.get(key.fusion, next(iter(same.values())))
                    hits, plain = (
                        table.assign(hit=(table["rank"] == 1).astype(float))[["probe", "probe_subject", "pose", "hit"]]
                        for table in (rows, baseline)
                    )
                    yield key, control, hits.merge(plain[["probe", "hit"]], on="probe", suffixes=("", "_baseline"))

    def _difference(self, values: pd.DataFrame) -> Estimate:
        change = (values["hit"] - values["hit_baseline"]).to_numpy()
        return percent(
            float(change.mean()), *self.statistics.interval_of_mean(change, values["probe_subject"].to_numpy())
        )
