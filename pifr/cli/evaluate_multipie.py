"""`pifr evaluate multipie`: rank-1 identification by yaw."""

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from pifr.cli.support.options import experiment_command

if TYPE_CHECKING:
    import pandas as pd

    from protocols.experiment import Experiment


@experiment_command
def multipie(
    experiment: "Experiment",
    test_subjects: Annotated[
        Literal["published", "after-training", "all"],
        typer.Option(help="Who is tested: the last 100 of Setting-1, those after the first 150 (99 people), or all."),
    ] = "published",
    session4_neutral: Annotated[
        Literal["01", "02", "both"], typer.Option(help="Session 4's neutral recording in Setting-2.")
    ] = "01",
    gallery_shot: Annotated[str, typer.Option(help="Illumination of the references; 07 is the frontal flash.")] = "07",
    probe_shots: Annotated[str, typer.Option(help="all, flash, no-flash, or one shot (00 to 19).")] = "all",
    poses: Annotated[str, typer.Option(help="|yaw| of the probes, degrees, by commas.")] = "45,60,75,90",
    frontal_probes: Annotated[
        bool, typer.Option("--frontal-probes", help="The frontal camera's other images are probes too.")
    ] = False,
) -> None:
    """Identification on CMU Multi-PIE: one frontal reference a subject, every other pose a probe.

    Settings are 1 (session 1; the default, as in the paper) and 2 (all sessions).
    """
    from pifr.cli.support.progress import progress_bar
    from pifr.errors import ConfigError
    from pifr.support.files import check_writable
    from protocols.identification import IDENTIFICATION_FILE, run_identification
    from protocols.multipie import MultiPie, Switches
    from protocols.runs import save_run

    check_writable(experiment.out)
    try:
        wanted = tuple(int(pose) for pose in poses.split(","))
    except ValueError as error:
        raise ConfigError(f"--poses {poses}: degrees with commas between, as 45,60,75,90") from error
    try:
        switches = Switches(test_subjects, session4_neutral, gallery_shot, probe_shots, wanted, frontal_probes)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    with progress_bar("multipie") as progress:
        table, record = run_identification(MultiPie(experiment.data, switches), experiment, progress)
    save_run(experiment.out, table, record, file=IDENTIFICATION_FILE)
    typer.echo(_rates(table, synthetic=record["dataset"]["synthetic"]))
    typer.echo(f"ranks and record: {experiment.out}", err=True)


def _rates(table: "pd.DataFrame", *, synthetic: bool) -> str:
    """Rank-1 in percent by |yaw|, a line a system, both sides pooled by counts."""
    from protocols.identification import identification_rates

    rates = identification_rates(table, by=("pose",), ranks=(1,))
    rates["rank-1"] *= 100
    systems = ["setting", "recognizer", "frontalizer", "fusion"]
    by_pose = rates.pivot_table(index=systems, columns="pose", values="rank-1")
    counts = rates.groupby(systems)[["probes", "failures"]].sum()
    shown = by_pose.round(2).rename(columns=lambda pose: f"±{pose}°" if pose else "0°").join(counts)
    origin = "synthetic people, not Multi-PIE: " if synthetic else ""
    title = f"{origin}rank-1 in % by |yaw|; failures are probes without a rank, and misses"
    return f"{title}\n{shown.reset_index().to_string(index=False)}"
