"""`pifr evaluate landmarks`: normalised mean error of profile landmarks."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from pifr.cli.support.faces_in_files import DETECTOR_HELP

if TYPE_CHECKING:
    import pandas as pd


def landmarks(
    data: Annotated[Path, typer.Option("--data", help="CFP's or Multi-PIE's root, or a CSV file.")],
    out: Annotated[Path, typer.Option("--out", help="Folder of the run: landmarks.parquet and run.json.")],
    truth: Annotated[
        Literal["cfp", "multipie", "csv"],
        typer.Option("--truth", help="Whose annotation: a CSV's columns are path, landmark, x, y."),
    ] = "cfp",
    predictor: Annotated[list[str] | None, typer.Option("--predictor", help="cnet, mediapipe; repeat. (cnet)")] = None,
    view: Annotated[str, typer.Option(help="CFP: profile or frontal.")] = "profile",
    labels: Annotated[Path | None, typer.Option(help="Multi-PIE: folder of the label files. (DATA/labels)")] = None,
    session: Annotated[int, typer.Option(help="Multi-PIE: session that is measured.")] = 1,
    smallest_yaw: Annotated[int, typer.Option(help="Multi-PIE: least |yaw|, degrees.")] = 60,
    detector: Annotated[str, typer.Option(help=DETECTOR_HELP)] = "yunet",
    device: Annotated[str, typer.Option(help="Where networks run: cpu, cuda.")] = "cpu",
) -> None:
    """Landmark error of C-Net, and of MediaPipe's Face Mesh, on annotated profiles."""  # fmt: skip
    from pifr.cli.support.progress import progress_bar
    from pifr.errors import DataError
    from pifr.faces import FaceFinder
    from pifr.support.files import check_writable
    from protocols.base import read_dataset
    from protocols.landmark_data import read_cfp, read_csv, read_multipie
    from protocols.landmark_predictors import LANDMARK_PREDICTORS
    from protocols.landmarks import LANDMARKS_FILE, SCHEMES, evaluate_landmarks, landmark_record
    from protocols.runs import save_run

    # Captions print the record, so what another kind of annotation would be asked for has no place in it.
    chosen = {"cfp": {"view": view}, "multipie": {"session": session, "smallest_yaw": smallest_yaw}, "csv": {}}[truth]
    annotations = {
        "cfp": lambda: read_cfp(data, **chosen),
        "multipie": lambda: read_multipie(data, labels or data / "labels", **chosen),
        "csv": lambda: read_csv(data),
    }[truth]()
    root, name = (data.parent, data.stem) if truth == "csv" else (data, truth)
    # What is wrong shows before anything is computed.
    read_dataset(root)
    if missing := [str(annotation.path) for annotation in annotations if not annotation.path.is_file()]:
        raise DataError(
            f"{len(missing)} of {len(annotations)} annotated pictures are missing, '{missing[0]}' the first"
        )
    check_writable(out)
    finder = FaceFinder(detector)
    predictors = [LANDMARK_PREDICTORS.load(name, device) for name in dict.fromkeys(predictor or ["cnet"])]
    with progress_bar("landmarks") as progress:
        table = evaluate_landmarks(
            annotations,
            finder,
            predictors,
            view if truth == "cfp" else truth,
            progress=progress,
        )
    measured = "; ".join(sorted({str(SCHEMES[annotation.scheme]) for annotation in annotations}))
    configuration = {"truth": truth, **chosen, "measured": measured}
    record = landmark_record(root, finder, predictors, table, configuration, name)
    save_run(out, table, record, file=LANDMARKS_FILE)
    typer.echo(_figures(table, synthetic=record["dataset"]["synthetic"]))
    typer.echo(f"errors and record: {out}", err=True)


def _figures(table: "pd.DataFrame", *, synthetic: bool) -> str:
    from protocols.landmarks import summarise_landmarks

    shown = []
    for by in ((), ("yaw_bin",)):
        summary = summarise_landmarks(table, by)
        for column in ("nme_nose", "nme_nose_median", "nme_box"):
            summary[column] = (100 * summary[column]).round(2)
        shown.append(summary.to_string(index=False))
    origin = "synthetic people: " if synthetic else ""
    title = f"{origin}mean error in % of the nose length and of the root of the box area; pictures without an answer"
    return f"{title} are counted as failures and left out of the mean\n" + "\n".join(shown)
