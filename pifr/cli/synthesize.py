"""`pifr synthesize`: people who do not exist, in the layouts of real data sets."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

Out = Annotated[Path, typer.Option("--out", help="A new folder.")]
Subjects = Annotated[int, typer.Option("--subjects", min=1, help="How many people.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Same seed, same bytes.")]
Workers = Annotated[int | None, typer.Option("--workers", min=1, help="Processes. (one a core)")]

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def _group() -> None:
    """Make a synthetic data set in a protocol's layout, with masks, PNCC, landmarks and scans beside."""


@app.command()
def cfp(out: Out, subjects: Subjects = 40, seed: Seed = 1, workers: Workers = None) -> None:
    """CFP: ten frontal and four profile pictures a person; 500 subjects are CFP's own size."""
    from protocols.synthetic import write_cfp

    _run("cfp", out, subjects, workers, lambda **how: write_cfp(out, subjects, seed, **how))


@app.command()
def multipie(
    out: Out,
    subjects: Subjects = 20,
    seed: Seed = 1,
    sessions: Annotated[int, typer.Option(min=1, max=4, help="Sessions that everyone comes to.")] = 1,
    poses: Annotated[
        str | None, typer.Option(help="|yaw| of the cameras, degrees, by commas; frontal always. (all)")
    ] = None,
    shots: Annotated[str | None, typer.Option(help="Illuminations, by commas, as 00,07,13. (all twenty)")] = None,
    workers: Workers = None,
) -> None:
    """Multi-PIE: thirteen cameras, twenty lights, half the official image size."""
    from pifr.errors import ConfigError
    from protocols.multipie import CAMERA_YAW, SHOTS
    from protocols.synthetic import write_multipie

    wanted = {yaw.strip() for yaw in poses.split(",")} if poses else {str(abs(yaw)) for yaw in CAMERA_YAW.values()}
    cameras = tuple(camera for camera, yaw in CAMERA_YAW.items() if str(abs(yaw)) in wanted)
    unknown = wanted - {str(abs(yaw)) for yaw in CAMERA_YAW.values()}
    if unknown:
        known = ", ".join(map(str, sorted({abs(yaw) for yaw in CAMERA_YAW.values()})))
        raise ConfigError(f"Multi-PIE has no camera at |yaw| {', '.join(sorted(unknown))}: there are {known}")
    chosen = tuple(shot.strip() for shot in shots.split(",")) if shots else SHOTS
    _run(
        "multipie",
        out,
        subjects,
        workers,
        lambda **how: write_multipie(out, subjects, seed, sessions=sessions, cameras=cameras, shots=chosen, **how),
    )


@app.command()
def shape(
    out: Out,
    subjects: Subjects = 10,
    seed: Seed = 1,
    frames: Annotated[int, typer.Option(min=1, help="Frames of each film; the protocol takes every tenth.")] = 41,
    workers: Workers = None,
) -> None:
    """Scans with seven points, and a film of each person, for 'pifr evaluate shape'."""
    from protocols.synthetic import write_shape

    _run("shape", out, subjects, workers, lambda **how: write_shape(out, subjects, seed, frames=frames, **how))


def _run(label: str, out: Path, subjects: int, workers: int | None, write: Callable[..., None]) -> None:
    from pifr.cli.support.progress import progress_bar
    from pifr.support.workers import usable_cores

    with progress_bar(f"synthetic {label}") as progress:
        write(workers=min(workers or usable_cores(), subjects), progress=progress)
    typer.echo(f"{subjects} synthetic people in {label}'s layout: {out}", err=True)
