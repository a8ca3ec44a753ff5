"""Options that every `pifr evaluate` command shares."""

import inspect
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from pifr.cli.support.faces_in_files import DETECTOR_HELP

# By attribute of `protocols.experiment.Experiment`; what is not given falls back to --config, then to its default.
_SHARED: dict[str, Any] = {
    "data": Annotated[Path | None, typer.Option("--data", help="The data set: its root, or its list of pairs.")],
    "out": Annotated[Path | None, typer.Option("--out", help="Folder of the run: its table and run.json.")],
    "settings": Annotated[
        list[str] | None, typer.Option("--setting", help="Of the protocol; repeat. (all; multipie: 1)")
    ],
    "recognizers": Annotated[
        list[str] | None,
        typer.Option(
            "--recognizer", help="Name, NAME:CHECKPOINT, onnx:PATH or python:FILE.py:FUNCTION; repeat. (default: sface)"
        ),
    ],
    "frontalizers": Annotated[
        list[str] | None,
        typer.Option("--frontalizer", help="none, mirror, align, srtc or an installed one; repeat. (none, mirror)"),
    ],
    "fusions": Annotated[
        list[str] | None,
        typer.Option(
            "--fusion", help="mean, weighted, score-mean, concatenation, yaw; repeat. (each frontalizer's default)"
        ),
    ],
    "sides": Annotated[str | None, typer.Option("--sides", help="Who is frontalized: both sides or probe. (both)")],
    "detector": Annotated[
        str | None, typer.Option("--detector", help=f"{DETECTOR_HELP} (yunet; of a .bin file: aligned)")
    ],
    "policy": Annotated[
        str | None, typer.Option("--policy", help="With several faces: largest, central or reject. (largest)")
    ],
    "fallback": Annotated[
        str | None, typer.Option("--fallback", help="With no face: centre-crop, which is counted. (the image fails)")
    ],
    "batch_size": Annotated[int | None, typer.Option("--batch-size", help="Faces a batch. (32)")],
    "workers": Annotated[int | None, typer.Option("--workers", help="Processes that decode and detect. (0: none)")],
    "device": Annotated[str | None, typer.Option("--device", help="Where networks run: cpu, cuda. (cpu)")],
    "store": Annotated[Path | None, typer.Option("--store", help="Feature store. (~/.cache/pifr/features.sqlite)")],
    "config": Annotated[Path | None, typer.Option("--config", help="YAML experiment; the options override it.")],
}


def experiment_command(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command the shared options: its first parameter receives the `Experiment` that they describe."""
    own = list(inspect.signature(function, eval_str=False).parameters.values())[1:]
    hints = {
        name: hint
        for name, hint in get_type_hints(function, localns={"Experiment": object}, include_extras=True).items()
        if name in {parameter.name for parameter in own}
    }

    @wraps(function)
    def command(**given: Any) -> None:
        from protocols.experiment import load_experiment

        shared = {name: given.pop(name) for name in _SHARED}
        experiment = load_experiment(shared.pop("config"), shared)
        try:
            function(experiment, **given)
        except KeyboardInterrupt:
            typer.echo("pifr: stopped; the same command goes on where this one was", err=True)
            raise typer.Exit(130) from None  # as shells have it

    keyword = inspect.Parameter.KEYWORD_ONLY
    command.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            *(inspect.Parameter(name, keyword, default=None, annotation=hint) for name, hint in _SHARED.items()),
            *(parameter.replace(kind=keyword, annotation=hints[parameter.name]) for parameter in own),
        ]
    )
    command.__annotations__ = {**_SHARED, **hints}
    return command
