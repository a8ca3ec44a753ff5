"""`pifr frontalize`: pictures of faces turned to the front, and everything on the way there."""

import csv
import time
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

_SAVE_SECONDS = 2.0
"""The table of a long run is saved this often."""


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

    faces.csv says of each face where it lies, how it is turned, how much of it is seen, or why it has no picture. A
    folder may be used again: the faces of a photo that was there before are replaced, all else stays as it is.
    """
    from pifr.cli.progress import progress_bar
    from pifr.errors import UnknownNameError
    from pifr.faces import ARCFACE_112
    from pifr.files import check_writable
    from pifr.frontal_views import load_frontalizer
    from pifr.images import to_uint8
    from pifr.mesh import MESH_FORMATS, write_mesh
    from pifr.panels import PANELS, panels

    if mesh is not None and mesh not in MESH_FORMATS:
        raise UnknownNameError("mesh format", mesh, MESH_FORMATS)
    check_writable(out)
    files = {path.absolute(): name for path, name in image_files(images, out).items()}
    finder, table = make_finder(detector, policy), _Table(out / "faces.csv", map(readable, files))
    beside = ("_texture",) if mesh == "obj" else ()
    names, seen, made = _Names(PANELS if everything else (), beside, _below(out)), 0, 0
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
                    names.release(_remove(out, old))
                name = names(files[path])
                if usable:
                    _write_picture(out / f"{name}.png", frontals[row])
                if usable and mesh is not None:
                    write_mesh(result, row, out / f"{name}.{mesh}")
                if everything and result.status[row] != "failed":
                    for panel, picture in steps[row].items():
                        _write_picture(out / name / f"{panel}.png", picture)
                picture = readable(f"{name}.png") if usable else ""
                table.add({"path": readable(path), "name": readable(name), "picture": picture} | figures[row])
            seen, made = seen + len(faces), made + int(result.reliable.sum())
            table.save_now_and_then()
            progress(done, len(files))
    typer.echo(f"{made} of {seen} faces frontalized: {out}")


_COLUMNS = (
    *("path", "name", "picture", "status", "reason", "left", "top", "right", "bottom"),
    *("yaw", "visible_fraction", "residual_mm"),
)


class _Table:
    """faces.csv. Rows of a photo stay until it is looked at again; it is saved on leaving, whatever happened.

    Args:
        file: may exist.
        paths: photos that are looked at, as the table writes them.

    Raises:
        DataError: the file is there and is no such table.
    """

    def __init__(self, file: Path, paths: Iterable[str]) -> None:
        self._file, self._saved, self._old = file, time.monotonic(), set(paths)
        self._rows: dict[str, list[dict[str, str]]] = {}
        for row in self._read() if file.exists() else ():
            self._rows.setdefault(row["path"], []).append(row)

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None:
        self._save()

    def renew(self, path: str) -> list[dict[str, str]]:
        """Takes the rows of a photo from an earlier call out; there are none at its second face."""
        if path not in self._old:
            return []
        self._old.remove(path)
        return self._rows.pop(path, [])

    def add(self, row: dict[str, str]) -> None:
        self._rows.setdefault(row["path"], []).append(row)

    def save_now_and_then(self) -> None:
        if time.monotonic() - self._saved > _SAVE_SECONDS:
            self._save()

    def _save(self) -> None:
        from pifr.files import write_whole

        write_whole(self._file, self._write)
        self._saved = time.monotonic()

    def _write(self, part: Path) -> None:
        with part.open("w", newline="", encoding="utf-8") as table:
            rows = csv.DictWriter(table, _COLUMNS)
            rows.writeheader()
            rows.writerows(row for of_photo in self._rows.values() for row in of_photo)

    def _read(self) -> list[dict[str, str]]:
        from pifr.errors import DataError

        with self._file.open(newline="", encoding="utf-8", errors="replace") as table:
            rows = csv.DictReader(table)
            if tuple(rows.fieldnames or ()) != _COLUMNS:
                raise DataError(f"'{self._file}' is no table of this command: choose another folder by --out")
            return list(rows)


def _figures(faces: "FaceCrops", result: "FrontalizedFaces") -> list[dict[str, str]]:
    """What faces.csv says of each face beside its files; no figures where none was found."""
    import torch

    figures = torch.column_stack([faces.boxes, result.yaw, result.visible_fraction, result.residual]).tolist()
    return [
        {"status": status, "reason": reason}
        | {name: "" if status == "failed" else f"{figure:.3f}" for name, figure in zip(_COLUMNS[5:], row, strict=True)}
        for status, reason, row in zip(result.status, result.reason, figures, strict=True)
    ]


def _below(out: Path) -> set[str]:
    """Names of the files in the output folder, which nothing may replace."""
    return {path.relative_to(out).with_suffix("").as_posix() for path in out.rglob("*") if path.is_file()}


def _remove(out: Path, row: dict[str, str]) -> set[str]:
    """Removes what an earlier call wrote of a face, and returns the names that are free then."""
    from pifr.mesh import MESH_FORMATS
    from pifr.panels import PANELS

    name = row["name"]
    files = [out / name / f"{panel}.png" for panel in PANELS if row["status"] != "failed"]
    if row["picture"]:
        files += [
            out / f"{name}{end}" for end in (".png", "_texture.png", ".mtl", *(f".{form}" for form in MESH_FORMATS))
        ]
    for file in files:
        file.unlink(missing_ok=True)
    return {file.relative_to(out).with_suffix("").as_posix() for file in files}


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

    def release(self, names: set[str]) -> None:
        """These files are gone."""
        self._taken -= names

    def _written(self, name: str) -> set[str]:
        return {name, *(f"{name}/{step}" for step in self._steps), *(name + end for end in self._beside)}


def _write_picture(path: Path, picture: "np.ndarray") -> None:
    from PIL import Image

    from pifr.files import write_whole

    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, lambda part: Image.fromarray(picture).save(part, format="PNG"))
