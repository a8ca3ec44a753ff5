"""Small runs with known properties, made from a seed: no images, no recognizers, no real people."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

DEFAULT_SYSTEMS = {
    ("sface", "none", "weighted"): 1.6,
    ("sface", "mirror", "weighted"): 1.65,
    ("sface", "srtc", "weighted"): 2.4,
}
"""Separation of genuine from impostor scores of each system, in standard deviations."""


def make_scores(
    systems: Mapping[tuple[str, str, str], float] = DEFAULT_SYSTEMS,
    setting: str = "FP",
    folds: int = 4,
    pairs: int = 60,
    subjects: int = 12,
    seed: int = 0,
    failing: int = 0,
) -> pd.DataFrame:
    """A verification score table; noise is shared by the systems, so that differences between them are paired.

    Args:
        pairs: genuine and impostor comparisons each, a fold.
        subjects: a fold; folds share none.
        failing: that many probes (the first of fold 1) fail in every system with the reason no_face.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for fold in range(1, folds + 1):
        names = [f"{subjects * (fold - 1) + k + 1:03d}" for k in range(subjects)]
        for same in (True, False):
            for k in range(pairs):
                a = names[k % subjects]
                b = a if same else names[(k + 1 + k // subjects) % subjects]
                if not same and a == b:
                    b = names[(k + 2 + k // subjects) % subjects]
                probe = f"{a}/profile/{k % 4 + 1:02d}.jpg"
                rows.append((fold, probe, f"{b}/frontal/{k % 10 + 1:02d}.jpg", a, b, same))
    table = pd.DataFrame(
        rows, columns=["fold", "probe", "reference", "probe_subject", "reference_subject", "same"]
    ).drop_duplicates(["fold", "probe", "reference"])
    noise = rng.normal(size=len(table))
    yaw = {
        probe: float(value) for probe, value in zip(table["probe"].unique(), rng.uniform(-90, 90, 10_000), strict=False)
    }
    failed = table["probe"].isin(list(dict.fromkeys(table.loc[table["fold"] == 1, "probe"]))[:failing])
    parts = []
    for (recognizer, frontalizer, fusion), separation in systems.items():
        score = 0.1 * (separation * table["same"] + noise + 0.3 * rng.normal(size=len(table)))
        parts.append(
            table.assign(
                protocol="cfp",
                setting=setting,
                recognizer=recognizer,
                frontalizer=frontalizer,
                fusion=fusion,
                score=score.where(~failed),
                status=np.where(failed, "failed", "ok"),
                reason=np.where(failed, "probe:no_face", ""),
                yaw=table["probe"].map(yaw) if frontalizer.startswith("srtc") else np.nan,
            )
        )
    return pd.concat(parts, ignore_index=True)


def make_run(
    folder: Path, name: str = "cfp", synthetic: bool = False, configuration: Mapping[str, object] | None = None,
    **tables: pd.DataFrame,
) -> Path:  # fmt: skip
    """A run's folder with the given tables (`scores=...`, `identification=...`, ...) and its record."""
    folder.mkdir(parents=True)
    for kind, table in tables.items():
        table.to_parquet(folder / f"{kind}.parquet", index=False)
    record = {
        "pifr_version": "0.1.0",
        "created": "2026-01-01T00:00:00Z",
        "protocol": "cfp",
        "dataset": {"name": name, "synthetic": synthetic, "counts": {"images": 100}},
        "configuration": {"detector": "yunet", "policy": "largest", "sides": "both", **(configuration or {})},
        "versions": {"numpy": "2.4"},
        "weights": {"sface": "0" * 64},
        "views": {"none": 1, "mirror": 2, "srtc": 3},
    }
    (folder / "run.json").write_text(json.dumps(record))
    return folder


def make_identification(
    systems: Mapping[str, Mapping[int, float]], subjects: int = 20, shots: int = 5, seed: int = 0
) -> pd.DataFrame:
    """An identification table in which a set share of the probes at each pose is at rank 1, the rest at rank 3.

    Args:
        systems: rank-1 rate by |yaw| of each frontalizer; the probes found are the same for equal rates.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for subject in range(subjects):
        for shot in range(shots):
            for yaw in (-90, -75, -60, -45, 45, 60, 75, 90):
                rows.append((f"{subject:03d}", shot, yaw, rng.random()))
    probes = pd.DataFrame(rows, columns=["probe_subject", "illumination", "camera_yaw", "luck"])
    # Ranks of luck within a pose, so that rates are exact.
    luck = probes.groupby(probes["camera_yaw"].abs())["luck"].rank(pct=True)
    parts = []
    for frontalizer, rates in systems.items():
        found = luck <= probes["camera_yaw"].abs().map(rates) + 1e-9
        parts.append(
            probes.drop(columns="luck").assign(
                protocol="multipie",
                setting="1",
                fold="all",
                probe=probes["probe_subject"]
                + "/"
                + probes["camera_yaw"].astype(str)
                + "/"
                + probes["illumination"].astype(str),
                reference=probes["probe_subject"] + "/frontal",
                reference_subject=probes["probe_subject"],
                same=True,
                recognizer="sface",
                frontalizer=frontalizer,
                fusion="weighted",
                score=0.5,
                status="ok",
                reason="",
                yaw=probes["camera_yaw"].astype(float),
                rank=pd.array(np.where(found, 1, 3), dtype="Int64"),
                best_impostor="other",
                best_impostor_score=0.4,
                camera="11_0",
            )
        )
    return pd.concat(parts, ignore_index=True)


@pytest.fixture(scope="session")
def score_table() -> Callable[..., pd.DataFrame]:
    return make_scores


@pytest.fixture(scope="session")
def identification_table() -> Callable[..., pd.DataFrame]:
    return make_identification


@pytest.fixture(scope="session")
def write_run() -> Callable[..., Path]:
    return make_run
