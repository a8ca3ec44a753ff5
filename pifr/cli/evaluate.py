"""`pifr evaluate`: run a protocol, write its scores, say the figures."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pifr.cli.support.lazy import lazy_group
from pifr.cli.support.options import experiment_command

if TYPE_CHECKING:
    from protocols.base import VerificationProtocol
    from protocols.experiment import Experiment

COMMANDS = {
    "cfp": ("pifr.cli.evaluate:cfp", "Celebrities in Frontal-Profile: FP and FF verification."),
    "pairs": ("pifr.cli.evaluate:pairs", "LFW-style pair lists and InsightFace .bin files."),
    "multipie": ("pifr.cli.evaluate_multipie:multipie", "CMU Multi-PIE: rank-1 identification by yaw."),
    "landmarks": ("pifr.cli.evaluate_landmarks:landmarks", "Profile landmarks: normalised mean error."),
    "shape": ("pifr.cli.evaluate_shape:shape", "3D shape: error against scans, the MICC protocol."),
}

Csv = Annotated[bool, typer.Option("--csv", help="Write scores.csv as well.")]

app = typer.Typer(
    cls=lazy_group("pifr evaluate", COMMANDS),
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def _group() -> None:
    """Run a protocol (CFP, Multi-PIE, pairs, ...) and write a table of scores."""


@experiment_command
def cfp(experiment: "Experiment", csv: Csv = False) -> None:
    """Verification on CFP: frontal-profile (FP) and frontal-frontal (FF), official folds, official layout.

    InsightFace's cfp_fp.bin is read by 'pifr evaluate pairs'.
    """
    from protocols.cfp import Cfp

    evaluate(Cfp(experiment.data), experiment, csv=csv)


@experiment_command
def pairs(
    experiment: "Experiment",
    images: Annotated[Path | None, typer.Option("--images", help="Folder of the images. (that of the list)")] = None,
    csv: Csv = False,
) -> None:
    """Verification on a list of pairs.

    --data is LFW's pairs.txt, CALFW's or CPLFW's list, a list of 'image image 1' lines, or an InsightFace .bin file.
    """
    from protocols.pairs import open_pairs

    evaluate(open_pairs(experiment.data, images), experiment, csv=csv)


def evaluate(protocol: "VerificationProtocol", experiment: "Experiment", *, csv: bool = False) -> None:
    """Run a verification experiment, write the run, print its figures."""
    from pifr.cli.compare import render
    from pifr.cli.support.progress import progress_bar
    from pifr.support.files import check_writable
    from protocols.runner import run_verification
    from protocols.runs import load_run, save_run

    check_writable(experiment.out)
    with progress_bar(protocol.name) as progress:
        scores, record = run_verification(protocol, experiment, progress)
    save_run(experiment.out, scores, record, csv=csv)
    typer.echo(render([load_run(experiment.out)]), nl=False)
    typer.echo(f"scores and record: {experiment.out}", err=True)
