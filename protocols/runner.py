"""Runs the systems of an experiment on a verification protocol: features, fused templates, the table of scores."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from pifr.errors import DataError, UnknownNameError
from pifr.faces import FaceFinder
from pifr.frontalized import POOR
from pifr.fusion import Fusion
from pifr.views import load_view_maker
from pifr.zoo import home
from protocols.base import SCORE_COLUMNS, Incident, Progress, VerificationProtocol, require_valid, write_reason
from protocols.experiment import Experiment
from protocols.extraction import FeatureTable, Image, System, Timings, extract
from protocols.runs import begin_record
from protocols.store import FeatureStore

if TYPE_CHECKING:
    import pandas as pd

_PAIRS = 65_536  # comparisons whose templates are gathered at once


def run_verification(
    protocol: VerificationProtocol, experiment: Experiment, progress: Progress | None = None
) -> tuple["pd.DataFrame", dict[str, Any]]:
    """Evaluate every system of an experiment on a protocol.

    Returns:
        The score table (columns `SCORE_COLUMNS`) and the record for `run.json`; see `protocols.runs.save_run`.

    Raises:
        PifrError: the data, the names or the weights are not as they should be; nothing has been computed then. Or as
            `extract`.
    """
    import pandas as pd

    settings = chosen_settings(protocol, experiment)
    if getattr(protocol, "aligned", False):
        experiment = experiment.for_aligned_images()
    require_valid(protocol)
    paths: dict[str, str] = {}
    for setting in settings:
        samples = protocol.samples(setting)
        paths |= dict(zip(samples["sample"], samples["path"], strict=True))
        compared = protocol.comparisons(setting)[["probe", "reference"]].to_numpy().ravel()
        if unknown := sorted(set(compared) - set(samples["sample"])):
            raise DataError(
                f"{protocol.name} {setting}: {len(unknown)} compared images are no samples, {unknown[0]!r} the first"
            )
    systems, tables, timings = extract_systems(protocol, paths.values(), experiment, progress)
    rows = {sample: row for row, sample in enumerate(paths)}
    with timings.measure("score"):
        scores = pd.concat(
            [
                score_setting(protocol, setting, rows, system, table, experiment.fusions, experiment.sides)
                for setting in settings
                for system, table in zip(systems, tables, strict=True)
            ],
            ignore_index=True,
        )
    return scores, run_record(protocol.name, protocol.root, experiment, systems, tables, timings)


def extract_systems(
    protocol: VerificationProtocol, paths: Iterable[str], experiment: Experiment, progress: Progress | None = None
) -> tuple[list[System], list[FeatureTable], Timings]:
    """Every system of an experiment, what it sees of the protocol's images, and how long that took.

    Raises:
        PifrError: as `load_systems` and `extract`.
    """
    systems, timings = load_systems(experiment), Timings()
    with FeatureStore(experiment.store or default_store()) as store:
        tables = extract(
            [Image(path, partial(protocol.read, path)) for path in paths],
            finder_factory(experiment),
            systems,
            store,
            batch_size=experiment.batch_size,
            workers=experiment.workers,
            device=experiment.device,
            progress=progress,
            timings=timings,
        )
    return systems, tables, timings


def chosen_settings(protocol: VerificationProtocol, experiment: Experiment) -> tuple[str, ...]:
    """Settings that an experiment asks for. Raises `UnknownNameError` for one that the protocol does not have."""
    for setting in experiment.settings or ():
        if setting not in protocol.settings:
            raise UnknownNameError(f"setting of {protocol.name}", setting, protocol.settings)
    return experiment.settings or protocol.settings


def load_systems(experiment: Experiment) -> list[System]:
    """Every recognizer crossed with every frontalizer, each loaded once."""
    from feature_extractors import load_recognizer

    recognizers = {name: load_recognizer(name, experiment.device) for name in experiment.recognizers}
    makers = {name: load_view_maker(name, experiment.device) for name in experiment.frontalizers}
    return [
        System(recognizer_name, recognizer, frontalizer_name, maker)
        for recognizer_name, recognizer in recognizers.items()
        for frontalizer_name, maker in makers.items()
    ]


def finder_factory(experiment: Experiment) -> Callable[[], FaceFinder]:
    """For `extract`; picklable."""
    return partial(FaceFinder, experiment.detector, experiment.policy, experiment.fallback)


def default_store() -> Path:
    """The user's feature store, beside the weights."""
    return home() / "features.sqlite"


def run_record(
    protocol: str,
    root: Path,
    experiment: Experiment,
    systems: Sequence[System],
    tables: Sequence[FeatureTable],
    timings: Timings,
) -> dict[str, Any]:
    """What `run.json` says of a run: enough to repeat it, and to caption its figures."""
    failures: Counter[str] = Counter()
    for row in range(len(tables[0])):
        reason = next((table.reason[row] for table in tables if table.status[row] == "failed"), None)
        if reason is not None:
            failures[reason] += 1
    fallbacks = np.any([table.status == "fallback" for table in tables], axis=0)
    return {
        **begin_record(protocol, root, {"images": len(tables[0])}),
        "configuration": experiment.configuration(),
        "weights": {
            **{system.recognizer_name: system.recognizer.fingerprint for system in systems},
            **{system.frontalizer_name: system.view_maker.fingerprint for system in systems},
        },
        "views": {system.frontalizer_name: table.passes for system, table in zip(systems, tables, strict=True)},
        "counts": {
            "images": len(tables[0]),
            "failures": dict(failures),
            "fallbacks": int(fallbacks.sum()),
        },
        "timings": timings.record(),
    }


def score_setting(
    protocol: VerificationProtocol,
    setting: str,
    rows: Mapping[str, int],
    system: System,
    table: FeatureTable,
    fusions: Sequence[Fusion] | None = None,
    sides: str = "both",
) -> "pd.DataFrame":
    """Scores of one system on one setting, one row a comparison and fusion: columns `SCORE_COLUMNS`.

    Args:
        rows: row of the feature table by sample.
        fusions: see `chosen_fusions`.
        sides: `both`, or `probe` to leave references with their first view.
    """
    import pandas as pd

    comparisons = protocol.comparisons(setting)
    probe, reference = (comparisons[side].map(rows).to_numpy(np.int64, copy=True) for side in ("probe", "reference"))
    status, reason = pair_status(table, probe, reference, sides)
    yaw = comparisons["yaw"].to_numpy(np.float64) if "yaw" in comparisons else table.yaw.double().numpy()[probe]
    tables = []
    for fusion in chosen_fusions(fusions, system, table):
        probes = table.templates(fusion)
        references = probes if sides == "both" else table.templates(fusion, first_view_only=True)
        tables.append(
            comparisons.assign(
                protocol=protocol.name,
                setting=setting,
                recognizer=system.recognizer_name,
                frontalizer=system.frontalizer_name,
                fusion=fusion,
                score=_dot(probes, references, probe, reference),
                status=status,
                reason=reason,
                yaw=yaw,
            )
        )
    return pd.concat(tables, ignore_index=True)[list(SCORE_COLUMNS)]


def chosen_fusions(asked: Sequence[Fusion] | None, system: System, features: FeatureTable) -> Sequence[Fusion]:
    """The fusions that a system is measured with: those asked for, or else its frontalizer's own.

    A frontalizer with one view has nothing to fuse: it gets its own alone, whatever is asked for.
    """
    return [system.view_maker.default_fusion] if asked is None or features.features.shape[1] == 1 else asked


def _dot(probes: Tensor, references: Tensor, probe: np.ndarray, reference: np.ndarray) -> np.ndarray:
    parts = [
        (probes[probe[start : start + _PAIRS]] * references[reference[start : start + _PAIRS]]).sum(1)
        for start in range(0, len(probe), _PAIRS)
    ]
    return torch.cat(parts).numpy() if parts else np.zeros(0)


def pair_status(
    table: FeatureTable, probe: np.ndarray, reference: np.ndarray, sides: str = "both"
) -> tuple[np.ndarray, np.ndarray]:
    """Status and reason of each comparison, as `SCORE_COLUMNS` describes them.

    Args:
        table: what a system saw.
        probe, reference: rows of the table; -1 is someone who is not enrolled.
        sides: `both`, or `probe` where references are left with their first view anyway: that a frontalizer would have
            left them to it is no fallback then.
    """
    status, why = np.append(table.status, "failed"), np.append(table.reason, "not_enrolled")
    fell = (status == "fallback") & np.isin(why, POOR)
    plain = np.where(fell, "ok", status) if sides == "probe" else status
    at = {"probe": (status[probe], why[probe]), "reference": (plain[reference], why[reference])}
    states = np.stack([state for state, _ in at.values()])
    worst = np.where((states == "failed").any(0), "failed", np.where((states == "fallback").any(0), "fallback", "ok"))
    reason = np.full(len(probe), "", object)
    for k in np.flatnonzero(worst != "ok"):
        reason[k] = write_reason(
            Incident(side, state[k], cause[k]) for side, (state, cause) in at.items() if state[k] != "ok"
        )
    return worst, reason
