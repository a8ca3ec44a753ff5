"""`pifr extract`: embeddings of the faces of your own images."""

from pathlib import Path
from typing import Annotated

import typer

IMAGE_SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def extract(
    images: Annotated[list[Path], typer.Argument(help="Image files, or folders that are searched for images.")],
    out: Annotated[Path, typer.Option("--out", help="A .parquet file: path, status, reason, embedding.")],
    recognizer: Annotated[str, typer.Option(help="Name, NAME:CHECKPOINT or onnx:PATH.")] = "sface",
    frontalizer: Annotated[str, typer.Option(help="none, mirror, align, srtc, or an installed one.")] = "none",
    fusion: Annotated[str | None, typer.Option(help="How views become one embedding. (the frontalizer's own)")] = None,
    detector: Annotated[
        str, typer.Option(help="yunet, yunet-close, mtcnn, aligned (as ArcFace) or file:CSV (path,x1,y1,...,x5,y5).")
    ] = "yunet",
    policy: Annotated[str, typer.Option(help="With several faces: largest, central or reject.")] = "largest",
    fallback: Annotated[str | None, typer.Option(help="With no face: centre-crop. (the image fails)")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Images at a time.")] = 32,
    device: Annotated[str, typer.Option(help="cpu, cuda, ...")] = "cpu",
) -> None:
    """Embed one face of each image; compare embeddings by their dot product.

    An image without a usable face keeps its row, with status "failed" and a reason.
    """
    import pandas as pd

    from feature_extractors import load_recognizer
    from pifr.cli.progress import progress_bar
    from pifr.errors import DataError
    from pifr.faces import FaceFinder
    from pifr.files import write_whole
    from pifr.fusion import check_fusion
    from pifr.plugin import FrontalizedRecognizer
    from pifr.views import load_view_maker

    if fusion is not None:
        check_fusion(fusion)
    files = image_files(images)
    if not files:
        raise DataError(
            f"no images among {', '.join(map(repr, map(str, images)))}: name files, or folders that hold some"
        )
    finder = FaceFinder(detector, policy, fallback)
    plugin = FrontalizedRecognizer(
        load_recognizer(recognizer, device), load_view_maker(frontalizer, device), fusion, finder
    )
    rows: list[dict[str, object]] = []
    with progress_bar("extract") as progress:
        for start in range(0, len(files), batch_size):
            batch = files[start : start + batch_size]
            faces = finder(batch)
            templates = plugin.embed_faces(faces.to(device)).cpu().numpy()
            for path, status, reason, template in zip(batch, faces.status, faces.reason, templates, strict=True):
                embedding = None if status == "failed" else template
                rows.append({"path": str(path), "status": status, "reason": reason, "embedding": embedding})
            progress(start + len(batch), len(files))
    out.parent.mkdir(parents=True, exist_ok=True)
    write_whole(out, pd.DataFrame(rows).to_parquet)
    failed = sum(row["status"] == "failed" for row in rows)
    typer.echo(f"{len(rows)} images, {failed} failed: {out}")


def image_files(sources: list[Path]) -> list[Path]:
    """Files as they are given, and all images below folders, sorted."""
    files: list[Path] = []
    for source in sources:
        if source.is_dir():
            files += sorted(path for path in source.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
        else:
            files.append(source)
    return files
