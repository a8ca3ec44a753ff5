"""Runs systems over the images of a protocol: detection, views, features, store, templates, scores.

Extraction is a pure map over batches of images. Batches are cut by position, each is written to the store in one
transaction, so a run that is killed loses at most one batch, and its second half computes exactly what it would have.
The features of one face do not depend on the faces beside it, up to the rounding of a network's own arithmetic (a
score moves by less than `SCORE_TOLERANCE` with the batch size; not at all with workers, the store or a restart).
"""

import platform
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

import pifr
from pifr.errors import DataError, UnknownNameError
from pifr.faces import FaceCrops, FaceFinder
from pifr.fusion import Fusion, fuse
from pifr.plugin import embed_views
from pifr.views import ViewMaker, Views, load_view_maker
from pifr.zoo import home
from protocols.base import SCORE_COLUMNS, VerificationProtocol, read_dataset, require_valid
from protocols.experiment import Experiment
from protocols.store import FaceFeatures, FeatureStore, content_digest, feature_key

if TYPE_CHECKING:
    import pandas as pd

    from feature_extractors import Recognizer

SCORE_TOLERANCE = 1e-5
"""How far a score may move when only the size of the batches changes: float32 kernels are chosen by shape."""

_RECORDED = ("torch", "numpy", "onnxruntime", "opencv-python-headless", "pandas")

_PAIRS = 65_536  # comparisons whose templates are gathered at once

Progress = Callable[[int, int], None]
"""Called with the number of images done and the number there are to do."""


@dataclass(frozen=True, slots=True)
class Image:
    """One image of a data set: `name` for people and landmark files, `read()` for its content (may raise OSError)."""

    name: str
    read: Callable[[], bytes]


@dataclass(frozen=True, slots=True)
class System:
    """A recognizer behind a frontalizer, each with the name that tables call it by (what the user typed)."""

    recognizer_name: str
    recognizer: "Recognizer"
    frontalizer_name: str
    view_maker: ViewMaker


@dataclass(frozen=True, slots=True, eq=False)
class FeatureTable:
    """What one system saw of N images.

    Attributes:
        features: N x V x D float32; 0 where the image failed.
        weights: N x V float32.
        yaw: N float32 degrees, NaN where unknown.
        status, reason: N str.
    """

    features: Tensor
    weights: Tensor
    yaw: Tensor
    status: np.ndarray
    reason: np.ndarray

    def __len__(self) -> int:
        return len(self.status)

    @property
    def passes(self) -> int:
        """Recognizer passes a face costs."""
        return self.features.shape[1]

    def templates(self, fusion: Fusion, *, first_view_only: bool = False) -> Tensor:
        """Fused templates, N x D' float64; NaN where the image failed.

        With `first_view_only` each view's feature is replaced by the first view's, so that the template can be compared
        with one that was fused from all views, whatever the fusion.
        """
        features = self.features.double()
        if first_view_only:
            features = features[:, :1].expand_as(features)
        templates = fuse(features, self.weights.double(), self.yaw.double(), fusion)
        failed = torch.from_numpy(self.status == "failed")
        return templates.masked_fill(failed[:, None], torch.nan)

    @staticmethod
    def stack(faces: Sequence[FaceFeatures]) -> "FeatureTable":
        """One row a face; failed faces become rows of zeros."""
        views, size = next((face.features.shape for face in faces if len(face.features)), (1, 1))
        features = np.zeros((len(faces), views, size), np.float32)
        weights = np.zeros((len(faces), views), np.float32)
        for row, face in enumerate(faces):
            if len(face.features):
                features[row], weights[row] = face.features, face.weights
        return FeatureTable(
            torch.from_numpy(features),
            torch.from_numpy(weights),
            torch.tensor([face.yaw for face in faces], dtype=torch.float32),
            np.array([face.status for face in faces], object),
            np.array([face.reason for face in faces], object),
        )


@dataclass(slots=True)
class Timings:
    """Seconds spent on each stage."""

    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] += time.perf_counter() - start

    def record(self) -> dict[str, float]:
        return {stage: round(seconds, 3) for stage, seconds in self.seconds.items()}


# --- a whole run ----------------------------------------------------------------------------------------------------


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
    require_valid(protocol)
    paths: dict[str, str] = {}
    for setting in settings:
        samples = protocol.samples(setting)
        paths |= dict(zip(samples["sample"], samples["path"], strict=True))
    images = [Image(path, partial(protocol.read, path)) for path in paths.values()]
    systems, timings = load_systems(experiment), Timings()
    with FeatureStore(experiment.store or default_store()) as store:
        tables = extract(
            images,
            finder_factory(experiment),
            systems,
            store,
            batch_size=experiment.batch_size,
            workers=experiment.workers,
            device=experiment.device,
            progress=progress,
            timings=timings,
        )
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
    dataset = read_dataset(root, protocol)
    failures: Counter[str] = Counter()
    for row in range(len(tables[0])):
        reason = next((table.reason[row] for table in tables if table.status[row] == "failed"), None)
        if reason is not None:
            failures[reason] += 1
    return {
        "pifr_version": pifr.__version__,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "protocol": protocol,
        "dataset": {
            "name": dataset.name,
            "synthetic": dataset.synthetic,
            "root": str(root.resolve()),
            "counts": {"images": len(tables[0])},
        },
        "configuration": experiment.configuration(),
        "versions": {"python": platform.python_version()} | {name: version(name) for name in _RECORDED},
        "weights": {
            **{system.recognizer_name: system.recognizer.fingerprint for system in systems},
            **{system.frontalizer_name: system.view_maker.fingerprint for system in systems},
        },
        "views": {system.frontalizer_name: table.passes for system, table in zip(systems, tables, strict=True)},
        "counts": {
            "images": len(tables[0]),
            "failures": dict(failures),
            "fallbacks": int((tables[0].status == "fallback").sum()),
        },
        "timings": timings.record(),
    }


# --- extraction -----------------------------------------------------------------------------------------------------


def extract(
    images: Sequence[Image],
    make_finder: Callable[[], FaceFinder],
    systems: Sequence[System],
    store: FeatureStore,
    *,
    batch_size: int = 32,
    workers: int = 0,
    device: str = "cpu",
    progress: Progress | None = None,
    timings: Timings | None = None,
) -> list[FeatureTable]:
    """Features of every image for every system, from the store where they are, computed and stored where not.

    Faces are found once for all systems; a view is made once for all recognizers with the same alignment, and embedded
    once where several frontalizers show a recognizer the same view.

    Args:
        images: one that cannot be read becomes a failed row with the reason "unreadable".
        make_finder: makes a finder; called once here, and once in each worker, so it must be picklable then.
        systems: recognizers and view makers, loaded on `device`.
        store: where features are looked up and kept.
        batch_size: images a batch.
        workers: processes that decode and detect; 0: this process does.
        device: where the networks run.
        progress: called after each batch.
        timings: filled with the seconds of each stage.

    Returns:
        One table a system, rows in the order of `images`.

    Raises:
        DataError: the store cannot be written, or a worker died.
    """
    timings = timings or Timings()
    finder = make_finder()
    with timings.measure("hash"):
        digests = [_digest(image) for image in images]
    # The same content is computed once. What a batch holds is then the same for a run that is resumed.
    unique = {digest: image for digest, image in zip(digests, images, strict=True) if digest is not None}
    keys = [{digest: _key(digest, finder, system) for digest in unique} for system in systems]
    with timings.measure("store"):
        present = [store.present(of_system.values()) for of_system in keys]
    batches = []
    contents = list(unique)
    for start in range(0, len(contents), batch_size):
        batch = contents[start : start + batch_size]
        missing = [
            tuple(digest for digest in batch if of_system[digest] not in there)
            for of_system, there in zip(keys, present, strict=True)
        ]
        needed = set().union(*missing)
        if needed:
            batches.append((tuple(digest for digest in batch if digest in needed), missing))
    done, total = 0, sum(len(batch) for batch, _ in batches)
    todo = [[unique[digest] for digest in batch] for batch, _ in batches]
    for (batch, missing), faces in zip(batches, _find_faces(todo, finder, make_finder, workers, timings), strict=True):
        results = _embed_batch(batch, missing, faces.to(device), systems, timings)
        with timings.measure("store"):
            store.put(
                {
                    of_system[digest]: face
                    for of_system, found in zip(keys, results, strict=True)
                    for digest, face in found.items()
                }
            )
        done += len(batch)
        if progress:
            progress(done, total)
    unreadable = FaceFeatures.failed("unreadable")
    tables = []
    with timings.measure("store"):
        for of_system in keys:
            stored = store.get(list(of_system.values()))
            tables.append(
                FeatureTable.stack([unreadable if digest is None else stored[of_system[digest]] for digest in digests])
            )
    return tables


def _digest(image: Image) -> bytes | None:
    try:
        return content_digest(image.read())
    except OSError:
        return None


def _key(digest: bytes, finder: FaceFinder, system: System) -> bytes:
    config = system.recognizer.config
    return feature_key(
        digest,
        finder.fingerprint,
        system.view_maker.fingerprint,
        system.recognizer.fingerprint,
        f"{config.alignment!r} at {config.input_size}",
    )


@torch.inference_mode()
def _embed_batch(
    batch: Sequence[bytes],
    missing: Sequence[Sequence[bytes]],
    faces: FaceCrops,
    systems: Sequence[System],
    timings: Timings,
) -> list[dict[bytes, FaceFeatures]]:
    """What each system lacks of a batch: digest -> features."""
    rows_of = {digest: row for row, digest in enumerate(batch)}
    made: dict[tuple, tuple[FaceCrops, Views]] = {}  # by maker, template and rows
    seen: dict[tuple, list[tuple[Tensor, Tensor]]] = defaultdict(list)  # images and their features, by recognizer, rows
    results = []
    for system, wanted in zip(systems, missing, strict=True):
        if not wanted:
            results.append({})
            continue
        config, maker = system.recognizer.config, system.view_maker
        rows = tuple(rows_of[digest] for digest in wanted)
        place = (maker.fingerprint, config.alignment, config.input_size, rows)
        if place not in made:
            with timings.measure(f"views:{system.frontalizer_name}"):
                chosen = faces if len(rows) == len(faces) else faces[list(rows)]
                made[place] = chosen, maker(chosen, config.alignment, config.input_size)
        chosen, views = made[place]
        with timings.measure(f"embed:{system.recognizer_name}"):
            features = embed_views(system.recognizer, chosen, views, seen[system.recognizer.fingerprint, rows])
        results.append(dict(zip(wanted, _faces(features, views), strict=True)))
    return results


def _faces(features: Tensor, views: Views) -> Iterator[FaceFeatures]:
    usable = (features.isfinite().all(-1) | (views.weights == 0)).all(1).tolist()
    values, weights, yaw = features.cpu().numpy(), views.weights.cpu().numpy(), views.yaw.tolist()
    for row, (status, reason) in enumerate(zip(views.status, views.reason, strict=True)):
        if status == "failed":
            yield FaceFeatures.failed(reason)
        elif not usable[row]:
            yield FaceFeatures.failed("features_not_finite")
        else:
            yield FaceFeatures(values[row], weights[row], yaw[row], status, reason)


# --- detection, here or in other processes --------------------------------------------------------------------------

_worker_finder: FaceFinder | None = None  # one a worker process


def _find_faces(
    batches: Sequence[Sequence[Image]],
    finder: FaceFinder,
    make_finder: Callable[[], FaceFinder],
    workers: int,
    timings: Timings,
) -> Iterator[FaceCrops]:
    """Faces of each batch in order; with workers, found ahead of their use by one batch a worker."""
    if not workers:
        for batch in batches:
            with timings.measure("detect"):
                faces = finder([_content(image) for image in batch], [image.name for image in batch])
            yield faces
        return
    # Forking a process that runs torch threads can deadlock.
    with ProcessPoolExecutor(workers, get_context("spawn"), _start_worker, (make_finder,)) as pool:
        waiting: deque[list[Future]] = deque()
        coming = iter(batches)
        try:
            while True:
                while len(waiting) <= workers and (batch := next(coming, None)) is not None:
                    waiting.append(_submit(pool, batch, workers))
                if not waiting:
                    return
                with timings.measure("detect"):
                    parts = [_from_arrays(future.result()) for future in waiting.popleft()]
                yield FaceCrops.concatenate(parts)
        except BrokenProcessPool as error:
            raise DataError(
                "a worker process died, perhaps for lack of memory: what was computed is stored; "
                "run again with fewer --workers"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def _submit(pool: ProcessPoolExecutor, batch: Sequence[Image], workers: int) -> list[Future]:
    size = -(-len(batch) // workers)
    shares = [batch[start : start + size] for start in range(0, len(batch), size)]
    return [pool.submit(_find_in_worker, [_content(i) for i in share], [i.name for i in share]) for share in shares]


def _content(image: Image) -> bytes:
    try:
        return image.read()
    except OSError:
        return b""  # gone since it was hashed: an empty file is an unreadable image


def _start_worker(make_finder: Callable[[], FaceFinder]) -> None:
    global _worker_finder
    import cv2

    # The processes share the machine's cores already.
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    _worker_finder = make_finder()


def _find_in_worker(contents: Sequence[bytes], names: Sequence[str]) -> tuple[Any, ...]:
    assert _worker_finder is not None
    faces = _worker_finder(contents, names)
    # As numpy: torch would pass its tensors through shared memory, which containers often have little of.
    tensors = (faces.pixels.numpy(), faces.crop_to_image.numpy(), faces.landmarks.numpy())
    return (*tensors, faces.status, faces.reason, faces.extent.numpy())


def _from_arrays(found: tuple[Any, ...]) -> FaceCrops:
    pixels, crop_to_image, landmarks, status, reason, extent = found
    tensors = map(torch.from_numpy, (pixels, crop_to_image, landmarks))
    return FaceCrops(*tensors, status, reason, torch.from_numpy(extent))


# --- scores ---------------------------------------------------------------------------------------------------------


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
        fusions: None: the frontalizer's own default. A frontalizer with one view has nothing to fuse: it gets its own
            default alone, whatever is asked for.
        sides: `both`, or `probe` to leave references with their first view.
    """
    import pandas as pd

    comparisons = protocol.comparisons(setting)
    probe, reference = (comparisons[side].map(rows).to_numpy(np.int64, copy=True) for side in ("probe", "reference"))
    status, reason = _pair_status(table, probe, reference)
    yaw = comparisons["yaw"].to_numpy(np.float64) if "yaw" in comparisons else table.yaw.double().numpy()[probe]
    if fusions is None or table.passes == 1:
        fusions = [system.view_maker.default_fusion]
    tables = []
    for fusion in fusions:
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


def _dot(probes: Tensor, references: Tensor, probe: np.ndarray, reference: np.ndarray) -> np.ndarray:
    parts = [
        (probes[probe[start : start + _PAIRS]] * references[reference[start : start + _PAIRS]]).sum(1)
        for start in range(0, len(probe), _PAIRS)
    ]
    return torch.cat(parts).numpy() if parts else np.zeros(0)


def _pair_status(table: FeatureTable, probe: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Status and reason of each comparison, as `SCORE_COLUMNS` describes them."""
    prefix = np.where(table.status == "fallback", "fallback:", "").astype(object)
    stated = np.where(table.status == "ok", "", prefix + table.reason)
    sides = [
        np.where(stated[index] == "", "", f"{name}:" + stated[index])
        for name, index in (("probe", probe), ("reference", reference))
    ]
    between = np.where((sides[0] != "") & (sides[1] != ""), ";", "").astype(object)
    states = np.stack([table.status[probe], table.status[reference]])
    worst = np.where((states == "failed").any(0), "failed", np.where((states == "fallback").any(0), "fallback", "ok"))
    return worst, sides[0] + between + sides[1]
