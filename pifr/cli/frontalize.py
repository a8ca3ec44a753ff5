"""`pifr frontalize`: pictures of faces turned to the front, and everything on the way there."""

from collections.abc import Iterable
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pifr.cli.faces_in_files import EVERY, POLICY_HELP, find_faces, image_files, make_finder, readable
from pifr.cli.frontalizer_options import EVERY_NETWORK, FrontalizerOptions

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
    detector: Annotated[
        str, typer.Option(help="yunet, yunet-close, mtcnn, aligned (as ArcFace) or file:CSV.")
    ] = "yunet",
    policy: Annotated[str, typer.Option(help=POLICY_HELP)] = "largest",
    batch_size: Annotated[int, typer.Option(min=1, help="Faces at a time.")] = 16,
    device: Annotated[str, typer.Option(help="cpu, cuda, ...")] = "cpu",
) -> None:
    """Turn one face of each image to the front, or every face.

    faces.csv says of each face where it lies, how it is turned, how much of it is seen, or why it has no picture.
    """
    import csv

    from pifr.cli.progress import progress_bar
    from pifr.errors import UnknownNameError
    from pifr.faces import ARCFACE_112
    from pifr.frontal_views import load_frontalizer
    from pifr.mesh import MESH_FORMATS, write_mesh
    from pifr.panels import PANELS, panels, to_uint8

    if mesh is not None and mesh not in MESH_FORMATS:
        raise UnknownNameError("mesh format", mesh, MESH_FORMATS)
    files, finder = image_files(images, out), make_finder(detector, policy)
    frontalizer = load_frontalizer(device, f"{EVERY_NETWORK},{options}")
    out.mkdir(parents=True, exist_ok=True)
    beside = ("_texture",) if mesh == "obj" else ()
    names, seen, made = _Names(PANELS if everything else (), beside, _below(out, files)), 0, 0
    with progress_bar("frontalize") as progress, (out / "faces.csv").open("w", newline="", encoding="utf-8") as table:
        rows = csv.DictWriter(table, _COLUMNS)
        rows.writeheader()
        for faces, paths, done in find_faces(finder, list(files), policy == EVERY, batch_size):
            faces = faces.to(device)
            result = frontalizer(faces, ARCFACE_112, size)
            frontals, steps = to_uint8(result.frontal), panels(faces, result) if everything else []
            figures = _figures(faces, result)
            for row, (path, usable) in enumerate(zip(paths, result.reliable.tolist(), strict=True)):
                name = names(files[path])
                if usable:
                    _write_picture(out / f"{name}.png", frontals[row])
                if usable and mesh is not None:
                    write_mesh(result, row, out / f"{name}.{mesh}")
                if everything and result.status[row] != "failed":
                    for panel, picture in steps[row].items():
                        _write_picture(out / name / f"{panel}.png", picture)
                picture = readable(f"{name}.png") if usable else ""
                rows.writerow({"path": readable(path), "picture": picture} | figures[row])
            seen, made = seen + len(faces), made + int(result.reliable.sum())
            progress(done, len(files))
    typer.echo(f"{made} of {seen} faces frontalized: {out}")


_COLUMNS = (
    "path", "picture", "status", "reason", "left", "top", "right", "bottom", "yaw", "visible_fraction", "residual_mm",
)  # fmt: skip


def _figures(faces: "FaceCrops", result: "FrontalizedFaces") -> list[dict[str, str]]:
    """What faces.csv says of each face beside its files; no figures where none was found."""
    import torch

    figures = torch.column_stack([faces.boxes, result.yaw, result.visible_fraction, result.residual]).tolist()
    return [
        {"status": status, "reason": reason}
        | {name: "" if status == "failed" else f"{figure:.3f}" for name, figure in zip(_COLUMNS[4:], row, strict=True)}
        for status, reason, row in zip(result.status, result.reason, figures, strict=True)
    ]


def _below(out: Path, files: Iterable[Path]) -> set[str]:
    """Names of the files that lie below the output folder, which nothing may replace."""
    real = (file.resolve() for file in files)
    folder = out.resolve()
    return {file.relative_to(folder).with_suffix("").as_posix() for file in real if file.is_relative_to(folder)}


class _Names:
    """Names of faces: their file's; numbered where that is taken.

    Args:
        steps: pictures that are written below each name.
        beside: what files of the same face are called after its name.
        taken: names that are taken before.
    """

    def __init__(self, steps: Iterable[str], beside: Iterable[str], taken: set[str]) -> None:
        self._steps, self._beside, self._taken = tuple(steps), tuple(beside), set(taken)

    def __call__(self, file: str) -> str:
        candidates = (file if number == 1 else f"{file}-{number}" for number in count(1))
        name = next(candidate for candidate in candidates if self._taken.isdisjoint(self._written(candidate)))
        self._taken.update(self._written(name))
        return name

    def _written(self, name: str) -> set[str]:
        return {name, *(f"{name}/{step}" for step in self._steps), *(name + end for end in self._beside)}


def _write_picture(path: Path, picture: "np.ndarray") -> None:
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path)
