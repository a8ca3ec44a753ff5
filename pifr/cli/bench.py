"""`pifr bench`: every benchmark of the project. Ratios are within one run, on one machine."""

import typer

from pifr.cli.support.lazy import lazy_group

COMMANDS = {
    "recognizers": ("benchmarks.recognizers:main", "Faces a second by recognizer and batch size."),
    "scoring": ("benchmarks.scoring:main", "10,000 x 10,000 comparisons in bounded memory."),
    "harness": ("benchmarks.harness:main", "What the harness adds to the recognizer's own forward pass."),
    "renderer": ("benchmarks.renderer:main", "Torch renderer beside pyrender."),
    "roundtrip": ("benchmarks.roundtrip:main", "Geometry without networks: true PNCC to UV and back."),
    "frontalizer": ("benchmarks.frontalizer:main", "Frontalization beside a recognizer's forward pass."),
    "detection": ("benchmarks.detection:main", "How well faces are found, by size, roll and yaw, in drawn photos."),
    "registration": ("benchmarks.registration:main", "How well photos are registered, on drawn people."),
}

app = typer.Typer(
    cls=lazy_group("pifr bench", COMMANDS),
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def _group() -> None:
    """Measure speed, detection and registration; --json FILE keeps the figures."""
