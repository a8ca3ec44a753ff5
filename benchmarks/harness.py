"""What the harness adds to a recognizer's own forward pass, detection excluded."""

import tempfile
from functools import partial
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import torch
import typer

from benchmarks.timing import JsonFile, Repeats, interleaved_seconds, report
from pifr.faces import FaceCrops, FaceFinder
from pifr.views import PlainCrop
from protocols.extraction import Image, System, Timings, extract
from protocols.store import FeatureStore

BUDGET = 0.15
"""Share of the forward pass that the harness may add."""


def main(
    recognizer: Annotated[str, typer.Option("--recognizer")] = "lightcnn-v4",
    images: Annotated[int, typer.Option("--images", min=1)] = 64,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1)] = 32,
    repeats: Repeats = 3,
    json: JsonFile = None,
) -> None:
    """Hashing, alignment, store and bookkeeping of new images beside the bare forward pass on the same batches."""
    from feature_extractors import load_recognizer

    model = load_recognizer(recognizer)
    system = System(recognizer, model, "none", PlainCrop())
    rng = np.random.default_rng(0)
    contents = [_encoded(rng) for _ in range(images)]
    pictures = [Image(str(number), partial(bytes, content)) for number, content in enumerate(contents)]
    finder = _Found(images)
    side = model.config.input_size
    aligned = [torch.rand(batch_size, 3, side, side) for _ in range(0, images, batch_size)]
    aligned[-1] = aligned[-1][: images - batch_size * (len(aligned) - 1)]
    timings = Timings()

    def bare() -> None:
        for batch in aligned:
            model.embed(batch)

    def harness() -> None:
        with tempfile.TemporaryDirectory() as folder, FeatureStore(Path(folder) / "store.sqlite") as store:
            extract(pictures, lambda: finder, [system], store, batch_size=batch_size, timings=timings)

    seconds = interleaved_seconds({"bare forward": bare, "harness": harness}, repeats)
    overhead = seconds["harness"] / seconds["bare forward"] - 1
    rows = [
        {"what": name, "seconds": value, "ms a face": 1000 * value / images, "ratio": value / seconds["bare forward"]}
        for name, value in seconds.items()
    ]
    stages = {stage: value / sum(timings.seconds.values()) for stage, value in timings.seconds.items()}
    report("harness", rows, json, overhead=overhead, budget=BUDGET, share_of_stages=stages)


def _encoded(rng: np.random.Generator) -> bytes:
    picture = cv2.resize(rng.integers(0, 256, (16, 16, 3), np.uint8), (250, 250))
    return cv2.imencode(".jpg", picture)[1].tobytes()


class _Found(FaceFinder):
    """Gives faces that were found before: detection is not what is measured."""

    def __init__(self, count: int) -> None:
        self.fingerprint, self.by_name = "benchmark", False
        self._faces = FaceCrops(
            torch.rand(count, 3, 256, 256),
            torch.eye(2, 3).repeat(count, 1, 1),
            torch.tensor([[97.0, 112], [159, 112], [128, 141], [103, 173], [153, 173]]).repeat(count, 1, 1),
            ("ok",) * count,
            ("",) * count,
        )

    def __call__(self, images, names=None) -> FaceCrops:  # type: ignore[no-untyped-def]
        return self._faces[[int(name) for name in names]]
