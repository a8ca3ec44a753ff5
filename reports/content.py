"""What a report is made of, before it is rendered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from reports.figures import Chart
from reports.montage import Montage
from reports.tables import DataSet, Table

Verdict = Literal["better", "worse", "noise", "unknown"]

VERDICT_WORDS: dict[Verdict, str] = {
    "better": "better",
    "worse": "worse",
    "noise": "within noise",
    "unknown": "cannot be told",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One statement of the summary.

    Attributes:
        data_set: what it was found on.
        verdict: "noise" where the interval of the difference holds zero, "unknown" where there is none.
        text: one sentence with the numbers.
        detail: what it rests on.
        view, against: the view maker that was judged, and the one it was compared with; empty where something else was
            judged.
        control: whether that view maker brings no new texture.
    """

    data_set: DataSet
    verdict: Verdict
    text: str
    detail: str = ""
    view: str = ""
    against: str = ""
    control: bool = False


@dataclass(frozen=True, slots=True)
class Section:
    """One data set's and setting's tables, charts and montages.

    Attributes:
        key: anchor.
        title: heading.
        data_set: what all of it was measured on.
        lead: paragraphs before the tables.
        findings: did it help, by how much, with what certainty.
        hurts: where it does harm, empty where no harm is beyond noise.
        failures: one row a failed or fallen-back image and system.
    """

    key: str
    title: str
    data_set: DataSet
    lead: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    hurts: tuple[Finding, ...] = ()
    tables: tuple[Table, ...] = ()
    charts: tuple[Chart, ...] = ()
    montages: tuple[Montage, ...] = ()
    failures: tuple[Failure, ...] = ()


@dataclass(frozen=True, slots=True)
class Failure:
    """Images that a system could not process, or only by a fallback, for one reason.

    Attributes:
        system: as the tables name it.
        outcome: "failed" or "fallback".
        reason: the machine-readable word of the score table, e.g. "no_face".
        images: sample names, sorted; empty where somebody was not enrolled.
        comparisons: how many comparisons they took part in.
    """

    system: str
    outcome: str
    reason: str
    images: tuple[str, ...]
    comparisons: int


@dataclass(frozen=True, slots=True)
class Provenance:
    """One run: where it came from and all that its record says."""

    label: str
    data_set: DataSet
    record: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Report:
    """All of a report; `timestamp` is the only thing in it that the runs do not determine."""

    title: str
    timestamp: str
    version: str
    headlines: tuple[str, ...]
    cautions: tuple[str, ...]
    sections: tuple[Section, ...]
    paper: tuple[Table, ...]
    provenance: tuple[Provenance, ...]

    def tables(self) -> list[Table]:
        """Every table: the paper's, then the sections'."""
        return [*self.paper, *(table for section in self.sections for table in section.tables)]

    def charts(self) -> list[Chart]:
        """Every chart, in the order of the sections."""
        return [chart for section in self.sections for chart in section.charts]

    def montages(self) -> list[Montage]:
        """Every montage, in the order of the sections."""
        return [montage for section in self.sections for montage in section.montages]
