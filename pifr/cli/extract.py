"""`pifr extract`: embeddings of the faces of your own images."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from pifr.cli.support.faces_in_files import (
    DETECTOR_HELP,
    EVERY,
    POLICY_HELP,
    find_faces,
    image_files,
    make_finder,
    readable,
)

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def extract(
    images: Annotated[list[Path], typer.Argument(help="Image files, or folders that are searched for images.")],
    out: Annotated[Path, typer.Option("--out", help="A .parquet file: path, box, status, reason, embedding.")],
    recognizer: Annotated[
        str, typer.Option(help="Name, NAME:CHECKPOINT, onnx:PATH or python:FILE.py:FUNCTION.")
    ] = "sface",
    frontalizer: Annotated[str, typer.Option(help="none, mirror, align, srtc, or an installed one.")] = "none",
    fusion: Annotated[str | None, typer.Option(help="How views become one embedding. (the frontalizer's own)")] = None,
    detector: Annotated[str, typer.Option(help=DETECTOR_HELP)] = "yunet",
    policy: Annotated[str, typer.Option(help=POLICY_HELP)] = "largest",
    fallback: Annotated[str | None, typer.Option(help="With no face: centre-crop. (the image fails)")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Faces at a time.")] = 32,
    device: Annotated[str, typer.Option(help="cpu, cuda, ...")] = "cpu",
) -> None:
    """Embed one face of each image, or every face; compare embeddings by their dot product.

    An image without a usable face keeps its row, with status "failed" and a reason. If the command is stopped, the file
    holds what was finished.
    """
    from feature_extractors import load_recognizer
    from pifr.cli.support.progress import progress_bar
    from pifr.errors import ConfigError
    from pifr.fusion import check_fusion
    from pifr.plugin import FrontalizedRecognizer
    from pifr.support.files import check_writable
    from pifr.views import load_view_maker

    if fusion is not None:
        check_fusion(fusion)
    if out.suffix != ".parquet" or out.is_dir():
        raise ConfigError(f"--out '{out}': name a .parquet file")
    check_writable(out.parent)
    files, finder = list(image_files(images, out)), make_finder(detector, policy, fallback)
    plugin = FrontalizedRecognizer(
        load_recognizer(recognizer, device), load_view_maker(frontalizer, device), fusion, finder
    )
    rows: list[dict[str, object]] = []
    out.parent.mkdir(parents=True, exist_ok=True)
    with progress_bar("extract") as progress, _written_at_last(out, rows):
        for faces, paths, done in find_faces(finder, files, policy == EVERY, batch_size):
            found = plugin.templates(faces.to(device), batch_size)
            for path, box, status, reason, template in zip(
                paths, faces.boxes.tolist(), found.status, found.reason, found.features.cpu().numpy(), strict=True
            ):
                used = status != "failed"
                row = {"path": readable(path), "box": box if used else None, "status": status, "reason": reason}
                rows.append(row | {"embedding": template if used else None})
            progress(done, len(files))
    failed = sum(row["status"] == "failed" for row in rows)
    typer.echo(f"{len(files)} images, {len(rows) - failed} faces, {failed} without: {out}")


@contextmanager
def _written_at_last(out: Path, rows: list[dict[str, object]]) -> Iterator[None]:
    """Writes the rows on leaving, whatever happened; nothing if there are none."""
    import pandas as pd

    from pifr.support.files import write_whole

    try:
        yield
    finally:
        if rows:
            write_whole(out, pd.DataFrame(rows).to_parquet)
