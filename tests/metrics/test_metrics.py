"""Every figure against scikit-learn, a closed form or a count by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score, roc_curve

from protocols import metrics
from protocols.metrics import best_threshold

SAME = np.array([True, True, True, False, False, False])


def verification(seed: int, count: int = 400, separation: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    same = rng.random(count) < 0.5
    return same, rng.normal(size=count) + separation * same


def subjects_of(same: np.ndarray, seed: int, number: int = 40) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    first = rng.integers(number, size=len(same))
    second = np.where(same, first, (first + rng.integers(1, number, size=len(same))) % number)
    return first.astype(str), second.astype(str)


def paired(
    same: np.ndarray, a: np.ndarray, b: np.ndarray, subjects: tuple[np.ndarray, np.ndarray], replicates: int
) -> metrics.PairedDifference:
    fold = np.arange(len(same)) % 4
    folds = [metrics.eer_over_folds(same, score, fold).values for score in (a, b)]
    draws = [metrics.eer_replicates(same, score, fold, *subjects, replicates=replicates) for score in (a, b)]
    return metrics.paired_difference(*folds, *draws)


def weights(first: np.ndarray, second: np.ndarray, replicates: int, rng: np.random.Generator) -> np.ndarray:
    codes = metrics.subject_codes(first, second)
    return metrics.comparison_weights(codes, metrics.subject_counts(codes.max() + 1, replicates, rng))


labelled_scores = st.lists(st.tuples(st.booleans(), st.integers(-20, 20)), min_size=4, max_size=60).filter(
    lambda pairs: 0 < sum(same for same, _ in pairs) < len(pairs)
)


class TestRoc:
    def test_agrees_with_scikit_learn(self) -> None:
        same, score = verification(0)
        score = np.round(score, 1)  # ties
        curve = metrics.roc(same, score)
        fmr, match, threshold = roc_curve(same, score, drop_intermediate=False)
        np.testing.assert_allclose(curve.fmr, fmr)
        np.testing.assert_allclose(1 - curve.fnmr, match)
        np.testing.assert_allclose(curve.threshold[1:], threshold[1:])

    @pytest.mark.parametrize(
        ("same", "score", "message"),
        [
            (SAME, np.arange(5.0), "one length"),
            (SAME, np.array([1, 2, 3, 4, 5, np.nan]), "not finite"),
            (np.ones(6, bool), np.arange(6.0), "both genuine and impostor"),
        ],
    )
    def test_refuses_what_has_no_curve(self, same: np.ndarray, score: np.ndarray, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            metrics.roc(same, score)


class TestEqualErrorRate:
    def test_of_six_scores_is_as_counted_by_hand(self) -> None:
        # Threshold falls: 6+ | 5+ | 3- | 2+ | 1- | 0-: after three, FMR 1/3 = FNMR 1/3.
        assert metrics.equal_error_rate(SAME, np.array([6.0, 5.0, 2.0, 3.0, 1.0, 0.0])) == pytest.approx(1 / 3)

    def test_is_zero_for_separated_and_one_for_inverted_scores(self) -> None:
        assert metrics.equal_error_rate(SAME, np.array([6.0, 5, 4, 3, 2, 1])) == 0.0
        assert metrics.equal_error_rate(SAME, -np.array([6.0, 5, 4, 3, 2, 1])) == 1.0

    def test_is_one_half_for_constant_scores(self) -> None:
        assert metrics.equal_error_rate(SAME, np.zeros(6)) == pytest.approx(0.5)

    @pytest.mark.parametrize("seed", range(5))
    def test_agrees_with_the_root_of_scikit_learns_interpolated_curve(self, seed: int) -> None:
        from scipy.optimize import brentq

        same, score = verification(seed)
        fmr, match, _ = roc_curve(same, score)
        # The curve as a function of arc length, which is strictly monotone where FMR stands still too.
        length = np.concatenate([[0], np.cumsum(np.hypot(np.diff(fmr), np.diff(match)))])
        root = brentq(lambda t: np.interp(t, length, fmr) - 1 + np.interp(t, length, match), 0, length[-1])
        assert metrics.equal_error_rate(same, score) == pytest.approx(np.interp(root, length, fmr), abs=1e-9)

    def test_nearest_rule_is_the_public_one(self) -> None:
        same, score = verification(1)
        fmr, match, _ = roc_curve(same, score, drop_intermediate=False)
        at = np.argmin(np.abs(fmr - (1 - match)))
        assert metrics.equal_error_rate(same, score, "nearest") == pytest.approx((fmr[at] + 1 - match[at]) / 2)

    @given(labelled_scores)
    @settings(max_examples=100, deadline=None)
    def test_is_unchanged_by_order_and_monotone_transforms_and_mirrored_classes(self, pairs: list) -> None:
        same = np.array([same for same, _ in pairs])
        score = np.array([score for _, score in pairs], float)
        value = metrics.equal_error_rate(same, score)
        order = np.random.default_rng(0).permutation(len(score))
        assert metrics.equal_error_rate(same[order], score[order]) == pytest.approx(value)
        assert metrics.equal_error_rate(same, np.exp(score / 10)) == pytest.approx(value)
        assert metrics.equal_error_rate(~same, -score) == pytest.approx(value)
        assert 0.0 <= value <= 1.0

    def test_approaches_the_closed_form_of_two_normal_distributions(self) -> None:
        from scipy.stats import norm

        rng = np.random.default_rng(0)
        same = np.repeat([True, False], 100_000)
        value = metrics.equal_error_rate(same, rng.normal(size=200_000) + 2.0 * same)
        assert value == pytest.approx(norm.cdf(-1.0), abs=0.002)

    def test_rules_differ_as_they_should_over_folds(self) -> None:
        same, score = verification(2)
        fold = np.arange(len(same)) % 4
        score = score + 0.5 * fold  # a threshold a fold is kinder than one for all
        per_fold = metrics.eer_over_folds(same, score, fold)
        expected = [metrics.equal_error_rate(same[fold == k], score[fold == k]) for k in range(4)]
        np.testing.assert_allclose(per_fold.values, expected)
        assert per_fold.mean == pytest.approx(np.mean(expected))
        assert per_fold.std == pytest.approx(np.std(expected))
        pooled = metrics.eer_over_folds(same, score, fold, "pooled")
        assert pooled.values.tolist() == [metrics.equal_error_rate(same, score)]
        assert np.isnan(pooled.std)  # one figure has no spread

    def test_a_fold_that_lacks_a_class_is_left_out(self) -> None:
        same, score = verification(12, count=60)
        fold = np.where(same & (np.arange(60) < 20), 0, 1)
        result = metrics.eer_over_folds(same, score, fold)
        assert np.isnan(result.values[0])
        assert result.mean == metrics.equal_error_rate(same[fold == 1], score[fold == 1])
        draws = metrics.eer_replicates(same, score, fold, *subjects_of(same, 12), replicates=20)
        assert np.isfinite(draws).all()
        assert np.isnan(metrics.eer_over_folds(same, score, same).mean)

    def test_unknown_rule_is_refused(self) -> None:
        with pytest.raises(ValueError, match="unknown EER rule 'median'"):
            metrics.eer_over_folds(SAME, np.arange(6.0), np.zeros(6), "median")


class TestOtherFigures:
    @pytest.mark.parametrize("decimals", [1, 8])
    def test_area_agrees_with_scikit_learn(self, decimals: int) -> None:
        same, score = verification(3)
        score = np.round(score, decimals)
        assert metrics.area_under_curve(same, score) == pytest.approx(roc_auc_score(same, score))

    def test_fnmr_at_fmr_is_a_brute_force_search(self) -> None:
        same, score = verification(4)
        best = min(
            np.mean(score[same] < threshold)
            for threshold in [*np.unique(score), np.inf]
            if np.mean(score[~same] >= threshold) <= 0.05
        )
        assert metrics.fnmr_at_fmr(same, score, 0.05) == pytest.approx(best)

    def test_fnmr_is_not_claimed_where_three_errors_cannot_be_expected(self) -> None:
        same = np.repeat([True, False], 350)
        score = np.random.default_rng(0).normal(size=700)
        assert np.isnan(metrics.fnmr_at_fmr(same, score, 1e-3))
        assert np.isfinite(metrics.fnmr_at_fmr(same, score, 1e-2))

    def test_best_threshold_makes_the_fewest_errors(self) -> None:
        same, score = verification(5, count=80)
        candidates = [-np.inf, *np.unique(score), np.inf]
        fewest = min(np.count_nonzero((score >= threshold) != same) for threshold in candidates)
        threshold = metrics.best_threshold(same, score)
        assert np.count_nonzero((score >= threshold) != same) == fewest

    def test_best_threshold_of_inverted_scores_matches_nothing(self) -> None:
        threshold = metrics.best_threshold(SAME[[0, 3, 4, 5]], np.array([0.0, 1, 2, 3]))
        assert threshold > 3.0
        # Matching all, and matching nothing, make as few errors: the strictest of them is taken.
        assert metrics.best_threshold(np.array([False, True]), np.array([1.0, 0.0])) > 1.0

    def test_accuracy_takes_its_threshold_from_the_other_folds(self) -> None:
        # Fold 1 alone would be separated at 10, but the other fold says 1: both impostors of fold 1 then match.
        same = np.array([True, True, False, False] * 2)
        score = np.array([2.0, 3, 0, 0, 12, 13, 8, 9])
        result = metrics.cross_validated_accuracy(same, score, np.repeat([0, 1], 4))
        np.testing.assert_allclose(result.values, [0.5, 0.5])

    def test_a_score_at_the_threshold_of_the_other_folds_is_a_match(self) -> None:
        same = np.array([True, False, True, False])
        score = np.array([0.75, 0.25, 0.5, 0.25])  # the first fold says 0.5
        result = metrics.cross_validated_accuracy(same, score, np.array([0, 0, 1, 1]))
        assert result.values.tolist() == [1, 1]

    def test_accuracy_needs_two_folds(self) -> None:
        with pytest.raises(ValueError, match="two folds"):
            metrics.cross_validated_accuracy(SAME, np.arange(6.0), np.zeros(6))


class TestIdentification:
    def test_cmc_counts_failures_as_misses(self) -> None:
        np.testing.assert_allclose(metrics.cmc(np.array([1, 1, 3, np.nan]), 4), [0.5, 0.5, 0.75, 0.75])

    def test_rank_k_is_the_cmc_at_k(self) -> None:
        ranks = np.array([1, 2, 2, 5.0])
        assert [metrics.rank_k(ranks, k) for k in (1, 2, 5)] == [0.25, 0.75, 1.0]

    @pytest.mark.parametrize(("ranks", "k"), [([], 1), ([0.0], 1), ([1.0], 0)])
    def test_impossible_ranks_are_refused(self, ranks: list, k: int) -> None:
        with pytest.raises(ValueError, match="rank"):
            metrics.rank_k(np.array(ranks), k)


class TestCertainty:
    def test_weights_are_products_of_the_counts_of_the_drawn_subjects(self) -> None:
        first, second = np.array(["a", "a", "b", "c"]), np.array(["a", "b", "c", "c"])
        weight = weights(first, second, 200, np.random.default_rng(0))
        a, c = weight[0], weight[3]
        np.testing.assert_array_equal(weight[1] * weight[2], a * c * (3 - a - c) ** 2)
        assert a.mean() == pytest.approx(1.0, abs=0.15)

    def test_comparisons_of_nobody_weigh_as_often_as_they_are_drawn(self) -> None:
        own = np.arange(50)
        weight = weights(own, own, 40, np.random.default_rng(1))
        np.testing.assert_array_equal(weight.sum(0), 50)  # as many as there are, genuine or not

    def test_replicates_equal_a_loop_over_repeated_comparisons(self) -> None:
        same, score = verification(6, count=60, separation=1.0)
        first, second = subjects_of(same, 6, number=12)
        fold = np.zeros(60, int)
        fast = metrics.eer_replicates(same, score, fold, first, second, replicates=20, seed=3)
        weight = weights(first, second, 20, np.random.default_rng([3, 0])).T
        slow = [metrics.equal_error_rate(np.repeat(same, w), np.repeat(score, w)) for w in weight]
        np.testing.assert_allclose(fast, slow)

    def test_replicates_do_not_depend_on_how_much_fits_in_memory(self, monkeypatch: pytest.MonkeyPatch) -> None:
        same, score = verification(7, count=50)
        arguments = (same, score, np.arange(50) % 2, *subjects_of(same, 7))
        whole = metrics.eer_replicates(*arguments, replicates=30)
        monkeypatch.setattr(metrics, "_BOOTSTRAP_NUMBERS", 200)
        np.testing.assert_allclose(metrics.eer_replicates(*arguments, replicates=30), whole)

    def test_interval_covers_the_truth_about_as_often_as_it_says(self) -> None:
        from scipy.stats import norm

        covered = 0
        for seed in range(60):
            rng = np.random.default_rng(seed)
            first, second = np.repeat(np.arange(80), 4), np.repeat(np.arange(80), 4)
            same = np.arange(320) % 4 < 2
            second = np.where(same, first, (first + rng.integers(1, 80, 320)) % 80)
            effect = rng.normal(size=80) * 0.5  # images of one person are alike: comparisons are not independent
            spread = np.sqrt(1 + np.where(same, 1.0, 0.5) * 0.25)
            noise = rng.normal(size=320) + np.where(same, effect[first], (effect[first] + effect[second]) / 2)
            score = noise / spread + 2.0 * same
            draws = metrics.eer_replicates(same, score, np.zeros(320), first, second, replicates=200, seed=seed)
            low, high = metrics.percentile_interval(draws)
            covered += low <= norm.cdf(-1.0) <= high
        assert covered >= 50

    def test_a_system_does_not_differ_from_itself(self) -> None:
        same, score = verification(8)
        result = paired(same, score, score * 3 + 1, subjects_of(same, 8), replicates=100)
        assert result.difference == 0.0
        assert np.isnan([result.low, result.high]).all()  # no replicate differs, so there is nothing to learn from
        assert not result.beyond_noise
        assert np.isnan(result.p_value)

    def test_a_clear_gain_is_beyond_noise_and_has_its_sign(self) -> None:
        same, score = verification(9, count=1200, separation=1.5)
        result = paired(same, score, score + same, subjects_of(same, 9), replicates=200)
        assert result.beyond_noise
        assert result.difference < 0
        assert result.high < 0
        assert result.per_fold.mean() == pytest.approx(result.difference)

    def test_fold_test_is_scipys_paired_t_test(self) -> None:
        from scipy.stats import ttest_rel

        a, b = np.random.default_rng(0).normal(size=(2, 10))
        result = metrics.paired_difference(a, b, np.zeros(5), np.zeros(5))
        assert result.p_value == pytest.approx(ttest_rel(a, b).pvalue)

    def test_folds_that_differ_alike_say_nothing_of_chance_whatever_the_rounding(self) -> None:
        a, b = np.array([3, 2, 5, 6]) / 28, np.array([2, 1, 4, 5]) / 28
        assert np.isnan(metrics.paired_difference(a, b, np.zeros(5), np.zeros(5)).p_value)

    def test_a_fold_without_a_figure_is_left_out_of_a_difference(self) -> None:
        nothing = np.zeros(5)
        result = metrics.paired_difference(np.array([0.1, np.nan]), np.array([0.2, 0.5]), nothing, nothing)
        assert result.difference == pytest.approx(0.1)
        assert len(result.per_fold) == 1

    def test_pairing_is_tighter_than_two_separate_intervals(self) -> None:
        same, score = verification(10, count=800)
        fold, subjects = np.arange(800) % 4, subjects_of(same, 10)
        other = score + 0.2 * np.random.default_rng(1).normal(size=800)
        apart = metrics.eer_replicates(same, score, fold, *subjects, replicates=300, seed=5) - metrics.eer_replicates(
            same, other, fold, *subjects, replicates=300, seed=6
        )
        assert paired(same, score, other, subjects, replicates=300).replicates.std() < 0.7 * apart.std()

    def test_bootstrap_of_a_mean_draws_whole_subjects(self) -> None:
        hits = np.repeat([1.0, 0.0], 50)
        one_a_subject = metrics.bootstrap_mean(hits, np.arange(100))
        ten_a_subject = metrics.bootstrap_mean(hits, np.arange(100) // 10)
        assert one_a_subject.std() == pytest.approx(0.05, rel=0.2)
        assert ten_a_subject.std() == pytest.approx(0.05 * np.sqrt(10), rel=0.2)

    def test_little_follows_from_four_subjects_and_nothing_is_beyond_noise_without_an_interval(self) -> None:
        values = np.arange(10.0)
        assert np.isnan(metrics.bootstrap_mean(values, np.arange(10) % 4)).all()
        assert np.isfinite(metrics.bootstrap_mean(values, np.arange(10) % 5)).all()
        nothing = np.full(3, np.nan)
        assert not metrics.paired_difference(nothing, nothing, nothing, nothing).beyond_noise

    @pytest.mark.parametrize(("people", "known"), [((2, 6), False), ((4,), False), ((3, 3), True), ((5,), True)])
    def test_two_subjects_of_a_fold_or_four_in_all_give_no_interval(self, people: tuple[int, ...], known: bool) -> None:
        fold = np.repeat(np.arange(len(people)), 24)
        same, score = np.arange(len(fold)) % 2 == 0, np.random.default_rng(0).normal(size=len(fold))
        number = np.concatenate([np.arange(24) // 2 % count for count in people])
        other = np.concatenate([(np.arange(24) // 2 + 1) % count for count in people])
        first, second = (np.char.add(fold.astype(str), side.astype(str)) for side in (number, other))
        draws = metrics.eer_replicates(same, score, fold, first, np.where(same, first, second))
        assert np.isfinite(draws).any() == known

    @pytest.mark.parametrize("people", [5, 8, 16])
    def test_a_mean_of_few_subjects_is_told_from_zero_about_as_rarely_as_its_interval_says(self, people: int) -> None:
        rng, wrong = np.random.default_rng(people), 0
        subject = np.arange(people).repeat(3)
        for seed in range(200):
            values = rng.normal(size=people)[subject] + rng.normal(size=3 * people)
            draws = metrics.bootstrap_mean(values, subject, seed=seed)
            wrong += metrics.leaves_out_zero(*metrics.percentile_interval(draws, 0.95, people))
        assert wrong <= 20  # 10 are expected; without the expansion 27 to 36

    def test_a_bound_that_is_zero_up_to_rounding_is_zero(self) -> None:
        draws = np.full(9, 0.3) - np.full(9, 0.1) - np.full(9, 0.2)  # -5.6e-17
        zeros = np.zeros(9)
        draws[0] = 0.1
        assert not metrics.paired_difference(zeros, draws, zeros, draws).beyond_noise
        gain = np.linspace(0.01, 0.02, 9)
        assert metrics.paired_difference(zeros, gain, zeros, gain).beyond_noise

    def test_band_of_the_curve_surrounds_it(self) -> None:
        same, score = verification(11, count=1000)
        grid = np.array([0.01, 0.1, 0.3])
        draws = metrics.fnmr_replicates(same, score, *subjects_of(same, 11), grid, replicates=200)
        curve = metrics.roc(same, score)
        truth = np.interp(grid, curve.fmr, curve.fnmr)
        assert draws.shape == (200, 3)
        assert np.all(np.quantile(draws, 0.01, axis=0) <= truth)
        assert np.all(np.quantile(draws, 0.99, axis=0) >= truth)

    def test_no_replicates_give_no_interval(self) -> None:
        assert all(np.isnan(metrics.percentile_interval(np.array([np.nan]))))


def test_three_expected_errors_suffice() -> None:
    same = np.arange(303) < 3
    score = np.where(same, 2.0, np.linspace(0, 1, 303))
    assert metrics.fnmr_at_fmr(same, score, 0.01) == 0
    assert np.isnan(metrics.fnmr_at_fmr(same, score, 0.0099))


def test_a_threshold_whose_fmr_is_just_the_point_counts() -> None:
    same = np.array([True] * 2 + [False] * 8)
    score = np.array([0.9, 0.6, 0.8, 0.7, 0.6, 0.6, 0.1, 0.1, 0.1, 0.1])
    assert metrics.fnmr_at_fmr(same, score, 0.5, minimum_false_matches=0) == 0.0
    assert metrics.fnmr_at_fmr(same, score, 0.49, minimum_false_matches=0) == 0.5


def test_the_threshold_lies_half_way_to_the_next_score() -> None:
    assert best_threshold(np.array([True, True, False]), np.array([0.9, 0.8, 0.2])) == pytest.approx(0.5)


def test_an_interval_holds_the_share_that_was_asked_for() -> None:
    draws, zeros = np.arange(1001.0), np.zeros(1001)
    assert metrics.percentile_interval(draws, 0.95) == pytest.approx((25.0, 975.0))
    assert metrics.percentile_interval(draws, 0.5) == pytest.approx((250.0, 750.0))
    result = metrics.paired_difference(zeros, zeros, zeros, draws, 0.5)
    assert (result.low, result.high) == pytest.approx((250.0, 750.0))


def twice(same: np.ndarray, score: np.ndarray, people: list[np.ndarray]) -> np.ndarray:
    """Replicates of two folds that hold the same scores, of these people."""
    first, second = people
    fold = np.repeat([0, 1], len(same))
    return metrics.eer_replicates(np.tile(same, 2), np.tile(score, 2), fold, first, second, replicates=400)


def test_folds_of_different_people_are_resampled_independently_those_that_share_people_together() -> None:
    same, score = verification(3, count=100)
    people = subjects_of(same, 3, number=20)
    one = metrics.eer_replicates(same, score, np.zeros(100), *people, replicates=400)
    others = [np.concatenate([side, np.char.add("other ", side)]) for side in people]
    assert twice(same, score, others).std() == pytest.approx(one.std() / np.sqrt(2), rel=0.15)
    np.testing.assert_allclose(twice(same, score, [np.tile(side, 2) for side in people]), one)


def test_folds_go_together_that_share_a_subject_directly_or_by_others() -> None:
    fold = np.array([0, 0, 1, 2, 2, 3, 4])
    first, second = np.array(list("abcbdxd")), np.array(list("abceeyz"))
    groups = metrics.folds_sharing_subjects(fold, first, second)
    assert [set(fold[rows].tolist()) for rows in groups] == [{0, 2, 4}, {1}, {3}]


def test_a_threshold_lies_above_the_next_score_even_if_no_float_is_between_them() -> None:
    for low in (0.1, 0.3, 1.0, 1.7):
        score = np.array([low, np.nextafter(low, 2)])
        threshold = best_threshold(np.array([False, True]), score)
        assert (score >= threshold).tolist() == [False, True]


def test_replicates_of_the_curve_equal_a_loop_over_repeated_comparisons() -> None:
    same, score = verification(11, count=60, separation=1.0)
    first, second = subjects_of(same, 11, number=12)
    grid = np.array([0.1, 0.3, 0.6])
    fast = metrics.fnmr_replicates(same, score, first, second, grid, replicates=20, seed=3)
    weight = weights(first, second, 20, np.random.default_rng([3, 0])).T
    for row, repeats in zip(fast, weight, strict=True):
        curve = metrics.roc(np.repeat(same, repeats), np.repeat(score, repeats))
        np.testing.assert_allclose(row, np.interp(grid, curve.fmr, curve.fnmr))


def test_a_bootstrap_mean_is_over_probes_not_over_subjects() -> None:
    hits, subject = np.array([1.0] * 9 + [0.0] * 4), np.array(["a"] * 9 + list("bcde"))
    draws = metrics.bootstrap_mean(hits, subject, replicates=2000)
    wanted = {9 * count / (9 * count + 5 - count) for count in range(6)}  # how often "a" is drawn
    assert set(np.round(draws, 6)) == {round(value, 6) for value in wanted}
