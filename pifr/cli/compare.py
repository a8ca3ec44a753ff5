"""`pifr compare`: figures of runs side by side, from their score tables alone."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    import pandas as pd

    from protocols.metrics import EerRule
    from protocols.runs import Run
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

    statistics = {"eer_rule": eer_rule.value, "confidence": confidence, "replicates": replicates, "seed": seed}
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
    statistics: Mapping[str, Any] | None = None,
) -> str:
    """The figures of runs as text.

    Args:
        runs: at least one with a score table.
        format: how they are written.
        baseline: as `protocols.summary.paired_differences` takes it; None: the frontalizer `none` if there is one.
        statistics: arguments of `protocols.summary.summarise`.

    Raises:
        DataError: no run has a score table.
        ConfigError: the baseline is not among the systems.
    """
    from reports.measurements import Statistics
    from reports.tables import to_latex, to_markdown

    statistics = dict(statistics or {})
    figures = comparison(runs, baseline, **statistics)
    if format is Format.CSV:
        return figures.to_csv(index=False, lineterminator="\n")
    if format is Format.JSON:
        return figures.to_json(orient="records", indent=2, double_precision=15) + "\n"
    tables = _tables(figures, Statistics(**statistics).interval)
    if format is Format.TABLE:
        return _terminal(tables)
    return "\n".join((to_markdown if format is Format.MARKDOWN else to_latex)(table) for table in tables)


def comparison(
    runs: Sequence["Run"],
    baseline: Mapping[str, str] | None = None,
    *,
    eer_rule: "EerRule" = "interpolated",
    confidence: float = 0.95,
    replicates: int = 1000,
    seed: int = 0,
) -> "pd.DataFrame":
    """Every figure of every system of the runs.

    Returns:
        The columns of `protocols.summary.summarise`; `passes`, `data_set`, `synthetic` (None without a record); those
        of the paired differences: `baseline`, `difference`, `difference_low`, `difference_high`, `p_value`,
        `beyond_noise`.
    """
    import json

    import pandas as pd

    from pifr.errors import DataError
    from protocols.summary import KEYS, paired_differences, summarise

    scored = [run for run in runs if run.scores is not None]
    if not scored:
        raise DataError("none of the runs has a score table: see 'pifr report' for landmarks, shape and identification")
    scores = pd.concat([run.scores.assign(run=run.label) for run in scored], ignore_index=True)
    statistics = {"eer_rule": eer_rule, "confidence": confidence, "replicates": replicates, "seed": seed}
    if baseline is None:
        baseline = {"frontalizer": "none"} if (scores["frontalizer"] == "none").any() else {}
    if "run" in baseline and len({json.dumps(_data(run)) for run in scored}) > 1:
        raise DataError("a run can be the baseline of others on the same data only: these differ in their data set")
    figures = summarise(scores, **statistics)
    by_label = {run.label: run for run in scored}
    data_sets = {label: run.record.get("dataset", {}) for label, run in by_label.items()}
    figures["passes"] = [
        by_label[run].passes.get(frontalizer, float("nan"))
        for run, frontalizer in figures[["run", "frontalizer"]].itertuples(index=False)
    ]
    figures["data_set"] = [data_sets[run].get("name", "") for run in figures["run"]]
    figures["synthetic"] = [data_sets[run].get("synthetic") for run in figures["run"]]
    differences = paired_differences(scores, baseline, **statistics).rename(
        columns={"low": "difference_low", "high": "difference_high"}
    )
    return figures.merge(differences.drop(columns=["per_fold", "pairs"]), on=list(KEYS), how="left")


def _data(run: "Run") -> dict[str, Any]:
    """What a run says of its data, but for where they lay."""
    return {key: value for key, value in (run.record.get("dataset") or {}).items() if key != "root"}


def _tables(figures: "pd.DataFrame", interval: str) -> list["Table"]:
    """One table a data set and setting, rates in per cent; `interval` as `Statistics.interval` says it."""
    from protocols.summary import FMR_POINTS, fnmr_column
    from reports.measurements import counted, percent
    from reports.tables import Column, DataSet, Estimate, Row, Table

    # A part of a data set is another data set: its rows do not stand among those of the whole.
    figures = figures.assign(comparisons=figures[["genuine", "impostor", "failed"]].sum(axis=1))
    compared_on = ["protocol", "setting", "data_set", "synthetic", "folds", "comparisons"]
    groups = figures.groupby(compared_on, sort=False, dropna=False)
    several_runs = figures["run"].nunique() > 1
    tables, keys = [], Counter()
    for (protocol, setting, name, synthetic, folds, comparisons), group in groups:
        first = group.iloc[0]
        size = f"{counted(folds, 'fold')}, {counted(comparisons, 'comparison')}"
        known = isinstance(synthetic, bool)
        data_set = DataSet(name or protocol, setting, bool(synthetic) if known else False, size)
        points = [(point, fnmr_column(point)) for point in FMR_POINTS]
        names = ["Passes", "FTA %", "EER %", "ΔEER", "Accuracy %", "AUC %"]
        names += [f"FNMR % at FMR {100 * point:g} %" for point, _ in points]
        better = ["", "lower", "lower", "lower", "higher", "higher", *("lower" for _ in points)]
        rows = []
        for _, system in group.iterrows():
            estimates = [
                Estimate(float(system["passes"]), decimals=0, reason="?"),
                percent(system["fta"]),
                percent(system["eer"], system["eer_low"], system["eer_high"]),
                percent(system["difference"], system["difference_low"], system["difference_high"])
                if isinstance(system["baseline"], str)
                else None,
                percent(system["accuracy"], spread=system["accuracy_std"], reason="one fold"),
                percent(system["auc"]),
                *(percent(system[column]) for _, column in points),
            ]
            labels = (
                system["run"] if several_runs else "",
                system["recognizer"],
                system["frontalizer"],
                system["fusion"],
            )
            rows.append(Row(labels, tuple(estimates), data_set, "measured"))
        rule = "pooled over all folds" if first["eer_rule"] == "pooled" else f"{first['eer_rule']}, mean over folds"
        key = "-".join(filter(None, [protocol, setting])).lower()
        keys[key] += 1
        compared = sorted({text for text in group["baseline"] if isinstance(text, str)})
        notes = [
            f"EER: {rule}.",
            f"[{interval}], subjects resampled; comparisons, where nobody is named.",
            *(
                [
                    f"ΔEER: points of EER, this system's minus that of {', '.join(compared)} on the same comparisons; "
                    "below zero is better."
                ]
                if compared
                else []
            ),
            *_fallbacks(group),
            *([] if known else ["No run.json: whether the people are real is not recorded."]),
        ]
        tables.append(
            Table(
                key=key if keys[key] == 1 else f"{key}-{keys[key]}",
                title=f"Verification on {data_set.title}",
                label_columns=("Run", "Recognizer", "Frontalizer", "Fusion"),
                columns=tuple(
                    Column(*column)
                    for column in zip(names, [data_set] * len(names), ["measured"] * len(names), better, strict=True)
                ),
                rows=tuple(rows),
                notes=tuple(notes),
            )
        )
    return tables


def _fallbacks(figures: "pd.DataFrame") -> list[str]:
    """Says of which systems images were left to their plain crop: their rates are in part those of `none`."""
    fell = figures[figures["fallback_images"] > 0].drop_duplicates(["run", "frontalizer"])
    counts = [f"{row.frontalizer} {row.fallback_images:,} of {row.images:,}" for row in fell.itertuples(index=False)]
    return [f"Images left to their plain crop: {', '.join(counts)}."] if counts else []


def _terminal(tables: Sequence["Table"]) -> str:
    from pifr.cli.console import wide_console
    from reports.tables import to_rich

    console = wide_console()
    with console.capture() as captured:
        for table in tables:
            console.print(to_rich(table))
    return captured.get()
