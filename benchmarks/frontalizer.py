"""What frontalization costs beside a recognizer, and where the time goes; detection is not in it.

Forward passes of LightCNN-V4 and of the frontalizer take turns, so that whatever else the machine does hits both. Faces
are mean faces at all angles, drawn here. Without packaged weights, untrained networks of the same shape are timed: they
cost the same.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from os import sysconf
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from statistics import median
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from benchmarks.timing import JsonFile, Repeats, report

if TYPE_CHECKING:
    from torch import Tensor

    from pifr.faces import FaceCrops
    from pifr.frontalizer import Frontalizer

GOAL = 0.25
_CONFIGURATION = Path(__file__).parents[1] / "configs" / "train" / "lite.yaml"


def main(
    options: Annotated[str, typer.Option(help="As after 'srtc:' in --frontalizer.")] = "",
    recognizer: Annotated[str, typer.Option(help="What it is compared with.")] = "lightcnn-v4",
    batch_size: Annotated[int, typer.Option(min=1, help="Faces a batch.")] = 32,
    faces: Annotated[int, typer.Option(min=0, help="Also watch the memory over so many faces, all drawn anew.")] = 0,
    repeats: Repeats = 7,
    json: JsonFile = None,
) -> None:
    """Milliseconds a face of every stage, beside a recognizer's forward pass; goal: a quarter of LightCNN-V4's."""
    import torch

    from feature_extractors import load_recognizer

    frontalizer, model = _load_frontalizer(options), load_recognizer(recognizer)
    crops, side = _drawn_faces(batch_size), model.config.input_size
    pixels = torch.rand(batch_size, 3, side, side, generator=torch.Generator().manual_seed(0))
    rounds = []
    with _timed_stages(frontalizer) as seconds:
        for number in range(repeats + 2):
            seconds.clear()
            forward = _seconds(lambda: model.embed(pixels))
            # A new batch object each time: the locator keeps the result of its latest.
            whole = _seconds(lambda batch=crops[:]: frontalizer(batch, model.config.alignment, side))
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
    notes: dict[str, Any] = {"ratio": ratio, "goal": GOAL, "batch": batch_size, "weights": frontalizer.fingerprint}
    if faces:
        notes["resident_memory_mb"] = _resident_memory(frontalizer, batch_size, faces)
    report("frontalizer", rows, json, **notes)


def _load_frontalizer(options: str) -> "Frontalizer":
    from pifr.errors import WeightsError
    from pifr.frontal_views import load_frontalizer
    from pifr.networks import build_network, save_network
    from pifr.training.config import load_training_config

    try:
        return load_frontalizer("cpu", options)
    except WeightsError:
        if options:
            raise
    tasks = load_training_config(_CONFIGURATION)
    with TemporaryDirectory() as folder:
        for name in ("segmentation", "pncc", "inpainting", "shape-coarse"):
            save_network(build_network(tasks.task(name).network), Path(folder) / f"{name}.safetensors", {})
        return load_frontalizer("cpu", folder)


def _drawn_faces(count: int, yaw: "Tensor | None" = None) -> "FaceCrops":
    """Mean faces at these angles in degrees, or at even steps from -90 to 90."""
    import torch

    from pifr.faces import CROP_SIZE, FaceCrops
    from pifr.geometry.camera import camera_from_angles
    from pifr.geometry.render import render
    from pifr.geometry.template import load_template

    template, middle = load_template(), torch.full((count, 2), (CROP_SIZE - 1) / 2)
    camera = camera_from_angles(torch.linspace(-90, 90, count) if yaw is None else yaw, 0.0, 0.0, 0.68, middle)
    pixels = render(template.position_map(128)[None], template.ncc_map(128)[None], camera, CROP_SIZE).attributes
    return FaceCrops(
        pixels,
        torch.eye(2, 3).repeat(count, 1, 1),
        torch.full((count, 5, 2), torch.nan),
        ("ok",) * count,
        ("",) * count,
    )


@contextmanager
def _timed_stages(frontalizer: "Frontalizer") -> Iterator[dict[str, float]]:
    """Seconds of each stage, added up while the context lasts."""
    seconds: dict[str, float] = {}
    stages = {
        "segmentation": (frontalizer.locator, "segment"),
        "PNCC": (frontalizer.locator, "code"),
        "correspondence": (frontalizer.locator.correspondence, "unwrap"),
        "completion": (frontalizer, "complete"),
        "shape": (frontalizer, "shape"),
        "rendering": (frontalizer, "turn"),
    }

    def timed(stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            start = time.perf_counter()
            result = function(*arguments)
            seconds[stage] = seconds.get(stage, 0.0) + time.perf_counter() - start
            return result

        return call

    for stage, (owner, name) in stages.items():
        setattr(owner, name, timed(stage, getattr(owner, name)))
    yield seconds
    for owner, name in stages.values():
        delattr(owner, name)


def _resident_memory(frontalizer: "Frontalizer", batch_size: int, faces: int) -> dict[str, float]:
    """The process's resident memory in MB after a tenth of the faces, after half of them and after all."""
    import torch

    generator, batches = torch.Generator().manual_seed(0), -(-faces // batch_size)
    marks = {max(1, batches // 10), max(1, batches // 2), batches}
    resident = {}
    for number in range(1, batches + 1):
        frontalizer(_drawn_faces(batch_size, 180 * torch.rand(batch_size, generator=generator) - 90))
        if number in marks:
            resident[f"after {number * batch_size} faces"] = _resident_bytes() / 2**20
    return resident


def _resident_bytes() -> float:
    pages = Path("/proc/self/statm")
    if pages.is_file():
        return int(pages.read_text(encoding="ascii").split()[1]) * sysconf("SC_PAGE_SIZE")
    return 1024 * getrusage(RUSAGE_SELF).ru_maxrss  # the peak, where the system does not tell the present


def _seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start
