"""`pifr frontalize`: pictures of faces turned to the front, and everything on the way there."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    import numpy as np

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def frontalize(
    images: Annotated[list[Path], typer.Argument(help="Image files, or folders that are searched for images.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for NAME.png and faces.csv.")],
    everything: Annotated[
        bool, typer.Option("--all", help="Write every step, too: NAME/input.png, mask, pncc, landmarks, ...")
    ] = False,
    mesh: Annotated[str | None, typer.Option(help="Write textured meshes: obj, ply or glb.")] = None,
    size: Annotated[int, typer.Option(min=16, help="Side of the frontal picture, pixels.")] = 256,
    options: Annotated[
        str, typer.Option(help="As after 'srtc:' - paper, a folder of weights, KEY=VALUE; by commas.")
    ] = "",
    detector: Annotated[
        str, typer.Option(help="yunet, yunet-close, mtcnn, aligned (as ArcFace) or file:CSV.")
    ] = "yunet",
    policy: Annotated[str, typer.Option(help="With several faces: largest, central or reject.")] = "largest",
    batch_size: Annotated[int, typer.Option(min=1, help="Images at a time.")] = 16,
    device: Annotated[str, typer.Option(help="cpu, cuda, ...")] = "cpu",
) -> None:
    """Turn one face of each image to the front.

    faces.csv says of each image how its face is turned, how much of it is seen, or why it has no picture.
    """
    import csv

    from pifr.cli.extract import image_files
    from pifr.cli.progress import progress_bar
    from pifr.errors import DataError, UnknownNameError
    from pifr.faces import ARCFACE_112, FaceFinder
    from pifr.frontal_views import load_frontalizer
    from pifr.mesh import MESH_FORMATS, write_mesh
    from pifr.panels import panels, to_uint8

    if mesh is not None and mesh not in MESH_FORMATS:
        raise UnknownNameError("mesh format", mesh, MESH_FORMATS)
    files = image_files(images)
    if not files:
        raise DataError(f"no images among {', '.join(map(str, images))}: name files, or folders that hold some")
    frontalizer, finder = load_frontalizer(device, options), FaceFinder(detector, policy)
    out.mkdir(parents=True, exist_ok=True)
    names, made = _names(files), 0
    with progress_bar("frontalize") as progress, (out / "faces.csv").open("w", newline="") as table:
        rows = csv.writer(table)
        rows.writerow(["path", "picture", "status", "reason", "yaw", "visible_fraction", "residual_mm"])
        for start in range(0, len(files), batch_size):
            batch = files[start : start + batch_size]
            faces = finder(batch).to(device)
            result = frontalizer(faces, ARCFACE_112, size)
            frontals, steps = to_uint8(result.frontal), panels(faces, result) if everything else []
            for row, usable in enumerate(result.reliable.tolist()):
                name = names[start + row]
                if usable:
                    _write_picture(out / f"{name}.png", frontals[row])
                    made += 1
                if usable and mesh is not None:
                    write_mesh(result, row, out / f"{name}.{mesh}")
                if everything and result.status[row] != "failed":
                    for panel, picture in steps[row].items():
                        _write_picture(out / name / f"{panel}.png", picture)
                figures = (result.yaw[row], result.visible_fraction[row], result.residual[row])
                rows.writerow(
                    [
                        batch[row],
                        f"{name}.png" if usable else "",
                        result.status[row],
                        result.reason[row],
                        *(f"{float(figure):.3f}" for figure in figures),
                    ]
                )
            progress(start + len(batch), len(files))
    typer.echo(f"{made} of {len(files)} faces frontalized: {out}")


def _names(files: list[Path]) -> list[str]:
    """The files' names without their suffixes; where two are alike, numbered."""
    seen: dict[str, int] = {}
    names = []
    for file in files:
        count = seen[file.stem] = seen.get(file.stem, 0) + 1
        names.append(file.stem if count == 1 else f"{file.stem}-{count}")
    return names


def _write_picture(path: Path, picture: "np.ndarray") -> None:
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path)
