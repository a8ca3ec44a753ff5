"""What several runs measured on one data set and setting, gathered; shared by all kinds of sections."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from protocols import metrics
from protocols.base import read_reason
from reports.content import Failure, Verdict
from reports.runs import MeasuredRun
from reports.tables import DataSet, Estimate

if TYPE_CHECKING:
    import pandas as pd

CONTROLS = ("none", "mirror", "align")
"""View makers that bring no new texture, weakest first: every gain is measured against each that the runs hold. A name
may carry an argument, as "align:FOLDER"."""


@dataclass(frozen=True, slots=True, eq=False)
class Measurement:
    """Rows of one kind of table, from all runs, on one data set and setting.

    Attributes:
        name, synthetic: of the data set.
        protocol, setting: as the runs name them.
        number: from 1; runs that looked at other items of the same data set are another measurement.
        runs: where the rows come from.
        table: the rows, with a column `run` that is empty unless two runs hold a system of the same name, and a column
            `source`, the place among `runs` of the run that a row comes from.
    """

    name: str
    synthetic: bool
    protocol: str
    setting: str
    number: int
    runs: tuple[MeasuredRun, ...]
    table: pd.DataFrame

    @property
    def key(self) -> str:
        """For anchors and file names."""
        key = slug(self.name)
        for part in (self.protocol, self.setting, "synthetic" if self.synthetic else ""):
            if part and slug(part) not in key.split("-"):
                key += f"-{slug(part)}"
        return key if self.number == 1 else f"{key}-{self.number}"

    def title(self, data_set: DataSet) -> str:
        """Heading of the section."""
        return data_set.title if self.number == 1 else f"{data_set.title} ({data_set.size})"

    def data_set(self, setting: str, size: str, detail: str) -> DataSet:
        """The data set as the tables name it."""
        return DataSet(self.name, setting, self.synthetic, size, detail)

    def conditions(self, data_set: DataSet) -> tuple[str, ...]:
        """Sentences of every caption: the data, and the settings and versions of each run."""
        kind = "SYNTHETIC data, the people do not exist" if self.synthetic else "Real data"
        notes = [f"{kind}: {data_set.title}, {data_set.detail}"]
        if "recognizer" in self.table:
            notes.append(
                "Alignment of first views: by the detector's five points to each recognizer's template, or as it came."
            )
        if "fusion" in self.table and self.table["fusion"].nunique() == 1:
            notes.append(f"Fusion: {self.table['fusion'].iloc[0]}.")
        return (*notes, *(f"Run {run.label}: {text}" for run in self.runs if (text := run.conditions())))

    def passes(self, run: str, frontalizer: str) -> Estimate | None:
        """Recognizer passes a face, as the run's record says."""
        for candidate in self.runs:
            if run in ("", candidate.label) and frontalizer in candidate.passes:
                return Estimate(candidate.passes[frontalizer], decimals=0)
        return None

    def labels(self, key: Any) -> tuple[str, str, str]:
        """System, fusion and run, as tables print them; the fusion is empty where it is one for all (see `conditions`).

        Args:
            key: has the attributes recognizer, frontalizer, fusion and run.
        """
        fusion = "" if self.table["fusion"].nunique() == 1 else key.fusion
        return f"{key.recognizer} + {key.frontalizer}", fusion, key.run

    def cautions(self, data_set: DataSet) -> list[str]:
        """What a reader has to know before comparing these rows."""
        notes = []
        if self.synthetic:
            notes.append(f"{data_set.title}: these people do not exist; the rates say nothing of real faces.")
        if self.number > 1:
            notes.append(
                f"{self.title(data_set)}: another part of the data than in the section before; figures of the two "
                "cannot be compared."
            )
        configurations = [run.settings for run in self.runs]
        keys = sorted(set().union(*configurations))
        differing = [key for key in keys if len({settings.get(key) for settings in configurations}) > 1]
        # A system that one run alone has is no difference between the runs.
        for kind, words in (("weights", "the weights of"), ("versions", "the version of")):
            found = [run.record.get(kind) or {} for run in self.runs]
            names = sorted(set().union(*found))
            differing += [
                f"{words} {name}" for name in names if len({str(each[name]) for each in found if name in each}) > 1
            ]
        if len({run.record.get("pifr_version") for run in self.runs}) > 1:
            differing.append("the version of pifr")
        if differing:
            notes.append(
                f"{data_set.title}: the runs differ in {', '.join(differing)}, not only in their systems; a difference "
                "between runs may be due to that."
            )
        return notes


def gather(runs: Sequence[MeasuredRun], kind: str, system: Sequence[str], item: Sequence[str]) -> list[Measurement]:
    """One measurement a data set, protocol, setting and set of items, in order of appearance.

    Args:
        kind: which table of the runs: one of `protocols.runs.TABLES`.
        system: columns that tell systems apart.
        item: columns that tell apart what each system was measured on.
    """
    parts: dict[tuple[str, bool, str, str], dict[str, list[tuple[MeasuredRun, pd.DataFrame]]]] = {}
    for run in runs:
        if kind in run.tables:
            for (protocol, setting), table in run.tables[kind].groupby(["protocol", "setting"], sort=False):
                which = parts.setdefault((run.name, run.synthetic, str(protocol), str(setting)), {})
                which.setdefault(digest(table, system, item), []).append((run, table))
    return [
        Measurement(*which, number, tuple(run for run, _ in found), _joined(found, list(system)))
        for which, sets in parts.items()
        for number, found in enumerate(sets.values(), 1)
    ]


def digest(table: pd.DataFrame, system: Sequence[str], item: Sequence[str]) -> str:
    """The same for the same list of items, in whatever order: those of the table's first system, repeats included."""
    systems = table[list(system)]
    items = table.loc[(systems == systems.iloc[0]).all(axis=1), list(item)]
    rows = sorted("\0".join(map(str, row)) for row in items.itertuples(index=False))
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()


def _joined(parts: Sequence[tuple[MeasuredRun, pd.DataFrame]], system: list[str]) -> pd.DataFrame:
    import pandas as pd

    names = [set(table[system].astype(str).itertuples(index=False, name=None)) for _, table in parts]
    distinct = len(set.union(*names)) == sum(map(len, names))
    return pd.concat(
        [table.assign(run="" if distinct else run.label, source=place) for place, (run, table) in enumerate(parts)],
        ignore_index=True,
    )


def failures(systems: Sequence[tuple[str, pd.DataFrame]]) -> list[Failure]:
    """Failed and fallen-back images by system and reason; systems that share them all are listed together.

    Args:
        systems: name and rows (`probe`, `reference`, `reason`) of each. Where nobody is enrolled no image is named.
    """
    import pandas as pd

    found: dict[tuple[str, str, tuple[str, ...], int], list[str]] = {}
    for name, rows in systems:
        images: dict[tuple[str, str], set[str]] = {}
        touched: Counter[tuple[str, str]] = Counter()
        affected = rows.loc[rows["reason"] != "", ["probe", "reference", "reason"]]
        for probe, reference, reason in affected.itertuples(index=False, name=None):
            for side, outcome, why in read_reason(reason):
                named = images.setdefault((outcome, why), set())
                image = probe if side == "probe" else reference
                if not pd.isna(image):
                    named.add(str(image))
                touched[outcome, why] += 1
        for (outcome, why), names in images.items():
            same = (outcome, why, tuple(sorted(names)), touched[outcome, why])
            found.setdefault(same, []).append(name)
    return [
        Failure("all systems" if len(names) == len(systems) else ", ".join(names), *same)
        for same, names in found.items()
    ]


def is_control(frontalizer: str) -> bool:
    """Whether a frontalizer brings no new texture."""
    return frontalizer.partition(":")[0] in CONTROLS


def controls(table: pd.DataFrame) -> list[str]:
    """Names of the controls among a table's frontalizers, weakest first."""
    found = [str(name) for name in table["frontalizer"].unique() if is_control(str(name))]
    return sorted(found, key=lambda name: (CONTROLS.index(name.partition(":")[0]), name))


def fusions(table: pd.DataFrame) -> Mapping[str, int]:
    """How many fusions each frontalizer was measured with."""
    return table.groupby("frontalizer")["fusion"].nunique().to_dict()


def styles(names: Iterable[str]) -> dict[str, int]:
    """A place among `reports.figures.STYLES` for each name: what most reports hold looks alike in all sections."""
    usual = (*CONTROLS, "srtc")
    others = [name for name in dict.fromkeys(names) if name not in usual]
    return {name: place for place, name in enumerate((*usual, *others))}


def view_name(key: Any, fusion_counts: Mapping[str, int]) -> str:
    """The frontalizer, with the fusion and the run where the table holds several.

    Args:
        key: has the attributes run, frontalizer, fusion.
        fusion_counts: see `fusions`.
    """
    name = key.frontalizer
    if fusion_counts[key.frontalizer] > 1:
        name += f" ({key.fusion})"
    return f"{key.run}: {name}" if key.run else name


def percent(
    value: float,
    low: float | None = None,
    high: float | None = None,
    spread: float | None = None,
    reason: str = "insufficient data",
) -> Estimate:
    """A fraction and its bounds as an estimate in per cent."""
    return Estimate(100 * value, *(None if x is None else 100 * x for x in (low, high, spread)), reason=reason)


def verdict(difference: Estimate, better: str) -> Verdict:
    """Judgement of a paired difference by its interval; "unknown" without one, unless there is no difference.

    Args:
        difference: in any unit.
        better: "lower" or "higher": which values of the compared quantity are good.
    """
    if math.isnan(difference.value):
        return "unknown"
    if difference.low is None or difference.high is None:
        return "noise" if difference.value == 0 else "unknown"
    if not metrics.leaves_out_zero(difference.low, difference.high):
        return "noise"
    return "better" if (difference.value < 0) == (better == "lower") else "worse"


def points(difference: Estimate) -> str:
    """A difference of rates in words, e.g. "−0.93 points [−1.52, −0.31]"."""
    if math.isnan(difference.value):
        return "not measurable"
    value, bracket, interval = difference.format(minus="−").partition(" [")
    return f"{value} points{bracket}{interval}"


def counted(number: int, noun: str) -> str:
    """E.g. "1 fold", "2,800 comparisons"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def slug(text: str) -> str:
    """Letters, digits and hyphens, for anchors and file names."""
    return "".join(character if character.isalnum() else "-" for character in text.lower()).strip("-")


def slugs(names: Iterable[str]) -> dict[str, str]:
    """A slug for each name; those of names that differ in other characters alone are numbered from the second on."""
    found: dict[str, str] = {}
    times: Counter[str] = Counter()
    for name in names:
        plain = slug(name)
        times[plain] += 1
        found[name] = plain if times[plain] == 1 else f"{plain}-{times[plain]}"
    return found
