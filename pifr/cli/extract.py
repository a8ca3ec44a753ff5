"""`pifr extract`: embeddings of the faces of your own images."""

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

    An image without a usable face keeps its row, with status "failed" and a reason. `pifr.gallery.read_gallery` reads
    the file. If the command is stopped, what was finished lies in NAME.partial.parquet beside it.
    """
    import pifr
    from feature_extractors import load_recognizer
    from pifr.cli.support.progress import progress_bar
    from pifr.errors import ConfigError
    from pifr.fusion import check_fusion
    from pifr.gallery import GalleryWriter
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
    made_by = {
        "recognizer": plugin.recognizer.fingerprint,
        "frontalizer": plugin.view_maker.fingerprint,
        "fusion": plugin.fusion,
        "finder": finder.fingerprint,
        "pifr_version": pifr.__version__,
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    failed = 0
    writer = GalleryWriter(out, made_by)
    try:
        with progress_bar("extract") as progress, writer:
            for faces, paths, done in find_faces(finder, files, policy == EVERY, batch_size):
                found = plugin.templates(faces.to(device), batch_size)
                used = [status != "failed" for status in found.status]
                failed += used.count(False)
                columns = zip(
                    *(paths, faces.boxes.tolist(), found.status, found.reason, found.features.cpu().numpy(), used),
                    strict=True,
                )
                writer.write(
                    {
                        "path": readable(path),
                        "box": box if usable else None,
                        "status": status,
                        "reason": reason,
                        "embedding": template if usable else None,
                    }
                    for path, box, status, reason, template, usable in columns
                )
                progress(done, len(files))
    except BaseException:
        if writer.rows:
            typer.echo(f"stopped: {writer.rows} faces that were finished are in {writer.partial}", err=True)
        raise
    typer.echo(f"{len(files)} images, {writer.rows - failed} faces, {failed} without: {out}")
