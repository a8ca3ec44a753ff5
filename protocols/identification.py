"""Closed-set identification: where does a probe's true reference stand among all references?

The gallery is walked in blocks, so a million references are searched in the memory of one block. What comes out is
one row a probe (`COLUMNS`); every rank-k rate and CMC is computed from that table alone.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from protocols.base import SCORE_COLUMNS, SYSTEM

if TYPE_CHECKING:
    import pandas as pd

    from pifr.fusion import Fusion
    from protocols.base import Progress
    from protocols.experiment import Experiment
    from protocols.extraction import FeatureTable, System
    from protocols.multipie import MultiPie

log = logging.getLogger(__name__)

IDENTIFICATION_FILE = "identification.parquet"

COLUMNS: tuple[str, ...] = (
    *SCORE_COLUMNS,
    "rank",
    "best_impostor",
    "best_impostor_score",
    "camera",
    "camera_yaw",
    "illumination",
)
"""Columns of `identification.parquet`: those of the score table for the probe and its true reference, then the true
reference's `rank` (Int64, 1 is best, NA when either side failed; a subject without a reference has the reason
`reference:not_enrolled`), the reference of another subject that came nearest and its score, and how the probe was
taken (`camera`, `camera_yaw` in degrees, `illumination`)."""

TIE = 1e-6
"""Two cosines nearer than this are a tie: float32 sums of some hundred products differ by as much between libraries."""


@dataclass(frozen=True, slots=True)
class Search:
    """Outcome of a search, one entry a probe; NaN and -1 where the probe has no template.

    Where its reference alone has none, rank and score are NaN, and the best impostor is who it was.

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
        truth: int (P,), row of the gallery that shows the probe's subject; -1: none does.
        block: probes and references compared at a time; one block of float32 scores is what is held (64 MiB).

    Raises:
        ValueError: if the templates' lengths differ or `truth` points outside the gallery.
    """
    truth = np.asarray(truth, dtype=np.int64)
    if probes.shape[1:] != gallery.shape[1:]:
        raise ValueError(f"probe templates are {probes.shape[1:]}, those of the gallery {gallery.shape[1:]}")
    if len(truth) != len(probes) or (len(truth) and not (truth.min() >= -1 and truth.max() < len(gallery))):
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
    score[truth < 0] = np.nan
    rank[np.isnan(score)] = np.nan
    best_score[best < 0] = np.nan
    return Search(rank, score, best, best_score)


def run_identification(
    protocol: MultiPie, experiment: Experiment, progress: Progress | None = None
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Search every probe's template among the references, for every system of an experiment.

    Args:
        protocol: images, who they show, which are references.
        experiment: systems; without settings, Setting-1 alone, as in the paper.
        progress: told images done and to do.

    Returns:
        The table (`COLUMNS`, one row a probe, system and fusion) and the record for `run.json`, with the
        protocol's switches, counts and notices.

    Raises:
        PifrError: data, names or weights are not as they should be; nothing has been computed then.
    """
    import pandas as pd

    from pifr.errors import DataError
    from protocols import runner
    from protocols.base import require_valid

    settings = runner.chosen_settings(protocol, experiment) if experiment.settings else protocol.settings[:1]
    require_valid(protocol)
    images = {setting: protocol.samples(setting) for setting in settings}
    notices: list[str] = []
    for setting, found in images.items():
        of_setting = protocol.notices(setting, found)
        if not {"reference", "probe"} <= set(found["role"]):
            raise DataError("; ".join([f"no probe can be identified in '{protocol.root}'", *of_setting]))
        notices += of_setting
    for line in notices:
        log.warning("%s", line)
    rows = {
        sample: path for found in images.values() for sample, path in zip(found["sample"], found["path"], strict=True)
    }
    systems, features, timings = runner.extract_systems(protocol, rows.values(), experiment, progress)
    place = {sample: row for row, sample in enumerate(rows)}
    with timings.measure("search"):
        table = pd.concat(
            [
                identify(
                    protocol.name, setting, images[setting], place, system, seen, experiment.fusions, experiment.sides
                )
                for setting in settings
                for system, seen in zip(systems, features, strict=True)
            ],
            ignore_index=True,
        )
    record = runner.run_record(protocol.name, protocol.root, experiment, systems, features, timings)
    record["configuration"]["switches"] = protocol.configuration()
    record["dataset"]["counts"] |= {
        f"setting-{setting}": images[setting]["role"].value_counts().to_dict() for setting in settings
    }
    record["notices"] = notices
    return table, record


def identify(
    protocol: str,
    setting: str,
    images: pd.DataFrame,
    place: dict[str, int],
    system: System,
    features: FeatureTable,
    fusions: Sequence[Fusion] | None = None,
    sides: str = "both",
) -> pd.DataFrame:
    """Rows of `COLUMNS` for one system.

    Args:
        protocol, setting: written into the rows.
        images: as `protocols.multipie.MultiPie.samples` gives them, one reference a subject.
        place: row of `features` by sample.
        system, features: who saw what.
        fusions: see `protocols.runner.chosen_fusions`.
        sides: `both`, or `probe` to leave references with their first view.
    """
    import pandas as pd

    from protocols import runner

    references, probes = (images[images["role"] == role].reset_index(drop=True) for role in ("reference", "probe"))
    enrolled = pd.Series(np.arange(len(references)), index=references["subject"])
    truth = probes["subject"].map(enrolled)
    known = truth.notna().to_numpy()
    truth = truth.fillna(-1).to_numpy(int)
    probe_rows, reference_rows = (table["sample"].map(place).to_numpy() for table in (probes, references))
    status, reason = runner.pair_status(features, probe_rows, np.where(known, reference_rows[truth], -1), sides)
    parts = []
    for fusion in runner.chosen_fusions(fusions, system, features):
        templates = features.templates(fusion).float().numpy()
        gallery = templates if sides == "both" else features.templates(fusion, first_view_only=True).float().numpy()
        found = search(templates[probe_rows], gallery[reference_rows], truth)
        own = references.iloc[truth]
        impostor = references["sample"].to_numpy()[found.best_impostor]
        parts.append(
            pd.DataFrame(
                {
                    "protocol": protocol,
                    "setting": setting,
                    "fold": "all",
                    "probe": probes["sample"],
                    "reference": np.where(known, own["sample"], None),
                    "probe_subject": probes["subject"],
                    "reference_subject": probes["subject"],
                    "same": True,
                    "recognizer": system.recognizer_name,
                    "frontalizer": system.frontalizer_name,
                    "fusion": fusion,
                    "score": found.score,
                    "status": status,
                    "reason": reason,
                    "yaw": features.yaw.numpy()[probe_rows].astype(np.float64),
                    "rank": pd.array(found.rank, dtype="Int64"),
                    "best_impostor": np.where(found.best_impostor >= 0, impostor, None),
                    "best_impostor_score": found.best_impostor_score,
                    "camera": probes["camera"],
                    "camera_yaw": probes["camera_yaw"],
                    "illumination": probes["illumination"],
                }
            )
        )
    return pd.concat(parts, ignore_index=True)[list(COLUMNS)]


def identification_rates(table: pd.DataFrame, by: Sequence[str] = (), ranks: Sequence[int] = (1, 5)) -> pd.DataFrame:
    """Rank-k rates from the rows of `identification.parquet`, pooled by counts.

    A probe without a rank (nobody found in its picture or in its reference, or its subject not enrolled) is a miss, and
    is counted beside.

    Args:
        table: rows of one or more systems.
        by: further columns to split by, as `("pose",)`; `pose` is made here from `camera_yaw`.
        ranks: the k of each rate.

    Returns:
        One row a system and group: `probes`, `failures` (counts) and `rank-k` fractions in [0, 1].
    """
    keys = ["setting", *SYSTEM, *by]
    table = table.assign(pose=table["camera_yaw"].abs())
    place = table["rank"].astype("Float64").to_numpy(dtype="float64", na_value=np.inf)
    for k in ranks:
        table[f"rank-{k}"] = place <= k
    table["failures"] = np.isinf(place)
    grouped = table.groupby(keys, sort=True, dropna=False)
    rates = grouped.agg(probes=("probe", "size"), failures=("failures", "sum"))
    return rates.join(grouped[[f"rank-{k}" for k in ranks]].mean()).reset_index()
