"""What frontalization costs beside a recognizer, and where the time goes; detection is not in it.

Forward passes of LightCNN-V4 and of the frontalizer take turns, so that whatever else the machine does hits both. Faces
are those of drawn people at all angles: what is no face would be looked at four times (`FaceLocator`).
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from os import sysconf
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from statistics import median
from typing import TYPE_CHECKING, Annotated, Any

import typer

from benchmarks.timing import JsonFile, Repeats, report

if TYPE_CHECKING:
    from pifr.faces import FaceCrops
    from pifr.frontalizer import Frontalizer

GOAL = 0.25


def main(
    options: Annotated[str, typer.Option(help="As after 'srtc:' in --frontalizer.")] = "",
    recognizer: Annotated[str, typer.Option(help="What it is compared with.")] = "lightcnn-v4",
    device: Annotated[str, typer.Option(help="Where both run.")] = "cpu",
    batch_size: Annotated[int, typer.Option(min=1, help="Faces a batch.")] = 32,
    faces: Annotated[int, typer.Option(min=0, help="Also watch the memory over so many faces.")] = 0,
    repeats: Repeats = 7,
    json: JsonFile = None,
) -> None:
    """Milliseconds a face of every stage, beside a recognizer's forward pass; goal: a quarter of LightCNN-V4's."""
    import torch

    from feature_extractors import load_recognizer
    from pifr.options import load_frontalizer

    frontalizer, model = load_frontalizer(device, options), load_recognizer(recognizer, device)
    crops, side = _drawn_faces(batch_size), model.config.input_size
    pixels = torch.rand(batch_size, 3, side, side, generator=torch.Generator().manual_seed(0)).to(device)
    rounds = []
    with _timed_stages(frontalizer) as seconds:
        for number in range(repeats + 2):
            seconds.clear()
            forward = _seconds(lambda: model.embed(pixels))
            whole = _seconds(lambda: frontalizer(crops, model.config.alignment, side))
            if number >= 2:
                rounds.append({recognizer: forward, "frontalization": whole} | seconds)
    each = {name: median(figures[name] for figures in rounds) for name in rounds[0]}
    whole = each["frontalization"]
    each["everything else"] = whole - sum(each[name] for name in seconds)
    rows = [
        {
            "stage": name,
            "ms a face": 1000 * value / batch_size,
            "share": None if name == recognizer else value / whole,
            "of the recognizer": value / each[recognizer],
        }
        for name, value in each.items()
    ]
    ratio = median(figures["frontalization"] / figures[recognizer] for figures in rounds)
    notes: dict[str, Any] = {"ratio": ratio, "goal": GOAL, "batch": batch_size, "device": device}
    notes["weights"] = frontalizer.fingerprint
    notes["located"] = int(frontalizer.locator(crops).reliable.sum())
    if faces:
        notes["resident_memory_mb"] = _resident_memory(frontalizer, crops, faces)
    report("frontalizer", rows, json, **notes)


def _drawn_faces(count: int) -> "FaceCrops":
    """People who do not exist, at even steps from -90 to 90 degrees."""
    import numpy as np

    from pifr.faces import FaceCrops, cut
    from protocols.synthetic.people import expression, sample_person
    from protocols.synthetic.photography import photograph
    from protocols.synthetic.scene import Scene, View

    crops = []
    for index, yaw in enumerate(np.linspace(-90, 90, count)):
        rng = np.random.default_rng(index)
        scene = Scene(sample_person(3, index), expression("neutral", 0.5, rng))
        photo = photograph(scene, View(float(yaw), 0.0, 0.0, 1.0, (160.0, 160.0), 320, 320), rng)
        crops.append(cut(photo, np.array([80.0, 70.0, 240.0, 250.0])))
    return FaceCrops.concatenate(crops)


@contextmanager
def _timed_stages(frontalizer: "Frontalizer") -> Iterator[dict[str, float]]:
    """Seconds of each stage, added up while the context lasts."""
    seconds: dict[str, float] = {}
    stages = {
        "segmentation": (frontalizer.locator, "segment"),
        "PNCC": (frontalizer.locator, "predict_pncc"),
        "correspondence": (frontalizer.locator.correspondence, "unwrap"),
        "completion": (frontalizer, "complete"),
        "shape": (frontalizer, "shape"),
        "rendering": (frontalizer, "turn"),
    }

    def timed(stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            start = _time()
            result = function(*arguments)
            seconds[stage] = seconds.get(stage, 0.0) + _time() - start
            return result

        return call

    for stage, (owner, name) in stages.items():
        setattr(owner, name, timed(stage, getattr(owner, name)))
    try:
        yield seconds
    finally:
        for owner, name in stages.values():
            delattr(owner, name)


def _resident_memory(frontalizer: "Frontalizer", crops: "FaceCrops", faces: int) -> dict[str, float]:
    """The process's resident memory in MB after a tenth of the faces, after half of them and after all."""
    import torch

    generator, batch_size = torch.Generator().manual_seed(0), len(crops)
    batches = -(-faces // batch_size)
    marks = {max(1, batches // 10), max(1, batches // 2), batches}
    resident = {}
    for number in range(1, batches + 1):
        noise = 0.05 * torch.rand(crops.pixels.shape, generator=generator)
        frontalizer(replace(crops, pixels=crops.pixels * 0.95 + noise))
        if number in marks:
            resident[f"after {number * batch_size} faces"] = _resident_bytes() / 2**20
    return resident


def _resident_bytes() -> float:
    pages = Path("/proc/self/statm")
    if pages.is_file():
        return int(pages.read_text(encoding="ascii").split()[1]) * sysconf("SC_PAGE_SIZE")
    return 1024 * getrusage(RUSAGE_SELF).ru_maxrss  # the peak, where the system does not tell the present


def _seconds(function: Callable[[], object]) -> float:
    start = _time()
    function()
    return _time() - start


def _time() -> float:
    """Seconds on the clock, once all devices have done what they were asked for."""
    import torch

    if torch.accelerator.is_available():
        torch.accelerator.synchronize()
    return time.perf_counter()
