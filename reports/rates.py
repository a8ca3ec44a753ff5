"""Rates of verification in tables: their columns, their cells, and what captions say of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from protocols.metrics import EerRule
from protocols.summary import FMR_POINTS, Statistics, fnmr_column
from reports.measurements import percent
from reports.tables import Better, Column, DataSet, Estimate

_EER_RULES = {
    "interpolated": "EER where the linearly interpolated ROC of each fold crosses FMR = FNMR, mean over folds",
    "nearest": "EER as (FMR + FNMR) / 2 of each fold where the two are nearest, mean over folds",
    "pooled": "EER of all folds' comparisons together, ROC linearly interpolated",
}
_FEW_FALSE_MATCHES = 10  # expected; the rate of fewer is uncertain by over a third


def rate_columns(data_set: DataSet, rule: EerRule, failures: bool) -> tuple[Column, ...]:
    """Columns of the rates of one system: those of `rate_cells`.

    Args:
        data_set: what they are measured on.
        rule: of the EER; any other than the usual one is named, for figures by two rules cannot be compared.
        failures: whether any system has one.
    """
    eer = "EER (%)" if rule == Statistics().eer_rule else f"EER (%), {rule}"
    names: list[tuple[str, Better]] = [(eer, "lower")]
    if failures:
        names.append((f"{eer}, failures rejected", "lower"))
    names += [(f"FNMR (%) at FMR {100 * point:g} %", "lower") for point in FMR_POINTS]
    names += [("accuracy (%)", "higher"), ("AUC (%)", "higher"), ("FTA (%)", "lower")]
    return tuple(Column(name, data_set, "measured", better) for name, better in names)


def rate_cells(found: Mapping[str, Any], failures: bool) -> tuple[Estimate, ...]:
    """Rates of one system; `found` is a row of `protocols.summary.summarise`, `failures` as in `rate_columns`."""
    return (
        percent(found["eer"], found["eer_low"], found["eer_high"], found["eer_std"]),
        *((percent(found["eer_rejecting"]),) if failures else ()),
        *(percent(found[fnmr_column(point)]) for point in FMR_POINTS),
        percent(
            found["accuracy"],
            spread=found["accuracy_std"],
            reason="insufficient data" if found["folds"] > 1 else "one fold",
        ),
        percent(found["auc"]),
        percent(found["fta"]),
    )


def resampled(named: bool) -> str:
    """What a bootstrap draws, as captions call it; `named`: whether the table names the subjects."""
    return "subjects" if named else "inferred subjects"


def notes_on_rates(statistics: Statistics, named: bool) -> list[str]:
    """What captions say of the rates of `rate_cells` and of their intervals."""
    inferred = (
        "Inferred subjects: nobody is named, so images that genuine pairs join count as one person. Where a person's "
        "pairs share no image, intervals are too narrow."
    )
    return [
        f"{_EER_RULES[statistics.eer_rule]}; ± is the standard deviation over folds, brackets the "
        f"{statistics.interval} of {statistics.resamples(resampled(named))}; no brackets where no resample has another "
        "EER, as without any error, or where a fold has fewer than three subjects, or all together fewer than five.",
        *(() if named else (inferred,)),
        "Accuracy: at the threshold that is best on the other folds. AUC and FNMR: all folds together.",
        "FTA: share of images from which no face was acquired; their comparisons are left out of the other rates.",
    ]


def notes_on_fnmr(impostors: int) -> list[str]:
    """What captions say of FNMR at an FMR that few or too few of the impostor comparisons determine."""
    expected = {point: impostors * point for point in FMR_POINTS}
    return [
        "“insufficient data”: too few impostor comparisons to measure that FMR.",
        *(
            f"FNMR at FMR {100 * point:g} % is a rough figure: it rests on {count:.2g} expected false matches."
            for point, count in expected.items()
            if 3 <= count < _FEW_FALSE_MATCHES
        ),
    ]
