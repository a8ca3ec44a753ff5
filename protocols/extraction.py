"""From images to features: detection, views, recognizers, and the store in which all of it is remembered.

Extraction is a pure map over batches of images. Batches are cut by position, each is written to the store in one
transaction, so a run that is killed loses at most one batch, and its second half computes exactly what it would have.
The features of one face do not depend on the faces beside it, up to the rounding of a network's own arithmetic (a
score moves by less than `SCORE_TOLERANCE` with the batch size; not at all with workers, the store or a restart).
"""

import logging
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from pifr.errors import DataError
from pifr.faces import FaceCrops, FaceFinder
from pifr.fusion import Fusion, fuse
from pifr.plugin import EmbeddedView, embed_views, failed_without_direction
from pifr.support.devices import inference
from pifr.support.workers import start_worker
from pifr.views import LocatingViewMaker, ViewMaker, Views
from protocols.base import Progress
from protocols.store import FaceFeatures, FeatureStore, content_digest, feature_key

if TYPE_CHECKING:
    from feature_extractors import Recognizer
    from pifr.frontalized import LocatedFaces

log = logging.getLogger(__name__)

SCORE_TOLERANCE = 1e-5
"""How far a score may move when only the size of the batches changes: float32 kernels are chosen by shape."""


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
        """Recognizer passes a face costs at most: its views that count for any image, and the first, always made."""
        counts = self.weights > 0
        counts[:, 0] = True
        return int(counts.any(0).sum())

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
            torch.tensor([face.yaw for face in faces], dtype=torch.float32, device="cpu"),
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
        DataError: the store cannot be written, a worker died, or an image vanished or changed during the run.
    """
    timings = timings or Timings()
    finder = make_finder()
    with timings.measure("hash"):
        digests = [_digest(image, finder.by_name) for image in images]
    # The same content is computed once, under each of its names where the detector asks for them. What a batch holds is
    # then the same for a run that is resumed.
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
    todo = [{digest: unique[digest] for digest in batch} for batch, _ in batches]
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


def _digest(image: Image, by_name: bool) -> bytes | None:
    """What tells an image from others; None if it cannot be read."""
    try:
        return _digest_of(image.read(), image.name, by_name)
    except OSError as error:
        log.warning("'%s' cannot be read: %s", image.name, error.strerror or error)
        return None


def _digest_of(content: bytes, name: str, by_name: bool) -> bytes:
    digest = content_digest(content)
    return content_digest(digest + name.encode()) if by_name else digest


def _key(digest: bytes, finder: FaceFinder, system: System) -> bytes:
    config = system.recognizer.config
    return feature_key(
        digest,
        finder.fingerprint,
        system.view_maker.fingerprint,
        system.recognizer.fingerprint,
        f"{config.alignment!r} at {config.input_size}",
    )


@inference()
def _embed_batch(
    batch: Sequence[bytes],
    missing: Sequence[Sequence[bytes]],
    faces: FaceCrops,
    systems: Sequence[System],
    timings: Timings,
) -> list[dict[bytes, FaceFeatures]]:
    """What each system lacks of a batch: digest -> features."""
    rows_of = {digest: row for row, digest in enumerate(batch)}
    subsets = {tuple(range(len(faces))): faces}  # by rows; choosing them copies
    located: dict[tuple, LocatedFaces] = {}  # by locator and rows
    made: dict[tuple, Views] = {}  # by maker, template and rows
    seen: dict[tuple, list[EmbeddedView]] = defaultdict(list)  # by recognizer and rows
    results = []
    for system, wanted in zip(systems, missing, strict=True):
        if not wanted:
            results.append({})
            continue
        config, maker = system.recognizer.config, system.view_maker
        rows = tuple(rows_of[digest] for digest in wanted)
        if rows not in subsets:
            subsets[rows] = faces[rows]
        chosen = subsets[rows]
        place = (maker.fingerprint, config.alignment, config.input_size, rows)
        if place not in made:
            with timings.measure(f"views:{system.frontalizer_name}"):
                if isinstance(maker, LocatingViewMaker):
                    found = maker.locator.fingerprint, rows
                    if found not in located:
                        located[found] = maker.locator(chosen)
                    made[place] = maker.views_of(chosen, located[found], config.alignment, config.input_size)
                else:
                    made[place] = maker(chosen, config.alignment, config.input_size)
        views = made[place]
        with timings.measure(f"embed:{system.recognizer_name}"):
            features = embed_views(system.recognizer, chosen, views, seen[system.recognizer.fingerprint, rows])
        results.append(dict(zip(wanted, _faces(features, views), strict=True)))
    return results


def _faces(features: Tensor, views: Views) -> Iterator[FaceFeatures]:
    views = failed_without_direction(views, features)
    features = features.masked_fill((views.weights <= 0)[..., None], 0.0)  # which may be anything
    values, weights, yaw = features.cpu().numpy(), views.weights.cpu().numpy(), views.yaw.tolist()
    for row, (status, reason) in enumerate(zip(views.status, views.reason, strict=True)):
        if status == "failed":
            yield FaceFeatures.failed(reason)
        else:
            yield FaceFeatures(values[row], weights[row], yaw[row], status, reason)


# --- detection, here or in other processes --------------------------------------------------------------------------

_worker_finder: FaceFinder | None = None  # one a worker process


def _find_faces(
    batches: Sequence[dict[bytes, Image]],
    finder: FaceFinder,
    make_finder: Callable[[], FaceFinder],
    workers: int,
    timings: Timings,
) -> Iterator[FaceCrops]:
    """Faces of each batch (digest -> image) in order; with workers, found ahead of their use by one batch a worker."""

    def contents(batch: dict[bytes, Image]) -> list[bytes]:
        return [_content(image, digest, finder.by_name) for digest, image in batch.items()]

    if not workers:
        for batch in batches:
            with timings.measure("detect"):
                faces = finder(contents(batch), [image.name for image in batch.values()])
            yield faces
        return
    # Forking a process that runs torch threads can deadlock.
    with ProcessPoolExecutor(workers, get_context("spawn"), _start_worker, (make_finder,)) as pool:
        waiting: deque[list[Future]] = deque()
        coming = iter(batches)
        try:
            while True:
                while len(waiting) <= workers and (batch := next(coming, None)) is not None:
                    names = [image.name for image in batch.values()]
                    waiting.append(_submit(pool, contents(batch), names, workers))
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


def _submit(pool: ProcessPoolExecutor, contents: Sequence[bytes], names: Sequence[str], workers: int) -> list[Future]:
    size = -(-len(contents) // workers)
    shares = [slice(start, start + size) for start in range(0, len(contents), size)]
    return [pool.submit(_find_in_worker, contents[share], names[share]) for share in shares]


def _content(image: Image, digest: bytes, by_name: bool) -> bytes:
    """The image's content, which has this digest: features of another one must not be stored under it."""
    try:
        content = image.read()
    except OSError as error:  # it could be read when it was hashed, so what is wrong is not the image
        raise DataError(
            f"'{image.name}' could be read a moment ago and cannot now ({error}): what was computed is stored; "
            "run again once its disk can be read"
        ) from error
    if _digest_of(content, image.name, by_name) != digest:
        raise DataError(f"'{image.name}' changed during the run: what was computed is stored; run again")
    return content


def _start_worker(make_finder: Callable[[], FaceFinder]) -> None:
    global _worker_finder
    start_worker()
    _worker_finder = make_finder()


def _find_in_worker(contents: Sequence[bytes], names: Sequence[str]) -> tuple[Any, ...]:
    assert _worker_finder is not None
    faces = _worker_finder(contents, names)
    # As numpy: torch would pass its tensors through shared memory, which containers often have little of.
    tensors = (faces.pixels.numpy(), faces.crop_to_image.numpy(), faces.landmarks.numpy())
    return (*tensors, faces.status, faces.reason, faces.edges.numpy())


def _from_arrays(found: tuple[Any, ...]) -> FaceCrops:
    pixels, crop_to_image, landmarks, status, reason, edges = found
    tensors = map(torch.from_numpy, (pixels, crop_to_image, landmarks))
    return FaceCrops(*tensors, status, reason, torch.from_numpy(edges))
