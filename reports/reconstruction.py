"""Landmark runs and shape runs: error tables and cumulative curves, one section a data set and setting."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from protocols.landmarks import YAW_BIN, yaw_bin
from protocols.summary import Statistics
from reports import figures
from reports.content import Failure, Finding, Section
from reports.figures import Chart, Series
from reports.measurements import Measurement, counted, gather, verdict
from reports.runs import MeasuredRun
from reports.tables import Better, Column, Estimate, Row, Table

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True)
class Quantity:
    """An error of a table: its column, how tables name it, and what turns it into the printed unit."""

    column: str
    label: str
    unit: str
    factor: float


@dataclass(frozen=True, slots=True)
class Kind:
    """What landmark and shape runs differ in.

    Attributes:
        table: its name.
        item: the column that names what was measured.
        noun: what that is, in the singular.
        quantities: the errors, the paper's first.
    """

    table: str
    item: str
    noun: str
    quantities: tuple[Quantity, ...]

    @property
    def items(self) -> str:
        """The noun's plural."""
        return f"{self.noun}s"


LANDMARKS = Kind(
    "landmarks",
    "sample",
    "image",
    (
        Quantity("nme_nose", "NME (% of nose length)", "%", 100.0),
        Quantity("nme_box", "NME (% of √box area)", "%", 100.0),
    ),
)
SHAPE = Kind("shape", "subject", "subject", (Quantity("rmse", "RMSE (mm)", "mm", 1.0),))


def reconstruction_studies(runs: Sequence[MeasuredRun], statistics: Statistics) -> list[ReconstructionStudy]:
    """One study a kind, data set and setting, over all runs that measured it."""
    return [
        ReconstructionStudy(kind, found, statistics)
        for kind in (LANDMARKS, SHAPE)
        for found in gather(runs, kind.table, ("predictor",), (kind.item,))
    ]


class ReconstructionStudy:
    """All predictors that were measured on one data set and setting.

    Args:
        kind: landmarks or shape.
        measurement: rows of the kind's table.
        statistics: the bootstrap over subjects.
    """

    def __init__(self, kind: Kind, measurement: Measurement, statistics: Statistics) -> None:
        self.kind, self.measurement, self.statistics = kind, measurement, statistics
        self.key = measurement.key
        # Where a subject is not known, each item counts as its own subject.
        known, items = measurement.table["subject"] != "", measurement.table[kind.item]
        self.table = measurement.table.assign(subject=measurement.table["subject"].where(known, items))
        size = counted(items.nunique(), kind.noun)
        whose = f" of {counted(self.table['subject'].nunique(), 'subject')}"
        if not known.all():
            whose = " of people who are not all named"
        elif kind.item == "subject":
            whose = ""
        setting = "" if measurement.setting.lower() == measurement.name.lower() else measurement.setting
        self.data_set = measurement.data_set(setting, size, f"{size}{whose}.")

    @property
    def predictors(self) -> list[tuple[str, pd.DataFrame]]:
        """Name (with the run where two runs hold it) and rows of each predictor."""
        return [
            (f"{run}: {name}" if run else str(name), rows)
            for (run, name), rows in self.table.groupby(["run", "predictor"], sort=False)
        ]

    def mean_error(self, rows: pd.DataFrame, quantity: Quantity) -> Estimate:
        """Mean over the items that were measured, with its interval over subjects."""
        rows = rows[rows[quantity.column].notna()]
        if rows.empty:
            return Estimate(float("nan"), reason="none measured")
        values = quantity.factor * rows[quantity.column].to_numpy(float)
        return Estimate(float(values.mean()), *self._interval(values, rows))

    def failure_rate(self, rows: pd.DataFrame) -> Estimate:
        """Share of items without a measurement, per cent."""
        return Estimate(100 * float((rows["status"] == "failed").mean()))

    def error_table(self) -> Table:
        """Mean and median error of each predictor, and its failures."""
        columns = []
        for quantity in self.kind.quantities:
            columns += [self._column(quantity.label, "lower"), self._column(f"median {quantity.label}", "lower")]
        columns += [self._column("failures (%)", "lower")]
        rows = []
        for name, found in self.predictors:
            estimates = []
            for quantity in self.kind.quantities:
                estimates.append(self.mean_error(found, quantity))
                estimates.append(Estimate(quantity.factor * float(found[quantity.column].median())))
            rows.append(Row((name,), (*estimates, self.failure_rate(found)), self.data_set, "measured"))
        return Table(
            f"{self.key}-errors",
            f"{self.kind.table.capitalize()} error on {self.data_set.title}",
            ("Predictor",),
            tuple(columns),
            tuple(rows),
            self.conditions(),
        )

    def yaw_table(self) -> Table | None:
        """Mean error by |yaw| of those items whose yaw is known; None where it is not."""
        if "yaw" not in self.table or self.table["yaw"].isna().all():
            return None
        # A predictor that knows no pose is binned by one that saw the same image.
        yaw = self.table[self.kind.item].map(self.table["yaw"].abs().groupby(self.table[self.kind.item]).median())
        bins = yaw_bin(yaw)
        present = sorted(bins.dropna().unique())
        quantity = self.kind.quantities[0]
        labels = {low: f"{low:g}–{low + YAW_BIN:g}°" for low in present}
        columns = tuple(self._column(f"{label} {quantity.label}", "lower") for label in labels.values())
        rows = []
        for name, found in self.predictors:
            estimates = [self.mean_error(found[bins[found.index] == low], quantity) for low in present]
            rows.append(Row((name,), tuple(estimates), self.data_set, "measured"))
        counts = ", ".join(
            f"{label}: {self.table[self.kind.item][bins == low].nunique():,}" for low, label in labels.items()
        )
        return Table(
            f"{self.key}-yaw",
            f"{self.kind.table.capitalize()} error by yaw on {self.data_set.title}",
            ("Predictor",),
            columns,
            tuple(rows),
            (f"{self.kind.items.capitalize()} by |yaw|: {counts}.",),
        )

    def conditions(self) -> tuple[str, ...]:
        """What captions say."""
        return (
            *self.measurement.conditions(self.data_set),
            f"Means over the {self.kind.items} that were measured; brackets: {self.statistics.interval} of "
            f"{self.statistics.resamples()}. Failures are left out of means and counted beside.",
        )

    @cached_property
    def findings(self) -> list[Finding]:
        """The first predictor against each other one on the items that both measured."""
        quantity = self.kind.quantities[0]
        (name, rows), *others = self.predictors
        found = []
        for other, plain in others:
            columns = [self.kind.item, quantity.column]
            both = rows.merge(plain[columns], on=self.kind.item, suffixes=("", "_other")).dropna(
                subset=[quantity.column, f"{quantity.column}_other"]
            )
            if both.empty:
                continue
            own, its = (
                quantity.factor * both[c].to_numpy(float) for c in (quantity.column, f"{quantity.column}_other")
            )
            difference = Estimate(float((own - its).mean()), *self._interval(own - its, both))
            judged = verdict(difference, "lower")
            relation = {
                "noise": "cannot be told apart from",
                "unknown": "cannot, by so few subjects, be told better or worse than",
            }.get(judged, f"is {judged} than")
            text = (
                f"{self.data_set.title}: {name} ({own.mean():.2f} {quantity.unit}) {relation} {other} "
                f"({its.mean():.2f} {quantity.unit}), difference {difference.format(minus='−')}."
            )
            detail = f"On the {counted(len(both), self.kind.noun)} that both measured."
            found.append(Finding(self.data_set, judged, text, detail))
        return found

    def charts(self) -> Iterator[Chart]:
        """Cumulative error of each predictor, failures counted as never reached."""
        for quantity in self.kind.quantities:
            series = []
            for style, (name, rows) in enumerate(self.predictors):
                errors = np.sort(rows[quantity.column].dropna().to_numpy(float))
                shares = np.arange(1, len(errors) + 1) / len(rows)
                kept = np.unique(np.linspace(0, len(errors) - 1, min(120, len(errors))).round().astype(int))
                if len(errors):
                    series.append(Series(name, errors[kept], shares[kept], style=style))
            if series:
                yield figures.cumulative_error(
                    f"{self.key}-{quantity.column.replace('_', '-')}",
                    f"Cumulative error, {quantity.label}",
                    f"Share of {self.kind.items} with at most this error; failures never count as reached.",
                    series,
                    quantity.label,
                    percent=quantity.unit == "%",
                )

    def failures(self) -> list[Failure]:
        """Items without a measurement, by predictor and reason."""
        failed = self.table[self.table["status"] == "failed"]
        found = []
        for (run, predictor, reason), rows in failed.groupby(["run", "predictor", "reason"], sort=False):
            names = tuple(sorted(rows[self.kind.item].astype(str)))
            found.append(Failure(f"{run}: {predictor}" if run else predictor, "failed", str(reason), names, len(names)))
        return found

    def cautions(self) -> list[str]:
        """What a reader has to know to weigh the numbers."""
        return self.measurement.cautions(self.data_set)

    def section(self) -> Section:
        """Everything, ready to be rendered."""
        by_yaw = self.yaw_table()
        return Section(
            self.key,
            f"{self.kind.table.capitalize()}: {self.measurement.title(self.data_set)}",
            self.data_set,
            findings=tuple(self.findings),
            tables=(self.error_table(), *((by_yaw,) if by_yaw else ())),
            charts=tuple(self.charts()),
            failures=tuple(self.failures()),
        )

    def _column(self, name: str, better: Better = "") -> Column:
        return Column(name, self.data_set, "measured", better)

    def _interval(self, values: np.ndarray, rows: pd.DataFrame) -> tuple[float, float]:
        return self.statistics.interval_of_mean(values, rows["subject"].to_numpy())
