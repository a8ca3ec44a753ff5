"""`pifr compare`: figures of runs side by side, from their score tables alone."""

import re
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from protocols.runs import Run
    from protocols.summary import Statistics
    from reports.tables import Table


class Format(StrEnum):
    """How figures are written; csv and json hold every figure at full precision."""

    TABLE = "table"
    MARKDOWN = "markdown"
    CSV = "csv"
    LATEX = "latex"
    JSON = "json"


class Rule(StrEnum):
    """See `protocols.metrics.equal_error_rate`."""

    INTERPOLATED = "interpolated"
    NEAREST = "nearest"
    POOLED = "pooled"


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(help="Folders that 'pifr evaluate --out' wrote.", show_default=False)],
    format: Annotated[Format, typer.Option("--format", help="How the figures are written.")] = Format.TABLE,
    baseline: Annotated[
        str | None,
        typer.Option(
            "--baseline",
            help="What each row is compared with: a frontalizer, or any of 'run=..,recognizer=..,frontalizer=..,"
            "fusion=..'; what is not named is the row's own. (none, where it was run)",
        ),
    ] = None,
    eer_rule: Annotated[Rule, typer.Option("--eer-rule", help="How the EER is read off.")] = Rule.INTERPOLATED,
    confidence: Annotated[float, typer.Option("--confidence", min=0.5, max=0.999, help="Of the intervals.")] = 0.95,
    replicates: Annotated[int, typer.Option("--replicates", min=100, help="Bootstrap replicates.")] = 1000,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the bootstrap.")] = 0,
) -> None:
    """Print EER with interval, paired difference, failures, accuracy, AUC and FNMR at FMR of every system."""
    from protocols.runs import load_runs
    from protocols.summary import Statistics

    statistics = Statistics(eer_rule.value, replicates, seed, confidence)
    chosen = parse_baseline(baseline) if baseline else None
    loaded = load_runs(runs)
    if left_out := [run.label for run in loaded if run.scores is None]:
        typer.echo(f"left out, for 'pifr report' reads them: {', '.join(left_out)} (no scores of pairs)", err=True)
    typer.echo(render(loaded, format, chosen, statistics), nl=False)


def parse_baseline(text: str) -> dict[str, str]:
    """What `protocols.summary.paired_differences` takes, of "none" or of "recognizer=sface,frontalizer=none"."""
    # Names of frontalizers hold both separators: srtc:completion=inet,shape=snet.
    if not re.match(r"\s*\w+\s*=", text):
        return {"frontalizer": text}
    parts = (each.partition("=") for each in re.split(r",\s*(?=(?:run|recognizer|frontalizer|fusion)\s*=)", text))
    return {name.strip(): value.strip() for name, _, value in parts}


def render(
    runs: Sequence["Run"],
    format: Format = Format.TABLE,
    baseline: Mapping[str, str] | None = None,
    statistics: "Statistics | None" = None,
) -> str:
    """The figures of runs as text.

    Args:
        runs, baseline, statistics: as `reports.comparison.compare_runs` takes them.
        format: how the figures are written.

    Raises:
        PifrError: as `compare_runs`.
    """
    from protocols.summary import Statistics
    from reports.comparison import compare_runs, comparison_tables
    from reports.tables import to_latex, to_markdown

    statistics = statistics or Statistics()
    figures = compare_runs(runs, baseline, statistics)
    if format is Format.CSV:
        return figures.to_csv(index=False, lineterminator="\n")
    if format is Format.JSON:
        return figures.to_json(orient="records", indent=2, double_precision=15) + "\n"
    tables = comparison_tables(figures, statistics)
    if format is Format.TABLE:
        return _terminal(tables)
    return "\n".join((to_markdown if format is Format.MARKDOWN else to_latex)(table) for table in tables)


def _terminal(tables: Iterable["Table"]) -> str:
    from pifr.cli.support.console import wide_console
    from reports.tables import to_rich

    console = wide_console()
    with console.capture() as captured:
        for table in tables:
            console.print(to_rich(table))
    return captured.get()
