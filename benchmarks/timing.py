"""What every benchmark does the same way."""

import json
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer

JsonFile = Annotated[Path | None, typer.Option("--json", help="Write the figures to a file.")]
Repeats = Annotated[int, typer.Option("--repeats", min=1, help="Timed runs; the median counts.")]


def median_seconds(function: Callable[[], object], repeats: int, warm_up: int = 1) -> float:
    """Median wall time of a call, after calls that are not timed."""
    return interleaved_seconds({"": function}, repeats, warm_up)[""]


def interleaved_seconds(
    functions: Mapping[str, Callable[[], object]], repeats: int, warm_up: int = 1
) -> dict[str, float]:
    """Median wall time of each function, taken in turns so that a busy moment hits all of them."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for number in range(warm_up + repeats):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            if number >= warm_up:
                times[name].append(time.perf_counter() - start)
    return {name: median(values) for name, values in times.items()}


def machine() -> dict[str, Any]:
    """What the figures were taken on."""
    import torch

    return {
        "platform": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    }


def report(name: str, rows: Sequence[Mapping[str, Any]], file: Path | None, **notes: Any) -> None:
    """Print rows of figures as a table, and write them with the machine and the notes where asked to."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    cells = [columns, *([_text(row.get(column)) for column in columns] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    for line in cells:
        typer.echo("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)))
    for note, value in notes.items():
        typer.echo(f"{note.replace('_', ' ')}: {_text(value)}")
    if file:
        content = {"benchmark": name, "machine": machine(), "results": list(rows), **notes}
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_text(number)}" for name, number in value.items())
    return f"{value:,.4g}" if isinstance(value, float) else str(value)
