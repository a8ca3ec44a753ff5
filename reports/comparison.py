"""`pifr compare`: every figure of several runs, and one table a list of comparisons."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from pifr.errors import DataError
from protocols.base import COMPARISON, SYSTEM
from protocols.summary import KEYS, Statistics, paired_differences, subjects_named, summarise
from reports.measurements import counted, digest, percent, slug
from reports.rates import notes_on_fnmr, notes_on_rates, rate_cells, rate_columns
from reports.tables import Column, DataSet, Estimate, Row, Table

if TYPE_CHECKING:
    import pandas as pd

    from protocols.runs import Run


def compare_runs(
    runs: Sequence[Run], baseline: Mapping[str, str] | None = None, statistics: Statistics | None = None
) -> pd.DataFrame:
    """Every figure of every system of the runs.

    Args:
        runs: at least one with a score table.
        baseline: as `protocols.summary.paired_differences` takes it; None: the frontalizer `none` if there is one.
        statistics: how EERs and intervals are computed.

    Returns:
        The columns of `protocols.summary.summarise`; `passes`, `data_set`, `synthetic` (None without a record);
        `comparisons_sha256` (of the list of comparisons), `subjects_named`; those of the paired differences:
        `baseline`, `pairs`, `own_eer`, `baseline_eer`, `difference`, `difference_low`, `difference_high`, `p_value`,
        `beyond_noise`.

    Raises:
        DataError: no run has a score table, or one is to be the baseline of others on other data.
        ConfigError: the baseline is not among the systems.
    """
    import pandas as pd

    scored = {run.label: run for run in runs if run.scores is not None}
    if not scored:
        raise DataError("none of the runs has a score table: see 'pifr report' for landmarks, shape and identification")
    scores = pd.concat([run.scores.assign(run=label) for label, run in scored.items()], ignore_index=True)
    if baseline is None:
        baseline = {"frontalizer": "none"} if (scores["frontalizer"] == "none").any() else {}
    parts = {
        tuple(map(str, part)): (digest(table, SYSTEM, COMPARISON), subjects_named(table))
        for part, table in scores.groupby(["run", "protocol", "setting"], sort=False)
    }
    if "run" in baseline and not _on_the_same_data(scored.values(), parts):
        raise DataError("a run can be the baseline of others on the same data only: these differ in their data set")
    figures = summarise(scores, statistics)
    systems = list(figures.itertuples(index=False))
    data_sets = {label: run.record.get("dataset", {}) for label, run in scored.items()}
    figures["passes"] = [scored[row.run].passes.get(row.frontalizer, float("nan")) for row in systems]
    figures["data_set"] = [data_sets[row.run].get("name", "") for row in systems]
    figures["synthetic"] = [data_sets[row.run].get("synthetic") for row in systems]
    found = [parts[row.run, row.protocol, row.setting] for row in systems]
    figures["comparisons_sha256"], figures["subjects_named"] = zip(*found, strict=True)
    differences = paired_differences(scores, baseline, statistics).rename(
        columns={"low": "difference_low", "high": "difference_high"}
    )
    return figures.merge(differences.drop(columns="per_fold"), on=list(KEYS), how="left")


def _on_the_same_data(runs: Sequence[Run], parts: Mapping[tuple[str, ...], tuple[str, bool]]) -> bool:
    """Whether all runs say the same of their data, but for where they lay, and each setting has one list of pairs."""
    data = [{**(run.record.get("dataset") or {}), "root": None} for run in runs]
    lists: dict[tuple[str, ...], set[str]] = {}
    for (_, *part), (comparisons, _) in parts.items():
        lists.setdefault(tuple(part), set()).add(comparisons)
    return len({json.dumps(each, sort_keys=True) for each in data}) == 1 and all(len(f) == 1 for f in lists.values())


def comparison_tables(figures: pd.DataFrame, statistics: Statistics) -> Iterator[Table]:
    """One table a data set, setting and list of comparisons; `figures` are those of `compare_runs`."""
    import pandas as pd

    keys: Counter[str] = Counter()
    together = ["protocol", "setting", "data_set", "synthetic", "comparisons_sha256"]
    several_runs = figures["run"].nunique() > 1
    for (protocol, setting, name, synthetic, _), group in figures.groupby(together, sort=False, dropna=False):
        first, known = group.iloc[0], not pd.isna(synthetic)
        comparisons = counted(int(first[["genuine", "impostor", "failed"]].sum()), "comparison")
        size = f"{counted(first['folds'], 'fold')}, {comparisons}"
        data_set = DataSet(name or protocol, setting, known and bool(synthetic), size)
        failures = bool(group["failed"].any())
        eer, *rates = rate_columns(data_set, statistics.eer_rule, failures)
        change, passes = Column("ΔEER (points)", data_set, "measured", "lower"), Column("passes", data_set, "measured")
        rows = []
        for _, system in group.iterrows():
            labels = (system["run"] if several_runs else "", *(system[part] for part in SYSTEM))
            own_eer, *own_rates = rate_cells(system, failures)
            views = Estimate(float(system["passes"]), decimals=0, reason="?")
            rows.append(Row(labels, (own_eer, _difference(system), *own_rates, views), data_set, "measured"))
        key = slug("-".join(filter(None, [protocol, setting])))
        keys[key] += 1
        yield Table(
            key if keys[key] == 1 else f"{key}-{keys[key]}",
            f"Verification on {data_set.title}",
            ("Run", "Recognizer", "Frontalizer", "Fusion"),
            (eer, change, *rates, passes),
            tuple(rows),
            (
                *notes_on_rates(statistics, bool(first["subjects_named"])),
                *_notes_on_differences(group),
                *notes_on_fnmr(int(group["impostor"].max())),
                *_notes_on_fallbacks(group),
                *(() if known else ("No run.json says whether the people are real.",)),
            ),
        )


def _difference(system: pd.Series) -> Estimate | None:
    if not isinstance(system["baseline"], str):
        return None
    return percent(system["difference"], system["difference_low"], system["difference_high"])


def _notes_on_differences(figures: pd.DataFrame) -> list[str]:
    baselines = sorted(set(figures["baseline"].dropna()))
    if not baselines:
        return []
    return [
        f"ΔEER: this system's EER minus that of {', '.join(baselines)}, on the comparisons that both measured; below "
        "zero is better."
    ]


def _notes_on_fallbacks(figures: pd.DataFrame) -> list[str]:
    """Says of which systems images were left to their plain crop: their rates are in part those of `none`."""
    fell = figures[figures["fallback_images"] > 0].drop_duplicates(["run", "frontalizer"])
    counts = [f"{row.frontalizer} {row.fallback_images:,} of {row.images:,}" for row in fell.itertuples(index=False)]
    return [f"Images left to their plain crop: {', '.join(counts)}."] if counts else []
