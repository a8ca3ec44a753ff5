"""Faces a second that each recognizer embeds, by batch size; detection and alignment are not in it."""

from typing import Annotated

import typer

from benchmarks.timing import JsonFile, Repeats, interleaved_seconds, report


def main(
    recognizer: Annotated[list[str] | None, typer.Option("--recognizer", help="Repeat. (sface, lightcnn-v4)")] = None,
    batch_size: Annotated[list[int] | None, typer.Option("--batch-size", help="Repeat. (1, 8, 32)")] = None,
    repeats: Repeats = 5,
    json: JsonFile = None,
) -> None:
    """Throughput of recognizers. The ratio is to the first recognizer at the same batch size."""
    import torch

    from feature_extractors import load_recognizer

    names = recognizer or ["sface", "lightcnn-v4"]
    loaded = {name: load_recognizer(name) for name in names}
    rows = []
    for size in batch_size or [1, 8, 32]:
        generator = torch.Generator().manual_seed(0)
        calls = {}
        for name, model in loaded.items():
            side = model.config.input_size
            batch = torch.rand(size, 3, side, side, generator=generator)
            calls[name] = lambda model=model, batch=batch: model.embed(batch)
        seconds = interleaved_seconds(calls, repeats)
        rows += [
            {
                "recognizer": name,
                "batch": size,
                "ms a face": 1000 * seconds[name] / size,
                "faces a second": size / seconds[name],
                "ratio": seconds[name] / seconds[names[0]],
            }
            for name in names
        ]
    report("recognizers", rows, json)
