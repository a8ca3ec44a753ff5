"""Scoring with memory bounded by a block: a full search of a gallery, and a long list of comparisons."""

import tracemalloc
from collections.abc import Callable
from typing import Annotated

import numpy as np
import typer

from benchmarks.timing import JsonFile, Repeats, median_seconds, report


def main(
    probes: Annotated[int, typer.Option("--probes", min=1)] = 10_000,
    references: Annotated[int, typer.Option("--references", min=1)] = 10_000,
    size: Annotated[int, typer.Option("--size", min=1, help="Length of a template.")] = 256,
    repeats: Repeats = 3,
    json: JsonFile = None,
) -> None:
    """Comparisons a second and peak memory, by block size, beside what all scores at once would take."""
    from protocols.identification import search

    rng = np.random.default_rng(0)
    gallery = _units(rng, references, size)
    faces = _units(rng, probes, size)
    truth = rng.integers(references, size=probes)
    rows = []
    for block in ((256, 1024), (1024, 4096), (1024, 16384)):

        def run(block: tuple[int, int] = block) -> object:
            return search(faces, gallery, truth, block)

        seconds = median_seconds(run, repeats)
        rows.append(
            {
                "block": f"{block[0]} x {block[1]}",
                "seconds": seconds,
                "million comparisons a second": probes * references / seconds / 1e6,
                "peak MB": _peak_megabytes(run),
            }
        )
    report("scoring", rows, json, all_scores_at_once_MB=probes * references * 4 / 2**20)


def _units(rng: np.random.Generator, count: int, size: int) -> np.ndarray:
    values = rng.standard_normal((count, size), dtype=np.float32)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def _peak_megabytes(function: Callable[[], object]) -> float:
    """What a call allocates at most beyond what was there before it."""
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1] / 2**20
    finally:
        tracemalloc.stop()
