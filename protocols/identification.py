"""Closed-set identification: where does a probe's true reference stand among all references?

The gallery is walked in blocks, so a million references are searched in the memory of one block. What comes out is
one row a probe (:data:`COLUMNS`); every rank-k rate and CMC is computed from that table alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

COLUMNS: tuple[str, ...] = (
    "protocol",
    "setting",
    "fold",
    "probe",
    "reference",
    "probe_subject",
    "reference_subject",
    "same",
    "recognizer",
    "frontalizer",
    "fusion",
    "score",
    "status",
    "reason",
    "yaw",
    "rank",
    "best_impostor",
    "best_impostor_score",
    "camera",
    "camera_yaw",
    "illumination",
)
"""Columns of ``identification.parquet``: those of the score table for the probe and its true reference, then the true
reference's ``rank`` (Int64, 1 is best, NA when either side failed), the reference of another subject that came nearest
and its score, and how the probe was taken (``camera``, ``camera_yaw`` in degrees, ``illumination``)."""

TIE = 1e-6
"""Two cosines nearer than this are a tie: float32 sums of some hundred products differ by as much between libraries."""


@dataclass(frozen=True, slots=True)
class Search:
    """Outcome of a search, one entry a probe; NaN and -1 where the probe or its reference has no template.

    Attributes:
        rank: float64 (P,), 1 for the best; ties count against the true reference.
        score: float64 (P,), similarity to the true reference.
        best_impostor: int64 (P,), index of the most similar reference of someone else, -1 where there is none.
        best_impostor_score: float64 (P,).
    """

    rank: np.ndarray
    score: np.ndarray
    best_impostor: np.ndarray
    best_impostor_score: np.ndarray


def search(
    probes: np.ndarray, gallery: np.ndarray, truth: np.ndarray, block: tuple[int, int] = (1024, 16384)
) -> Search:
    """Rank of each probe's true reference by the dot product.

    A tie counts against the true reference: a recognizer that answers the same for everyone scores zero, not one.

    Args:
        probes: float32 P x D; a row with NaN is a probe without a template.
        gallery: float32 G x D (may be a memory map), one reference a subject; a row with NaN is never found.
        truth: int (P,), row of the gallery that shows the probe's subject.
        block: probes and references compared at a time; one block of float32 scores is what is held (64 MiB).

    Raises:
        ValueError: if the templates' lengths differ or ``truth`` points outside the gallery.
    """
    truth = np.asarray(truth, dtype=np.int64)
    if probes.shape[1:] != gallery.shape[1:]:
        raise ValueError(f"probe templates are {probes.shape[1:]}, those of the gallery {gallery.shape[1:]}")
    if len(truth) != len(probes) or (len(truth) and not (truth.min() >= 0 and truth.max() < len(gallery))):
        raise ValueError(f"truth must hold one row of the {len(gallery)} references for each of {len(probes)} probes")
    rank = np.ones(len(probes))
    score = np.full(len(probes), np.nan)
    best = np.full(len(probes), -1, dtype=np.int64)
    best_score = np.full(len(probes), -np.inf)
    for start in range(0, len(probes), block[0]):
        rows = slice(start, min(start + block[0], len(probes)))
        batch = probes[rows]
        score[rows] = np.einsum("pd,pd->p", batch, gallery[truth[rows]], dtype=np.float64)
        threshold = (score[rows] - TIE).astype(np.float32)[:, None]
        for left in range(0, len(gallery), block[1]):
            columns = gallery[left : left + block[1]]
            scores = batch @ columns.T
            mine = (truth[rows] >= left) & (truth[rows] < left + len(columns))
            scores[mine, truth[rows][mine] - left] = -np.inf
            scores[np.isnan(scores)] = -np.inf
            rank[rows] += (scores >= threshold).sum(axis=1)
            nearest = scores.argmax(axis=1)
            value = scores[np.arange(len(scores)), nearest]
            better = value > best_score[rows]
            best[rows] = np.where(better, nearest + left, best[rows])
            best_score[rows] = np.where(better, value, best_score[rows])
    rank[np.isnan(score)] = np.nan
    best_score[best < 0] = np.nan
    return Search(rank, score, best, best_score)


def identification_rates(table: pd.DataFrame, by: Sequence[str] = (), ranks: Sequence[int] = (1, 5)) -> pd.DataFrame:
    """Rank-k rates from the rows of ``identification.parquet``, pooled by counts.

    A probe without a rank (nobody found in the picture, or its subject not enrolled) is a miss, and is counted
    beside: ISO/IEC 19795-1 reports failures to acquire with every identification rate.

    Args:
        table: rows of one or more systems.
        by: further columns to split by, as ``("pose",)``; ``pose`` is made here from ``camera_yaw``.
        ranks: the k of each rate.

    Returns:
        One row a system and group: ``probes``, ``failures`` (counts) and ``rank-k`` fractions in [0, 1].
    """
    keys = ["setting", "recognizer", "frontalizer", "fusion", *by]
    table = table.assign(pose=table["camera_yaw"].abs())
    place = table["rank"].astype("Float64").to_numpy(dtype="float64", na_value=np.inf)
    for k in ranks:
        table[f"rank-{k}"] = place <= k
    table["failures"] = np.isinf(place)
    grouped = table.groupby(keys, sort=True, dropna=False)
    rates = grouped.agg(probes=("probe", "size"), failures=("failures", "sum"))
    return rates.join(grouped[[f"rank-{k}" for k in ranks]].mean()).reset_index()
