"""`pifr demo`: the main job, start to end, on people who do not exist."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

DATA_FOLDER = "synthetic-cfp"
RUN_FOLDER = "run"
DETECTOR = "yunet"


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder of the data set and the run.")] = Path("runs/demo"),
    subjects: Annotated[int, typer.Option("--subjects", min=4, help="How many people are drawn.")] = 16,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the people; same seed, same pictures.")] = 1,
    recognizer: Annotated[list[str] | None, typer.Option("--recognizer", help="(sface, lightcnn-v4)")] = None,
    frontalizer: Annotated[list[str] | None, typer.Option("--frontalizer", help="(none, mirror, align, srtc)")] = None,
) -> None:
    """Draw a small CFP of synthetic people, evaluate real recognizers on it, print the table and write a report.

    The pictures go through the same code as real data. A second call with the same people starts from the store.
    """
    from pifr.cli.evaluate import evaluate
    from pifr.cli.report import report
    from pifr.errors import DataError
    from protocols.cfp import Cfp
    from protocols.experiment import load_experiment
    from protocols.runner import load_systems

    data = out / DATA_FOLDER
    experiment = load_experiment(
        None,
        {
            "data": data,
            "out": out / RUN_FOLDER,
            "recognizers": recognizer or ["sface", "lightcnn-v4"],
            "frontalizers": frontalizer or ["none", "mirror", "align", "srtc"],
            "detector": DETECTOR,
        },
    )
    if not _is_drawn(data, subjects, seed):
        if data.exists():
            raise DataError(f"'{data}' holds other people, or another version's: delete it, or name another --out")
        load_systems(experiment)  # a wrong name shows before minutes are spent on drawing
        _draw(data, subjects, seed)
    evaluate(Cfp(data), experiment)
    typer.echo("These people are drawn: the figures say that the pipeline works, not how good a recognizer is.")
    report([experiment.out], out=out / "report.html", images=data / "Data" / "Images")


def _is_drawn(data: Path, subjects: int, seed: int) -> bool:
    """Whether the folder holds these very people, drawn by this version."""
    import json

    from pifr import __version__

    try:
        record = json.loads((data / "dataset.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    wanted = {"subjects": subjects, "seed": seed, "pifr_version": __version__}
    return {name: record.get(name) for name in wanted} == wanted


def _draw(data: Path, subjects: int, seed: int) -> None:
    from pifr.cli.support.progress import progress_bar
    from pifr.support.workers import usable_cores
    from protocols.synthetic import write_cfp

    with progress_bar("drawing people") as progress:
        write_cfp(data, subjects, seed, workers=min(usable_cores(), subjects), progress=progress)
