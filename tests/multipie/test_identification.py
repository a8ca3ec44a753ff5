"""The chunked search and the rates made from its rows."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pandas as pd
import pytest

from protocols.identification import identification_rates, search


def _unit(rng: np.random.Generator, *shape: int) -> np.ndarray:
    rows = rng.standard_normal(shape).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


@pytest.mark.parametrize("block", [(1024, 16384), (7, 5), (1, 1)])
def test_rank_and_best_impostor_agree_with_sorting_every_score(block: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    probes, gallery, truth = _unit(rng, 40, 8), _unit(rng, 23, 8), rng.integers(0, 23, 40)
    found = search(probes, gallery, truth, block)
    scores = probes.astype(float) @ gallery.T.astype(float)
    for p in range(40):
        order = np.argsort(-scores[p])
        assert found.rank[p] == 1 + int(np.flatnonzero(order == truth[p])[0])
        others = order[order != truth[p]]
        assert found.best_impostor[p] == others[0]
        assert found.best_impostor_score[p] == pytest.approx(scores[p, others[0]], abs=1e-6)
    np.testing.assert_allclose(found.score, scores[np.arange(40), truth], atol=1e-6)


def test_a_tie_counts_against_the_true_reference_however_sums_are_rounded() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        same = _unit(rng, 1, 512).repeat(5, 0)
        assert search(same, same, np.arange(5)).rank.tolist() == [5] * 5


def test_ranks_do_not_change_with_the_order_of_the_subjects() -> None:
    rng = np.random.default_rng(1)
    probes, gallery, truth = _unit(rng, 60, 16), _unit(rng, 30, 16), rng.integers(0, 30, 60)
    order = rng.permutation(30)
    moved = search(probes, gallery[order], np.argsort(order)[truth], (16, 4))
    assert (moved.rank == search(probes, gallery, truth).rank).all()


def test_missing_templates_are_not_ranked_and_never_win() -> None:
    rng = np.random.default_rng(2)
    probes, gallery = _unit(rng, 3, 4), _unit(rng, 3, 4)
    probes[0] = np.nan
    gallery[1] = np.nan
    found = search(probes, gallery, np.arange(3))
    assert np.isnan(found.rank).tolist() == [True, True, False]
    assert np.isnan(found.score).tolist() == [True, True, False]
    assert found.best_impostor.tolist() == [-1, found.best_impostor[1], 0]
    assert found.best_impostor[1] != 1


def test_a_probe_of_nobody_has_no_rank_but_a_nearest_impostor() -> None:
    gallery = np.eye(3, dtype=np.float32)
    found = search(gallery[:1], gallery, np.array([-1]))
    assert np.isnan(found.rank).all()
    assert np.isnan(found.score).all()
    assert found.best_impostor.tolist() == [0]


def test_a_gallery_of_one_reference_has_no_impostor() -> None:
    one = np.eye(2, dtype=np.float32)[:1]
    found = search(one, one, np.array([0]))
    assert found.rank.tolist() == [1]
    assert found.best_impostor.tolist() == [-1]
    assert np.isnan(found.best_impostor_score).all()


def test_memory_is_bounded_by_the_block_not_by_the_gallery() -> None:
    rng = np.random.default_rng(3)
    gallery, probes = _unit(rng, 200_000, 4), _unit(rng, 300, 4)
    tracemalloc.start()
    search(probes, gallery, np.zeros(300, int), block=(100, 1000))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * 100 * 1000 * 4 + 500_000


@pytest.mark.parametrize("truth", [np.array([0]), np.array([0, 5])])
def test_a_truth_outside_the_gallery_is_refused(truth: np.ndarray) -> None:
    with pytest.raises(ValueError, match="one row of the 2 references"):
        search(np.ones((2, 3), np.float32), np.ones((2, 3), np.float32), truth)


def _rows(ranks: list[int | None], yaws: list[int]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "setting": "1",
            "recognizer": "r",
            "frontalizer": "none",
            "fusion": "weighted",
            "probe": [str(i) for i in range(len(ranks))],
            "rank": pd.array(ranks, dtype="Int64"),
            "camera_yaw": yaws,
        }
    )


def test_both_sides_of_a_pose_are_pooled_by_counts_and_failures_are_misses() -> None:
    rates = identification_rates(_rows([1, 2, 1, None, 9], [90, 90, 90, -90, 45]), by=("pose",)).set_index("pose")
    assert rates.loc[90, ["probes", "failures", "rank-1", "rank-5"]].tolist() == [4, 1, 0.5, 0.75]
    assert rates.loc[45, ["probes", "failures", "rank-1", "rank-5"]].tolist() == [1, 0, 0.0, 0.0]
