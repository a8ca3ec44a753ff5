"""Metrics of verification and identification: pure functions of labels and scores.

Everywhere: `same` is bool, `score` is float and higher is more alike, a comparison is a match when
`score >= threshold`. Rates are fractions in [0, 1]. Scores are finite: what to do with failed comparisons is the
caller's decision (leave them out and state the failure-to-acquire rate, or count them as the lowest score).

Names of the rates follow ISO/IEC 19795-1: FMR, FNMR (of comparisons that took place), FTA (share of images from which
nothing could be acquired).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

EerRule = Literal["interpolated", "nearest", "pooled"]
EER_RULES: tuple[EerRule, ...] = get_args(EerRule)

_FEWEST_SUBJECTS = 5
"""Of fewer subjects, resampling finds too few other samples: no difference at all would look certain in 10 to 50 %."""

_FEWEST_OF_A_FOLD = 3
"""Of two subjects, each bootstrap replicate that keeps both classes is the sample itself."""

_ROUNDING = 1e-9
"""Differences of rates below this are rounding: rates are quotients of small integers."""

_BOOTSTRAP_NUMBERS = 4_000_000  # weights that a bootstrap may hold at once; it needs about 40 bytes for each


@dataclass(frozen=True, slots=True)
class Roc:
    """Vertices of the receiver operating curve, from the strictest threshold to the laxest.

    Attributes:
        threshold: (m,) falling; the first is +inf, then every distinct score.
        fmr: (m,) rising from 0 to 1, share of impostor comparisons that match at the threshold.
        fnmr: (m,) falling from 1 to 0, share of genuine comparisons that do not.
    """

    threshold: np.ndarray
    fmr: np.ndarray
    fnmr: np.ndarray


@dataclass(frozen=True, slots=True)
class FoldStatistics:
    """A figure measured on each fold: `values` (folds,), their mean and their population standard deviation.

    A fold on which it cannot be measured, for want of genuine or of impostor comparisons, is NaN and left out of both.
    The deviation is over the folds themselves (ddof 0), as the tables of the field print it; NaN for a single one.
    """

    values: np.ndarray

    @property
    def mean(self) -> float:
        return float(np.mean(self._measured)) if len(self._measured) else float("nan")

    @property
    def std(self) -> float:
        return float(np.std(self._measured)) if len(self._measured) > 1 else float("nan")

    @property
    def _measured(self) -> np.ndarray:
        return self.values[np.isfinite(self.values)]


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """System b minus system a on the same comparisons.

    Attributes:
        difference: difference of the two figures (fractions).
        low, high: percentile bootstrap interval of the difference, subjects resampled; NaN without one.
        per_fold: difference on each fold where both were measured (one value for the pooled rule).
        p_value: two-sided paired t-test over the folds; NaN with fewer than two folds.
        replicates: (r,) bootstrap differences.
    """

    difference: float
    low: float
    high: float
    per_fold: np.ndarray
    p_value: float
    replicates: np.ndarray

    @property
    def beyond_noise(self) -> bool:
        """Whether the interval leaves out zero."""
        return leaves_out_zero(self.low, self.high)


def leaves_out_zero(low: float, high: float) -> bool:
    """Whether an interval leaves out zero, by more than rounding; no interval (NaN) does not."""
    return low > _ROUNDING or high < -_ROUNDING


# --- one set of comparisons ---------------------------------------------------------------------------------------


def roc(same: np.ndarray, score: np.ndarray) -> Roc:
    """The receiver operating curve, one vertex a distinct score (ties move together).

    Raises:
        ValueError: if shapes differ, either class is empty, or a score is not finite.
    """
    same, score = _checked(same, score)
    order, last = _descending(score)
    fmr, fnmr = _rates(same[order], last, np.ones((len(score), 1), np.int64))
    return Roc(np.concatenate([[np.inf], score[order][last]]), fmr[:, 0], fnmr[:, 0])


def equal_error_rate(
    same: np.ndarray, score: np.ndarray, rule: Literal["interpolated", "nearest"] = "interpolated"
) -> float:
    """Error rate at which false matches and false non-matches are equally frequent.

    `interpolated`: the ROC is interpolated linearly between its vertices, so the result does not jump with the order
    of ties. `nearest`: (FMR + FNMR) / 2 at the vertex where the two are nearest (where two vertices are equally near up
    to rounding, either).

    Raises:
        ValueError: if shapes differ, either class is empty, a score is not finite, or the rule is unknown.

    Source: ISO/IEC 19795-1; the CFP readme asks for it per fold.
    """
    curve = roc(same, score)
    return float(_crossing(curve.fmr[:, None], curve.fnmr[:, None], rule)[0])


def area_under_curve(same: np.ndarray, score: np.ndarray) -> float:
    """Area under the ROC: the chance that a genuine score exceeds an impostor score, ties counting half."""
    curve = roc(same, score)
    return float(np.trapezoid(1.0 - curve.fnmr, curve.fmr))


def fnmr_at_fmr(same: np.ndarray, score: np.ndarray, fmr: float, *, minimum_false_matches: float = 3.0) -> float:
    """FNMR at the laxest threshold whose FMR does not exceed `fmr`; NaN where the data are insufficient.

    A rate of `fmr` can be claimed only where that many comparisons would produce at least `minimum_false_matches`
    errors: with none seen in n trials, 3 / n is the upper 95 % bound of the rate.

    Raises:
        ValueError: if `fmr` is not in (0, 1], or as `roc` does.

    Source: "rule of 3", ISO/IEC 19795-1, annex on test size.
    """
    if not 0.0 < fmr <= 1.0:
        raise ValueError(f"fmr must be in (0, 1], not {fmr}")
    curve = roc(same, score)
    if np.count_nonzero(~np.asarray(same, bool)) * fmr < minimum_false_matches:
        return float("nan")
    return float(curve.fnmr[np.flatnonzero(curve.fmr <= fmr)[-1]])


def best_threshold(same: np.ndarray, score: np.ndarray) -> float:
    """The threshold with the fewest errors: half-way to the next lower score, the strictest one on a tie."""
    same, score = _checked(same, score)
    order, last = _descending(score)
    correct = np.cumsum(np.where(same[order], 1, -1))[last]
    values = score[order][last]
    best = int(np.argmax(correct))
    if correct[best] <= 0:  # matching nothing is as good as any threshold among the scores
        return float(np.nextafter(values[0], np.inf))
    if best + 1 == len(values):
        return float(values[best])
    middle = float((values[best] + values[best + 1]) / 2)
    return middle if middle > values[best + 1] else float(values[best])  # between neighbouring floats there is nothing


def eer_threshold(same: np.ndarray, score: np.ndarray) -> float:
    """The score at which FMR and FNMR are nearest.

    Raises:
        ValueError: as `roc`.
    """
    curve = roc(same, score)
    finite = slice(1, None)  # the first vertex is at infinity
    return float(curve.threshold[finite][np.argmin(np.abs(curve.fmr - curve.fnmr)[finite])])


# --- folds --------------------------------------------------------------------------------------------------------


def eer_over_folds(
    same: np.ndarray, score: np.ndarray, fold: np.ndarray, rule: EerRule = "interpolated"
) -> FoldStatistics:
    """EER of each fold; with `pooled`, of all comparisons together by interpolation (a single value).

    On 10 x (350 + 350) comparisons at about 6.7 % the three rules differ by up to 0.3 points: name the rule.
    """
    same, score, groups = _folds(same, score, fold, rule)
    inner = "interpolated" if rule == "pooled" else rule
    return FoldStatistics(
        np.array([equal_error_rate(same[g], score[g], inner) if _both(same[g]) else np.nan for g in groups])
    )


def cross_validated_accuracy(same: np.ndarray, score: np.ndarray, fold: np.ndarray) -> FoldStatistics:
    """Accuracy of each fold at the threshold that is best on the other folds.

    Raises:
        ValueError: with fewer than two folds, or as `roc` does.
    """
    same, score = _checked(same, score)
    groups = _groups(np.asarray(fold))
    if len(groups) < 2:
        raise ValueError("accuracy by a cross-validated threshold needs at least two folds")
    values = []
    for group in groups:
        others = np.ones(len(same), bool)
        others[group] = False
        if _both(same[others]):
            threshold = best_threshold(same[others], score[others])
            values.append(np.mean((score[group] >= threshold) == same[group]))
        else:
            values.append(np.nan)
    return FoldStatistics(np.array(values))


# --- identification -----------------------------------------------------------------------------------------------


def rank_k(ranks: np.ndarray, k: int) -> float:
    """Share of probes whose mate is among the k most alike references.

    Args:
        ranks: (n,) from 1; NaN where the probe or its reference failed, which counts as a miss.
        k: at least 1.
    """
    return float(cmc(ranks, k)[-1])


def cmc(ranks: np.ndarray, max_rank: int) -> np.ndarray:
    """Cumulative match characteristic: (max_rank,) shares of probes identified at rank 1, 2, ...

    Raises:
        ValueError: if there are no probes, a rank is below 1, or max_rank is.
    """
    ranks = np.asarray(ranks, float)
    if ranks.ndim != 1 or not len(ranks):
        raise ValueError(f"ranks must be a non-empty vector, not of shape {ranks.shape}")
    if max_rank < 1 or np.any(ranks < 1):
        raise ValueError("ranks count from 1")
    found = ranks[ranks <= max_rank].astype(int)
    return np.cumsum(np.bincount(found, minlength=max_rank + 1)[1:]) / len(ranks)


# --- certainty ----------------------------------------------------------------------------------------------------


def subject_codes(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Subjects of both images of n comparisons as numbers from 0 without a gap, shape (2, n)."""
    _, codes = np.unique(np.concatenate([first, second]).astype(str), return_inverse=True)
    return codes.reshape(2, -1)


def subject_counts(subjects: int, replicates: int, rng: np.random.Generator) -> np.ndarray:
    """How often each subject is drawn when subjects are resampled with replacement: (subjects, replicates) int32."""
    draws = rng.multinomial(subjects, np.full(subjects, 1 / subjects), size=replicates)
    return np.ascontiguousarray(draws.T, np.int32)


def comparison_weights(codes: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Weights of comparisons under resampling of subjects, shape (n, replicates), int32.

    A subject drawn c times carries all its images c times. A comparison of two subjects weighs the product of their
    counts; one of a subject with itself, its count. The product errs to the safe side where impostor comparisons hardly
    share subjects, as CFP's: intervals are wider than they need be (docs/evaluation.md).

    Args:
        codes: of `subject_codes`.
        counts: of `subject_counts`.

    Source: the vertex bootstrap, R. Fogliato et al., Confidence Intervals for Error Rates in 1:1 Matching Tasks,
    IJCV 2024 (section 4).
    """
    one, other = codes
    weight = counts[one]
    two = one != other
    weight[two] *= counts[other[two]]
    return weight


def folds_sharing_subjects(fold: np.ndarray, first: np.ndarray, second: np.ndarray) -> list[np.ndarray]:
    """Rows of n comparisons in groups: folds that have a subject in common, directly or by others, go together."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    values, places = np.unique(fold, return_inverse=True)
    codes = subject_codes(first, second)
    nodes = len(values) + codes.max() + 1
    links = (np.ones(2 * len(fold)), (np.tile(places, 2), len(values) + codes.ravel()))
    _, group = connected_components(coo_array(links, shape=(nodes, nodes)), directed=False)
    return _groups(group[places])


def eer_replicates(
    same: np.ndarray,
    score: np.ndarray,
    fold: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    *,
    rule: EerRule = "interpolated",
    replicates: int = 1000,
    seed: int = 0,
) -> np.ndarray:
    """Bootstrap replicates of the mean EER over folds, subjects resampled within each fold.

    Folds that share subjects, as those of a list that is cut into folds may, are resampled together: drawn anew in each
    fold, such a subject's effect on them all would average out, and intervals would be too narrow.

    Two calls on the same comparisons (labels, folds, subjects) and seed draw the same subjects, so the difference of
    their results is a paired bootstrap. Replicates in which a small fold lost a whole class skip that fold.

    Args:
        first, second: (n,) subject of either image.

    Returns:
        (replicates,) float64; NaN where no fold could be measured, and all NaN if a fold that can be measured has less
        than three subjects, or all such folds together less than five.
    """
    same, score, groups = _folds(same, score, fold, rule)
    people = [np.union1d(first[group], second[group]) for group in groups if _both(same[group])]
    if min(map(len, people)) < _FEWEST_OF_A_FOLD or len(np.unique(np.concatenate(people))) < _FEWEST_SUBJECTS:
        return np.full(replicates, np.nan)
    inner = "interpolated" if rule == "pooled" else rule
    place = np.empty(len(same), int)  # of a comparison's fold
    for number, group in enumerate(groups):
        place[group] = number
    total, measured = np.zeros(replicates), np.zeros(replicates)
    for number, together in enumerate(folds_sharing_subjects(place, first, second)):
        codes = subject_codes(first[together], second[together])
        rng = np.random.default_rng([seed, number])
        parts = [(together[inside], codes[:, inside]) for inside in _groups(place[together])]
        for rows in _chunks(replicates, len(together)):
            counts = subject_counts(codes.max() + 1, rows.stop - rows.start, rng)
            for group, of_group in parts:
                order, last = _descending(score[group])
                weight = comparison_weights(of_group[:, order], counts)
                value = _crossing(*_rates(same[group][order], last, weight), inner)
                valid = np.isfinite(value)
                total[rows] += np.where(valid, value, 0.0)
                measured[rows] += valid
    with np.errstate(invalid="ignore"):
        return total / measured


def fnmr_replicates(
    same: np.ndarray,
    score: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    fmr_grid: np.ndarray,
    *,
    replicates: int = 200,
    seed: int = 0,
) -> np.ndarray:
    """Bootstrap replicates of the ROC: FNMR at each FMR of a rising grid, interpolated linearly, (replicates, grid).

    Subjects are resampled over all comparisons together; a replicate that lost a whole class is NaN. For the band of a
    figure: a single point is `fnmr_at_fmr`'s, which does not interpolate.
    """
    same, score = _checked(same, score)
    order, last = _descending(score)
    rng, codes = np.random.default_rng([seed, 0]), subject_codes(first, second)
    result = np.empty((replicates, len(fmr_grid)))
    for rows in _chunks(replicates, len(score)):
        counts = subject_counts(codes.max() + 1, rows.stop - rows.start, rng)
        fmr, fnmr = _rates(same[order], last, comparison_weights(codes[:, order], counts))
        for column, row in enumerate(range(rows.start, rows.stop)):
            result[row] = np.interp(fmr_grid, fmr[:, column], fnmr[:, column])
    return result


def paired_difference(
    folds_a: np.ndarray, folds_b: np.ndarray, draws_a: np.ndarray, draws_b: np.ndarray, confidence: float = 0.95
) -> PairedDifference:
    """Figure of system b minus that of system a.

    Args:
        folds_a, folds_b: the figure on each fold; a fold with NaN is left out.
        draws_a, draws_b: its bootstrap replicates, the same subjects drawn for both (`eer_replicates` with one seed on
            the same comparisons).
        confidence: of the interval.
    """
    difference = np.asarray(folds_b) - np.asarray(folds_a)
    difference = difference[np.isfinite(difference)]
    low, high = percentile_interval(draws_b - draws_a, confidence)
    return PairedDifference(
        float(difference.mean()) if len(difference) else float("nan"),
        low,
        high,
        difference,
        _two_sided_p(difference),
        draws_b - draws_a,
    )


def _two_sided_p(difference: np.ndarray) -> float:
    """Two-sided p-value of Student's t-test that paired differences have mean zero; NaN where they do not vary."""
    if len(difference) < 2 or np.ptp(difference) < _ROUNDING:
        return float("nan")
    from scipy.special import stdtr

    t = difference.mean() / (difference.std(ddof=1) / np.sqrt(len(difference)))
    return float(2 * stdtr(len(difference) - 1, -abs(t)))


def bootstrap_mean(values: np.ndarray, subject: np.ndarray, *, replicates: int = 1000, seed: int = 0) -> np.ndarray:
    """Bootstrap replicates of a mean over probes, all probes of a subject drawn together, shape (replicates,).

    With `values` the hits of a closed-set search (0 or 1) this is the bootstrap of rank-k; with the difference of two
    systems' hits, the paired one. All are NaN for less than five subjects, of whom little follows for others.
    """
    _, codes = np.unique(np.asarray(subject).astype(str), return_inverse=True)
    number = codes.max() + 1
    if number < _FEWEST_SUBJECTS:
        return np.full(replicates, np.nan)
    sums, sizes = np.bincount(codes, np.asarray(values, float)), np.bincount(codes)
    counts = np.random.default_rng(seed).multinomial(number, np.full(number, 1 / number), size=replicates)
    return (counts @ sums) / (counts @ sizes)


def percentile_interval(
    replicates: np.ndarray, confidence: float = 0.95, subjects: int | None = None
) -> tuple[float, float]:
    """Percentile bootstrap interval; NaN replicates are left out.

    (NaN, NaN) if none is left, or if the interval has no width: where no resample differs, as without any error,
    resampling says nothing of chance.

    Args:
        replicates: (r,) of the statistic.
        confidence: of the interval.
        subjects: resampled for a mean; the interval is expanded by what Student's distribution asks for so few. None:
            it is not.

    Source: the expanded percentile interval, T. Hesterberg, What Teachers Should Know About the Bootstrap, The American
    Statistician 2015 (section 4.3).
    """
    finite = replicates[np.isfinite(replicates)]
    if not len(finite):
        return float("nan"), float("nan")
    tail = (1 - confidence) / 2
    if subjects is not None:
        from scipy.special import ndtr, stdtrit

        tail = float(ndtr(np.sqrt(subjects / (subjects - 1)) * stdtrit(subjects - 1, tail)))
    low, high = np.quantile(finite, [tail, 1 - tail])
    return (float(low), float(high)) if high - low > _ROUNDING else (float("nan"), float("nan"))


# --- shared ---------------------------------------------------------------------------------------------------------


def _checked(same: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    same, score = np.asarray(same).astype(bool), np.asarray(score, np.float64)
    if same.shape != score.shape or same.ndim != 1:
        raise ValueError(f"same and score must be vectors of one length, not {same.shape} and {score.shape}")
    if not np.isfinite(score).all():
        raise ValueError(f"{np.count_nonzero(~np.isfinite(score))} scores are not finite: leave out or count failures")
    if not _both(same):
        raise ValueError("both genuine and impostor comparisons are needed")
    return same, score


def _both(same: np.ndarray) -> bool:
    """Whether there are genuine and impostor comparisons."""
    return bool(same.any() and not same.all())


def _descending(score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Order of falling scores, and the positions at which a run of equal scores ends."""
    order = np.argsort(-score, kind="stable")
    return order, np.append(np.flatnonzero(np.diff(score[order])), len(score) - 1)


def _rates(same: np.ndarray, last: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """FMR and FNMR at every vertex, (m, r), of comparisons sorted by falling score with integer weights (n, r)."""
    start = np.zeros((1, weight.shape[1]))
    shares = []
    for members in (~same, same):
        reached = np.cumsum(np.where(members[:, None], weight, 0), axis=0, dtype=np.int64)[last]
        with np.errstate(invalid="ignore"):
            shares.append(np.vstack([start, reached / reached[-1]]))
    return shares[0], 1.0 - shares[1]


def _crossing(fmr: np.ndarray, fnmr: np.ndarray, rule: str) -> np.ndarray:
    """Equal error rate of each column of (m, r) vertices; NaN where a column holds NaN."""
    gap = fmr - fnmr  # rises from -1 to 1
    columns = np.arange(gap.shape[1])
    if rule == "nearest":
        at = np.argmin(np.abs(gap), axis=0)
        return (fmr[at, columns] + fnmr[at, columns]) / 2
    if rule != "interpolated":
        raise ValueError(f"unknown EER rule {rule!r}: 'interpolated' or 'nearest' for one set, 'pooled' over folds")
    after = np.clip(np.count_nonzero(gap < 0, axis=0), 1, len(gap) - 1)
    before = after - 1
    with np.errstate(invalid="ignore"):
        part = -gap[before, columns] / (gap[after, columns] - gap[before, columns])
    return fmr[before, columns] + part * (fmr[after, columns] - fmr[before, columns])


def _groups(fold: np.ndarray) -> list[np.ndarray]:
    return [np.flatnonzero(fold == value) for value in np.unique(fold)]


def _folds(
    same: np.ndarray, score: np.ndarray, fold: np.ndarray, rule: str
) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    if rule not in EER_RULES:
        raise ValueError(f"unknown EER rule {rule!r}: one of {', '.join(EER_RULES)}")
    same, score = _checked(same, score)
    fold = np.asarray(fold)
    if fold.shape != same.shape:
        raise ValueError(f"fold must have one value a comparison, not shape {fold.shape} for {same.shape}")
    return same, score, [np.arange(len(same))] if rule == "pooled" else _groups(fold)


def _chunks(replicates: int, comparisons: int) -> Iterator[slice]:
    step = max(1, _BOOTSTRAP_NUMBERS // max(comparisons, 1))
    for start in range(0, replicates, step):
        yield slice(start, min(start + step, replicates))
