"""`pifr frontalize`: pictures of faces turned to the front, and everything on the way there."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pifr.cli.support.face_folder import COLUMNS, FacesTable, FreeNames, names_below, remove_face
from pifr.cli.support.faces_in_files import (
    DETECTOR_HELP,
    EVERY,
    POLICY_HELP,
    find_faces,
    image_files,
    make_finder,
    readable,
)
from pifr.cli.support.frontalizer_options import EVERY_NETWORK, FrontalizerOptions

if TYPE_CHECKING:
    import numpy as np

    from pifr.faces import FaceCrops
    from pifr.frontalized import FrontalizedFaces

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
    options: FrontalizerOptions = "",
    detector: Annotated[str, typer.Option(help=DETECTOR_HELP)] = "yunet",
    policy: Annotated[str, typer.Option(help=POLICY_HELP)] = "largest",
    batch_size: Annotated[int, typer.Option(min=1, help="Faces at a time.")] = 16,
    device: Annotated[str, typer.Option(help="cpu, cuda, ...")] = "cpu",
) -> None:
    """Turn one face of each image to the front, or every face.

    faces.csv says of each face where it lies, how it is turned, how much of it is seen, or why it has no picture. A
    folder may be used again: the faces of a photo that was there before are replaced, all else stays as it is.
    """
    from pifr.cli.support.progress import progress_bar
    from pifr.errors import UnknownNameError
    from pifr.export.mesh import MESH_FORMATS, write_mesh
    from pifr.export.panels import panels
    from pifr.faces import ARCFACE_112
    from pifr.images import to_uint8
    from pifr.options import load_frontalizer
    from pifr.support.files import check_writable

    if mesh is not None and mesh not in MESH_FORMATS:
        raise UnknownNameError("mesh format", mesh, MESH_FORMATS)
    check_writable(out)
    files = {path.absolute(): name for path, name in image_files(images, out).items()}
    finder, table = make_finder(detector, policy), FacesTable(out / "faces.csv", map(readable, files))
    names, seen, made = FreeNames(names_below(out)), 0, 0
    frontalizer = load_frontalizer(device, f"{EVERY_NETWORK},{options}")
    out.mkdir(parents=True, exist_ok=True)
    with progress_bar("frontalize") as progress, table:
        for faces, paths, done in find_faces(finder, list(files), policy == EVERY, batch_size):
            faces = faces.to(device)
            result = frontalizer(faces, ARCFACE_112, size)
            frontals, steps = to_uint8(result.frontal), panels(faces, result) if everything else []
            figures = _figures(faces, result)
            for row, (path, usable) in enumerate(zip(paths, result.reliable.tolist(), strict=True)):
                for old in table.renew(readable(path)):
                    names.release(remove_face(out, old))
                name = names(files[path])
                picture = readable(f"{name}.png") if usable else ""
                table.add({"path": readable(path), "name": readable(name), "picture": picture} | figures[row])
                if usable:
                    _write_picture(out / f"{name}.png", frontals[row])
                if usable and mesh is not None:
                    write_mesh(result, row, out / f"{name}.{mesh}")
                if everything and result.status[row] != "failed":
                    for panel, step in steps[row].items():
                        _write_picture(out / name / f"{panel}.png", step)
            seen, made = seen + len(faces), made + int(result.reliable.sum())
            progress(done, len(files))
    typer.echo(f"{made} of {seen} faces frontalized: {out}")


def _figures(faces: "FaceCrops", result: "FrontalizedFaces") -> list[dict[str, str]]:
    """What faces.csv says of each face beside its files; no figures where none was found."""
    import torch

    figures = torch.column_stack([faces.boxes, result.yaw, result.visible_fraction, result.residual]).tolist()
    return [
        {"status": status, "reason": reason}
        | {name: "" if status == "failed" else f"{figure:.3f}" for name, figure in zip(COLUMNS[5:], row, strict=True)}
        for status, reason, row in zip(result.status, result.reason, figures, strict=True)
    ]


def _write_picture(path: Path, picture: "np.ndarray") -> None:
    from PIL import Image

    from pifr.support.files import write_whole

    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, lambda part: Image.fromarray(picture).save(part, format="PNG"))
