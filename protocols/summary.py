"""Figures of runs, computed from score tables alone: one row a system and setting."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class Statistics:
    """How rates are computed: the EER rule, and the bootstrap over subjects."""

    eer_rule: EerRule = "interpolated"
    replicates: int = 1000
    seed: int = 0
    confidence: float = 0.95

    @property
    def interval(self) -> str:
        """E.g. "95 % interval"."""
        return f"{100 * self.confidence:g} % interval"

    def resamples(self, of: str = "subjects") -> str:
        """E.g. "1,000 bootstrap resamples of subjects"."""
        return f"{self.replicates:,} bootstrap resamples of {of}"

    def interval_of_mean(self, values: np.ndarray, subject: np.ndarray) -> tuple[float, float]:
        """Interval of the mean of `values`, all values of a `subject` drawn together."""
        draws = metrics.bootstrap_mean(values, subject, replicates=self.replicates, seed=self.seed)
        return metrics.percentile_interval(draws, self.confidence, len(set(subject)))

    def interval_of_rate(self, hits: np.ndarray, subject: np.ndarray) -> tuple[float, float]:
        """Interval of the share of hits (1, not 0), as `interval_of_mean`.

        Where all hit or none does, resampling finds nothing else: then Clopper's and Pearson's (Biometrika 1934), one
        trial a subject.
        """
        if len(hits) and (hits == hits[0]).all():
            open_end = ((1 - self.confidence) / 2) ** (1 / len(set(subject)))
            return (open_end, 1.0) if hits[0] else (0.0, 1 - open_end)
        return self.interval_of_mean(hits, subject)


LISTED = [*COMPARISON, "repeat"]
"""Columns that tell a row of a list of comparisons from the others, once `prepared` has numbered repeats."""


def summarise(
    scores: "pd.DataFrame", statistics: Statistics | None = None, fmr_points: Sequence[float] = FMR_POINTS
) -> "pd.DataFrame":
    """Every figure of every system in a score table.

    Failed comparisons take no part in a rate except in `eer_rejecting`; `fta` says how many images they come from. A
    comparison that is listed twice counts twice.

    Args:
        scores: columns `protocols.base.SCORE_COLUMNS`, and optionally `run`.
        statistics: how the EER and its interval are computed.
        fmr_points: where FNMR is read off, all folds pooled.

    Returns:
        One row a system and setting, in order of appearance. Rates are fractions, NaN where they cannot be measured:
        `KEYS`; `genuine`, `impostor` (comparisons measured), `failed` (comparisons not), `folds`, `images`,
        `failed_images`, `fallback_images`, `fta`; `eer_rule`, `eer`, `eer_std`, `eer_low`, `eer_high` (interval;
        NaN where no resample differs: without an error there is nothing to resample), `eer_rejecting` (failed
        comparisons counted as non-matches), `auc`, `accuracy`, `accuracy_std` (cross-validated threshold); `fnmr@F` for
        each point F (NaN: insufficient data).
    """
    import pandas as pd

    statistics = statistics or Statistics()
    rows = []
    for key, system in _systems(scores).items():
        system = prepared(system)  # by itself: no other run beside it shall change its interval
        row: dict[str, Any] = dict(zip(KEYS, key, strict=True)) | count_failures(system)
        measured = Comparisons.of(system[system["score"].notna()])
        row |= {"genuine": int(measured.same.sum()), "impostor": int((~measured.same).sum())}
        row |= {"failed": len(system) - len(measured.same), "folds": system["fold"].nunique()}
        row["eer_rule"] = statistics.eer_rule
        if row["genuine"] and row["impostor"]:
            row |= _figures(measured, statistics, fmr_points)
            row["eer_rejecting"] = Comparisons.of(system, failures_lowest=True).eer(statistics).mean
        rows.append(row)
    columns = [
        *KEYS,
        *("genuine", "impostor", "failed", "folds", "images", "failed_images", "fallback_images", "fta"),
        *("eer_rule", "eer", "eer_std", "eer_low", "eer_high", "eer_rejecting"),
        *("auc", "accuracy", "accuracy_std", *(fnmr_column(point) for point in fmr_points)),
    ]
    return pd.DataFrame(rows, columns=columns)


def paired_differences(
    scores: "pd.DataFrame", baseline: Mapping[str, str], statistics: Statistics | None = None
) -> "pd.DataFrame":
    """EER of each system minus that of its baseline, on the comparisons that both measured.

    Args:
        scores: as for `summarise`.
        baseline: what is the baseline of a row: a system of the same protocol and setting that has these values of
            `run`, `recognizer`, `frontalizer` or `fusion`, and the row's own values of those not named. Where `fusion`
            is neither named nor found with the row's own value, the baseline's first fusion is taken.
        statistics: how the EERs and the interval are computed.

    Returns:
        One row a system that has a baseline other than itself: `KEYS`; `baseline` (its name); `pairs` (comparisons
        that both measured); `own_eer`, `baseline_eer` (on these); `difference`, `low`, `high` (fractions, bootstrap
        over subjects); `p_value` (paired t-test over the folds; NaN where two of them share a subject); `beyond_noise`
        (whether the interval leaves out 0);
        `per_fold` (list of differences).

    Raises:
        ConfigError: the baseline names something else than the four, or nothing in the table.
    """
    import pandas as pd

    statistics = statistics or Statistics()
    unknown = set(baseline) - {"run", *SYSTEM}
    if unknown:
        raise ConfigError(f"baseline names {', '.join(sorted(unknown))}: use run, {', '.join(SYSTEM)}")
    systems = _systems(scores)
    cached: dict[tuple, tuple[metrics.FoldStatistics, np.ndarray]] = {}

    def eer(key: tuple[str, ...], pairs: Comparisons) -> tuple[metrics.FoldStatistics, np.ndarray]:
        """EER a fold and bootstrap replicates of a system on some of its rows; a baseline is asked for often."""
        place = (key, pairs.score.tobytes(), tuple(pairs.first), tuple(pairs.second))
        if place not in cached:
            cached[place] = pairs.eer(statistics), pairs.eer_replicates(statistics)
        return cached[place]

    rows = []
    for key, system in systems.items():
        other = _baseline_of(key, systems, baseline)
        if other is None or other == key:
            continue
        row: dict[str, Any] = dict(zip(KEYS, key, strict=True))
        own, others = _common(system, systems[other])
        row |= {"baseline": _name(other, key), "pairs": len(own.same)}
        if len(np.unique(own.same)) == 2:
            (plain, plain_draws), (found, draws) = eer(other, others), eer(key, own)
            result = metrics.paired_difference(plain.values, found.values, plain_draws, draws, statistics.confidence)
            apart = metrics.folds_sharing_subjects(own.fold, own.first, own.second)
            row |= {
                "own_eer": found.mean,
                "baseline_eer": plain.mean,
                "difference": result.difference,
                "low": result.low,
                "high": result.high,
                "p_value": result.p_value if len(apart) == len(np.unique(own.fold)) else float("nan"),
                "beyond_noise": result.beyond_noise,
                "per_fold": result.per_fold.tolist(),
            }
        rows.append(row)
    if not rows and not any(_matches(key, baseline) for key in systems):
        wanted = ", ".join(f"{name}={value}" for name, value in baseline.items())
        known = {f"{key[0]}: {_name(key)}" if "run" in baseline else _name(key) for key in systems}
        raise ConfigError(f"no system is {wanted}: there are {', '.join(sorted(known))}")
    columns = [*KEYS, "baseline", "pairs", "own_eer", "baseline_eer"]
    columns += ["difference", "low", "high", "p_value", "beyond_noise", "per_fold"]
    return pd.DataFrame(rows, columns=columns)


def prepared(scores: "pd.DataFrame") -> "pd.DataFrame":
    """A score table with a subject for every image, and with a number for each comparison that a list repeats.

    A list may repeat a comparison, as published ones may: it then counts as often as it stands there, and `repeat` (0
    for the first) tells the rows apart. Where a subject is not named, the images that genuine pairs join count as one:
    people of whom the pairs recur would else be drawn as many. An image that no genuine pair holds is a subject of its
    own.
    """
    if "repeat" in scores.columns:
        return scores  # it is already, or is a part of one that is
    keys = [*(name for name in KEYS if name in scores.columns), *COMPARISON]
    scores = scores.assign(repeat=scores.groupby(keys, sort=False, dropna=False).cumcount())
    if subjects_named(scores):
        return scores
    import pandas as pd
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    nodes = []
    for side in ("probe", "reference"):
        subject = scores[f"{side}_subject"].fillna("").astype(str)
        nodes.append(subject.where(subject != "", scores["protocol"].astype(str) + " " + scores[side].astype(str)))
    codes, names = pd.factorize(pd.concat(nodes), sort=True)
    first, second = np.split(codes, 2)
    joined = scores["same"].to_numpy(bool)
    links = coo_array((np.ones(joined.sum()), (first[joined], second[joined])), shape=(len(names), len(names)))
    _, group = connected_components(links, directed=False)
    subject = pd.Series(names).groupby(group).transform("first").to_numpy()
    return scores.assign(probe_subject=subject[first], reference_subject=subject[second])


def subjects_named(scores: "pd.DataFrame") -> bool:
    """Whether a score table says who is on every image."""
    return all((scores[f"{side}_subject"].fillna("") != "").all() for side in ("probe", "reference"))


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
    """Comparisons of one system as arrays; `first` and `second` are the subjects."""

    def __init__(
        self, same: np.ndarray, score: np.ndarray, fold: np.ndarray, first: np.ndarray, second: np.ndarray
    ) -> None:
        self.same, self.score, self.fold, self.first, self.second = same, score, fold, first, second

    @classmethod
    def of(cls, table: "pd.DataFrame", *, failures_lowest: bool = False) -> "Comparisons":
        score = table["score"].to_numpy(np.float64)
        if failures_lowest and len(score):
            score = np.where(np.isnan(score), np.nanmin(score, initial=0.0) - 1.0, score)
        first, second = (table[f"{side}_subject"].astype(str).to_numpy(object) for side in ("probe", "reference"))
        return cls(table["same"].to_numpy(bool), score, table["fold"].to_numpy(), first, second)

    def eer(self, statistics: Statistics) -> metrics.FoldStatistics:
        return metrics.eer_over_folds(self.same, self.score, self.fold, statistics.eer_rule)

    def eer_replicates(self, statistics: Statistics) -> np.ndarray:
        return metrics.eer_replicates(
            self.same,
            self.score,
            self.fold,
            self.first,
            self.second,
            rule=statistics.eer_rule,
            replicates=statistics.replicates,
            seed=statistics.seed,
        )


def _figures(pairs: Comparisons, statistics: Statistics, fmr_points: Sequence[float]) -> dict[str, Any]:
    eer = pairs.eer(statistics)
    low, high = metrics.percentile_interval(pairs.eer_replicates(statistics), statistics.confidence)
    figures = {"eer": eer.mean, "eer_std": eer.std, "eer_low": low, "eer_high": high}
    figures["auc"] = metrics.area_under_curve(pairs.same, pairs.score)
    if len(np.unique(pairs.fold)) > 1:
        accuracy = metrics.cross_validated_accuracy(pairs.same, pairs.score, pairs.fold)
        figures |= {"accuracy": accuracy.mean, "accuracy_std": accuracy.std}
    return figures | {fnmr_column(point): metrics.fnmr_at_fmr(pairs.same, pairs.score, point) for point in fmr_points}


def _systems(scores: "pd.DataFrame") -> dict[tuple[str, ...], "pd.DataFrame"]:
    """Rows of a prepared score table by the system that they are of."""
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


def _common(first: "pd.DataFrame", second: "pd.DataFrame") -> tuple["Comparisons", "Comparisons"]:
    """Of two systems the comparisons that both measured, in one order; subjects are inferred from their lists alone."""
    import pandas as pd

    both = prepared(pd.concat([first.assign(place=1), second.assign(place=2)], ignore_index=True))
    one, other = (both[(both["place"] == place) & both["score"].notna()] for place in (1, 2))
    joined = one.merge(other[[*LISTED, "score"]], on=LISTED, suffixes=("", "_other"))
    return Comparisons.of(joined), Comparisons.of(joined.assign(score=joined["score_other"]))


def _name(key: tuple[str, ...], relative_to: tuple[str, ...] | None = None) -> str:
    """As "recognizer / frontalizer / fusion", with the run in front where it is another run's."""
    run, _, _, *system = key
    name = " / ".join(system)
    return f"{run}: {name}" if relative_to is not None and run != relative_to[0] else name
