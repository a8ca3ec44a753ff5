"""Figures of runs, computed from score tables alone: one row a system and setting."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pifr.errors import ConfigError
from protocols import metrics
from protocols.base import COMPARISON, SYSTEM, read_reason
from protocols.metrics import EerRule

if TYPE_CHECKING:
    import pandas as pd

KEYS = ("run", "protocol", "setting", *SYSTEM)
"""What a row of a summary is about. `run` is "" for a table without runs."""

FMR_POINTS = (1e-1, 1e-2, 1e-3)


def summarise(
    scores: "pd.DataFrame",
    *,
    eer_rule: EerRule = "interpolated",
    fmr_points: Sequence[float] = FMR_POINTS,
    replicates: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> "pd.DataFrame":
    """Every figure of every system in a score table.

    Failed comparisons take no part in a rate except in `eer_rejecting`; `fta` says how many images they come from.

    Args:
        scores: columns `protocols.base.SCORE_COLUMNS`, and optionally `run`.
        eer_rule: `interpolated` or `nearest`: mean over folds; `pooled`: all comparisons together.
        fmr_points: where FNMR is read off, all folds pooled.
        replicates, seed, confidence: of the bootstrap over subjects.

    Returns:
        One row a system and setting, in order of appearance. Rates are fractions, NaN where they cannot be measured:
        `KEYS`; `genuine`, `impostor` (comparisons measured), `failed` (comparisons not), `folds`, `images`,
        `failed_images`, `fallback_images`, `fta`; `eer_rule`, `eer`, `eer_std`, `eer_low`, `eer_high` (interval),
        `eer_rejecting` (failed comparisons counted as non-matches), `auc`, `accuracy`, `accuracy_std` (cross-validated
        threshold); `fnmr@F` for each point F (NaN: insufficient data).
    """
    import pandas as pd

    rows = []
    for key, system in _systems(scores).items():
        row: dict[str, Any] = dict(zip(KEYS, key, strict=True)) | count_failures(system)
        measured = Comparisons.of(system[system["score"].notna()])
        row |= {"genuine": int(measured.same.sum()), "impostor": int((~measured.same).sum())}
        row |= {"failed": len(system) - len(measured.same), "folds": system["fold"].nunique(), "eer_rule": eer_rule}
        if row["genuine"] and row["impostor"]:
            row |= _figures(measured, eer_rule, fmr_points, replicates, seed, confidence)
            row["eer_rejecting"] = Comparisons.of(system, failures_lowest=True).eer(eer_rule).mean
        rows.append(row)
    columns = [
        *KEYS,
        *("genuine", "impostor", "failed", "folds", "images", "failed_images", "fallback_images", "fta"),
        *("eer_rule", "eer", "eer_std", "eer_low", "eer_high", "eer_rejecting"),
        *("auc", "accuracy", "accuracy_std", *(fnmr_column(point) for point in fmr_points)),
    ]
    return pd.DataFrame(rows, columns=columns)


def paired_differences(
    scores: "pd.DataFrame",
    baseline: Mapping[str, str],
    *,
    eer_rule: EerRule = "interpolated",
    replicates: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> "pd.DataFrame":
    """EER of each system minus that of its baseline, on the comparisons that both measured.

    Args:
        scores: as for `summarise`.
        baseline: what is the baseline of a row: a system of the same protocol and setting that has these values of
            `run`, `recognizer`, `frontalizer` or `fusion`, and the row's own values of those not named. Where `fusion`
            is neither named nor found with the row's own value, the baseline's first fusion is taken.

    Returns:
        One row a system that has a baseline other than itself: `KEYS`; `baseline` (its name); `pairs` (comparisons
        that both measured); `difference`, `low`, `high` (fractions, bootstrap over subjects); `p_value` (paired t-test
        over the folds); `beyond_noise` (whether the interval leaves out 0); `per_fold` (list of differences).

    Raises:
        ConfigError: the baseline names something else than the four, or nothing in the table.
    """
    import pandas as pd

    unknown = set(baseline) - {"run", *SYSTEM}
    if unknown:
        raise ConfigError(f"baseline names {', '.join(sorted(unknown))}: use run, {', '.join(SYSTEM)}")
    systems = {key: _measured(system) for key, system in _systems(scores).items()}
    cached: dict[tuple, tuple[np.ndarray, np.ndarray]] = {}

    def eer(key: tuple[str, ...], chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """EER a fold and bootstrap replicates of a system on the chosen rows; a baseline is asked for often."""
        place = (key, chosen.tobytes())
        if place not in cached:
            pairs = Comparisons.of(systems[key].iloc[chosen])
            cached[place] = pairs.eer(eer_rule).values, pairs.eer_replicates(eer_rule, replicates, seed)
        return cached[place]

    rows = []
    for key, system in systems.items():
        other = _baseline_of(key, systems, baseline)
        if other is None or other == key:
            continue
        row: dict[str, Any] = dict(zip(KEYS, key, strict=True))
        own, others = _common(system, systems[other])
        row |= {"baseline": _name(other, key), "pairs": len(own)}
        if system["same"].iloc[own].nunique() == 2:
            (folds_a, draws_a), (folds_b, draws_b) = eer(other, others), eer(key, own)
            result = metrics.paired_difference(folds_a, folds_b, draws_a, draws_b, confidence)
            row |= {
                "difference": result.difference,
                "low": result.low,
                "high": result.high,
                "p_value": result.p_value,
                "beyond_noise": result.beyond_noise,
                "per_fold": result.per_fold.tolist(),
            }
        rows.append(row)
    if not rows and not any(_matches(key, baseline) for key in systems):
        wanted = ", ".join(f"{name}={value}" for name, value in baseline.items())
        known = {f"{key[0]}: {_name(key)}" if "run" in baseline else _name(key) for key in systems}
        raise ConfigError(f"no system is {wanted}: there are {', '.join(sorted(known))}")
    columns = [*KEYS, "baseline", "pairs", "difference", "low", "high", "p_value", "beyond_noise", "per_fold"]
    return pd.DataFrame(rows, columns=columns)


def count_failures(system: "pd.DataFrame") -> dict[str, Any]:
    """Of one system's comparisons: `images`, `failed_images`, `fallback_images`, and `fta`, the share that failed.

    A reference that is None, of someone who is not enrolled, is no image.
    """
    images: set[str] = set()
    found: dict[str, set[str]] = {"failed": set(), "fallback": set()}
    for side in ("probe", "reference"):
        table = system[[side, "reason"]].dropna(subset=side).astype(str).drop_duplicates()
        images.update(table[side])
        for image, reason in table[table["reason"] != ""].itertuples(index=False, name=None):
            for incident in read_reason(reason):
                if incident.side == side:
                    found[incident.outcome].add(image)
    return {
        "images": len(images),
        "failed_images": len(found["failed"]),
        "fallback_images": len(found["fallback"]),
        "fta": len(found["failed"]) / len(images) if images else float("nan"),
    }


def fnmr_column(point: float) -> str:
    """Name of the column that holds FNMR at this FMR."""
    return f"fnmr@{point:g}"


class Comparisons:
    """Comparisons of one system as arrays. Where a subject is not known, each comparison counts as its own subject."""

    def __init__(
        self, same: np.ndarray, score: np.ndarray, fold: np.ndarray, first: np.ndarray, second: np.ndarray
    ) -> None:
        self.same, self.score, self.fold, self.first, self.second = same, score, fold, first, second

    @classmethod
    def of(cls, table: "pd.DataFrame", *, failures_lowest: bool = False) -> "Comparisons":
        score = table["score"].to_numpy(np.float64)
        if failures_lowest and len(score):
            score = np.where(np.isnan(score), np.nanmin(score, initial=0.0) - 1.0, score)
        subjects = [table[f"{side}_subject"].fillna("").astype(str).to_numpy(object) for side in ("probe", "reference")]
        unknown = (subjects[0] == "") | (subjects[1] == "")
        own = (table["probe"].astype(str) + " against " + table["reference"].astype(str)).to_numpy(object)
        first, second = (np.where(unknown, own, subject) for subject in subjects)
        return cls(table["same"].to_numpy(bool), score, table["fold"].to_numpy(), first, second)

    def eer(self, rule: EerRule) -> metrics.FoldStatistics:
        return metrics.eer_over_folds(self.same, self.score, self.fold, rule)

    def eer_replicates(self, rule: EerRule, replicates: int, seed: int) -> np.ndarray:
        return metrics.eer_replicates(
            self.same, self.score, self.fold, self.first, self.second, rule=rule, replicates=replicates, seed=seed
        )


def _figures(
    pairs: Comparisons,
    rule: EerRule,
    fmr_points: Sequence[float],
    replicates: int,
    seed: int,
    confidence: float,
) -> dict[str, Any]:
    eer = pairs.eer(rule)
    draws = pairs.eer_replicates(rule, replicates, seed)
    low, high = metrics.percentile_interval(draws, confidence)
    figures = {"eer": eer.mean, "eer_std": eer.std, "eer_low": low, "eer_high": high}
    figures["auc"] = metrics.area_under_curve(pairs.same, pairs.score)
    if len(np.unique(pairs.fold)) > 1:
        accuracy = metrics.cross_validated_accuracy(pairs.same, pairs.score, pairs.fold)
        figures |= {"accuracy": accuracy.mean, "accuracy_std": accuracy.std}
    return figures | {fnmr_column(point): metrics.fnmr_at_fmr(pairs.same, pairs.score, point) for point in fmr_points}


def _systems(scores: "pd.DataFrame") -> dict[tuple[str, ...], "pd.DataFrame"]:
    if "run" not in scores.columns:
        scores = scores.assign(run="")
    groups = scores.groupby(list(KEYS), sort=False, observed=True)
    return {tuple(map(str, key)): group for key, group in groups}


def _matches(key: tuple[str, ...], wanted: Mapping[str, str]) -> bool:
    values = dict(zip(KEYS, key, strict=True))
    return all(values[name] == value for name, value in wanted.items())


def _baseline_of(
    key: tuple[str, ...], systems: Mapping[tuple[str, ...], "pd.DataFrame"], baseline: Mapping[str, str]
) -> tuple[str, ...] | None:
    wanted = dict(zip(KEYS, key, strict=True)) | dict(baseline)
    same_fusion = [other for other in systems if _matches(other, wanted)]
    if same_fusion or "fusion" in baseline:
        return next(iter(same_fusion), None)
    del wanted["fusion"]
    return next((other for other in systems if _matches(other, wanted)), None)


def _measured(system: "pd.DataFrame") -> "pd.DataFrame":
    """Comparisons with a score, each once, rows numbered."""
    return system[system["score"].notna()].drop_duplicates(COMPARISON).reset_index(drop=True)


def _common(first: "pd.DataFrame", second: "pd.DataFrame") -> tuple[np.ndarray, np.ndarray]:
    """Rows of either table whose comparisons the other has too, rising."""
    own = first[COMPARISON].assign(first=first.index)
    joined = own.merge(second[COMPARISON].assign(second=second.index), on=COMPARISON)
    return np.sort(joined["first"].to_numpy()), np.sort(joined["second"].to_numpy())


def _name(key: tuple[str, ...], relative_to: tuple[str, ...] | None = None) -> str:
    """As "recognizer / frontalizer / fusion", with the run in front where it is another run's."""
    run, _, _, *system = key
    name = " / ".join(system)
    return f"{run}: {name}" if relative_to is not None and run != relative_to[0] else name
