"""`pifr evaluate shape`: error of reconstructed shapes against scans, in millimetres."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pifr.cli.support.faces_in_files import DETECTOR_HELP

if TYPE_CHECKING:
    import pandas as pd


def shape(
    data: Annotated[
        Path, typer.Option("--data", help="Folder of <subject>/ with a scan (.ply, .obj), landmarks.txt and frames/.")
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder of the run: shape.parquet and run.json.")],
    predictor: Annotated[
        list[str] | None,
        typer.Option(
            "--predictor", help="snet-coarse, snet-fine, fit, fit-joint, mean, mediapipe; repeat. (snet-coarse, mean)"
        ),
    ] = None,
    radius: Annotated[float, typer.Option(help="Crop around the tip of the nose, mm.")] = 100.0,
    forehead: Annotated[float, typer.Option(help="Where the forehead begins, in eye-mouth distances.")] = 0.4,
    metric: Annotated[bool, typer.Option("--metric", help="Keep the prediction's size: rigid alignment.")] = False,
    icp: Annotated[bool, typer.Option("--icp", help="Refine the alignment by closest points.")] = False,
    every: Annotated[int, typer.Option(help="Use one frame in this many.")] = 10,
    detector: Annotated[str, typer.Option(help=DETECTOR_HELP)] = "yunet",
    device: Annotated[str, typer.Option(help="Where networks run: cpu, cuda.")] = "cpu",
) -> None:
    """RMSE of a subject's mean shape against the scan, by the protocol of MICC Florence (the paper's Table 5)."""
    from pifr.cli.support.progress import progress_bar
    from pifr.errors import ConfigError
    from pifr.faces import FaceFinder
    from pifr.support.files import check_writable
    from protocols.base import require_valid
    from protocols.runs import save_run
    from protocols.shape import SHAPE_FILE, ShapeOptions, ShapeScans, evaluate_shape, shape_record
    from protocols.shape_predictors import SHAPE_PREDICTORS

    try:
        options = ShapeOptions(radius, forehead, not metric, icp, every)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    protocol = ShapeScans(data, options)
    require_valid(protocol)
    check_writable(out)
    finder = FaceFinder(detector)
    predictors = [SHAPE_PREDICTORS.load(name, device) for name in dict.fromkeys(predictor or ["snet-coarse", "mean"])]
    with progress_bar("shape") as progress:
        table, _ = evaluate_shape(protocol, finder, predictors, progress=progress)
    record = shape_record(protocol, finder, predictors, table)
    save_run(out, table, record, file=SHAPE_FILE)
    typer.echo(_figures(table, synthetic=record["dataset"]["synthetic"]))
    typer.echo(f"errors and record: {out}", err=True)


def _figures(table: "pd.DataFrame", *, synthetic: bool) -> str:
    grouped = table.groupby(["setting", "predictor"], sort=False)
    shown = grouped.agg(
        subjects=("subject", "size"),
        failed=("status", lambda status: int((status == "failed").sum())),
        frames=("frames", "sum"),
        failed_frames=("failed_frames", "sum"),
        rmse=("rmse", "mean"),
        std=("rmse", "std"),
        median=("median", "mean"),
    )
    origin = "synthetic people: " if synthetic else ""
    return f"{origin}mean over subjects of the RMSE in mm\n{shown.round(3).reset_index().to_string(index=False)}"
