"""From runs to a report, and from a report to files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pifr.support.files import write_whole
from protocols.summary import Statistics
from reports.content import VERDICT_WORDS, Provenance, Report, Section, Verdict
from reports.identification import identification_studies
from reports.montage import PanelSource
from reports.paper import paper_tables
from reports.reconstruction import reconstruction_studies
from reports.runs import MeasuredRun
from reports.tables import to_csv, to_html, to_latex, to_markdown
from reports.verification import verification_studies


def build_report(
    runs: Sequence[MeasuredRun],
    timestamp: str,
    statistics: Statistics | None = None,
    panels: PanelSource | None = None,
    title: str = "",
) -> Report:
    """Everything that the runs' tables say.

    Args:
        runs: see `reports.runs.read_runs`.
        timestamp: printed as it is; the only part of the report that is not computed from the runs.
        statistics: EER rule and bootstrap; by default interpolated, 1,000 resamples, 95 %.
        panels: pictures for montages; without it there are none.
        title: of the page; by default it names the runs.
    """
    import pifr

    statistics = statistics or Statistics()
    verification = verification_studies(runs, statistics)
    identification = identification_studies(runs, statistics)
    reconstruction = reconstruction_studies(runs, statistics)
    studies = [*verification, *identification, *reconstruction]
    sections = [study.section(panels) for study in verification]
    sections += [study.section() for study in (*identification, *reconstruction)]
    sections = [_with_controls_last(section) for section in sections]
    cautions = list(dict.fromkeys(caution for study in studies for caution in study.cautions()))
    judged = sum(finding.verdict != "unknown" for section in sections for finding in section.findings)
    if judged:
        by_chance = judged * (1 - statistics.confidence)
        cautions.append(
            f"{judged} difference{'s are' if judged > 1 else ' is'} judged above, each by its own "
            f"{statistics.interval}; if nothing differed at all, up to {by_chance:.1f} would still look beyond noise, "
            "and more where harm is looked for yaw by yaw."
        )
    cautions.append(
        "Published figures were obtained by others with other models and alignment; they are no controlled comparison."
    )
    return Report(
        title=title or f"pifr report: {', '.join(run.label for run in runs)}",
        timestamp=timestamp,
        version=pifr.__version__,
        headlines=_headlines(sections),
        cautions=tuple(cautions),
        sections=tuple(sections),
        paper=tuple(paper_tables(studies)),
        provenance=tuple(Provenance(run.label, run.data_set, run.record) for run in runs),
    )


def _headlines(sections: Sequence[Section]) -> tuple[str, ...]:
    """One sentence a view maker, its control and kind of data: how often it was better, worse, within noise."""
    verdicts: dict[tuple[bool, str, str], list[Verdict]] = {}
    for section in sections:
        for finding in section.findings:
            if finding.view:
                verdicts.setdefault((finding.data_set.synthetic, finding.view, finding.against), []).append(
                    finding.verdict
                )
    return tuple(
        f"{view}{' on synthetic data' if synthetic else ''}: "
        + ", ".join(
            f"{words} in {found.count(verdict)}" for verdict, words in VERDICT_WORDS.items() if verdict in found
        )
        + f" of {len(found)} paired test{'s' if len(found) > 1 else ''} against {against}."
        for (synthetic, view, against), found in verdicts.items()
    )


def _with_controls_last(section: Section) -> Section:
    """What the reader came for first: view makers that bring new texture, then the controls."""
    return replace(section, findings=tuple(sorted(section.findings, key=lambda finding: finding.control)))


def write_html(report: Report, file: str | Path) -> None:
    """Write the HTML report; the file appears whole or not at all."""
    from reports.html import render_html

    write_text(Path(file), render_html(report))


def write_tables(report: Report, folder: str | Path) -> list[Path]:
    """Write every table as `<key>.md`, `.csv`, `.tex` and `.html` into `folder`; the paths."""
    writers = {"md": to_markdown, "csv": to_csv, "tex": to_latex, "html": to_html}
    paths = []
    for table in report.tables():
        for suffix, writer in writers.items():
            paths.append(Path(folder) / f"{table.key}.{suffix}")
            write_text(paths[-1], writer(table))
    return paths


def write_figures(report: Report, folder: str | Path) -> list[Path]:
    """Write every chart as PNG and SVG and every montage as PNG into `folder`; the paths."""
    from PIL import Image

    paths = [path for chart in report.charts() for path in chart.save(Path(folder))]
    for montage in report.montages():
        picture = Image.fromarray(montage.image())
        paths.append(Path(folder) / f"{montage.key}.png")
        write_whole(paths[-1], lambda part, picture=picture: picture.save(part, "PNG"))
    return paths


def write_text(file: Path, text: str) -> None:
    """Write UTF-8 with Unix line ends; the file appears whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    write_whole(file, lambda part: part.write_text(text, encoding="utf-8", newline="\n"))
