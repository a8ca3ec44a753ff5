"""Galleries say what made them, are read as one table, and are never replaced by half of one."""

from pathlib import Path

import numpy as np
import pytest
import torch

from pifr.errors import DataError
from pifr.gallery import GalleryWriter, read_gallery
from pifr.plugin import similarities

MADE_BY = {"recognizer": "small-1", "frontalizer": "none", "fusion": "weighted"}


def row(name: str, embedding: list[float] | None) -> dict[str, object]:
    found = embedding is not None
    return {
        "path": name,
        "box": [1.0, 2.0, 3.0, 4.0] if found else None,
        "status": "ok" if found else "failed",
        "reason": "" if found else "no_face",
        "embedding": np.array(embedding, np.float32) if found else None,
    }


def write(file: Path, *rows: dict[str, object], **made_by: str) -> Path:
    with GalleryWriter(file, MADE_BY | made_by) as writer:
        for each in rows:
            writer.write([each])
    return file


def write_half(file: Path, *rows: dict[str, object]) -> None:
    with GalleryWriter(file, MADE_BY) as writer:
        writer.write(rows)
        raise KeyboardInterrupt


def test_what_is_written_is_read(tmp_path: Path) -> None:
    gallery = read_gallery(write(tmp_path / "a.parquet", row("a.jpg", [0.6, 0.8]), row("b.jpg", None)))
    assert gallery.made_by == MADE_BY
    assert gallery.faces["path"].tolist() == ["a.jpg", "b.jpg"]
    assert gallery.faces["reason"].tolist() == ["", "no_face"]
    assert gallery.faces["box"].iloc[0].tolist() == [1, 2, 3, 4]
    torch.testing.assert_close(gallery.templates[0], torch.tensor([0.6, 0.8]))
    assert gallery.templates[1].isnan().all()
    assert [file.name for file in tmp_path.iterdir()] == ["a.parquet"]


def test_a_file_of_failures_alone_goes_with_others(tmp_path: Path) -> None:
    first = write(tmp_path / "a.parquet", row("a.jpg", None))
    second = write(tmp_path / "b.parquet", row("b.jpg", [1.0, 0.0]))
    gallery = read_gallery(first, second)
    assert gallery.templates.shape == (2, 2)
    assert similarities(gallery.templates, gallery.templates)[1].tolist() == [-np.inf, 1.0]


def test_galleries_that_were_made_in_different_ways_are_not_mixed(tmp_path: Path) -> None:
    first = write(tmp_path / "a.parquet", row("a.jpg", [1.0, 0.0]))
    second = write(tmp_path / "b.parquet", row("b.jpg", [1.0, 0.0]), frontalizer="srtc")
    with pytest.raises(DataError, match="another frontalizer than"):
        read_gallery(first, second)


def test_an_earlier_gallery_stays_until_another_is_whole(tmp_path: Path) -> None:
    file = write(tmp_path / "a.parquet", row("a.jpg", [1.0, 0.0]))
    with pytest.raises(KeyboardInterrupt):
        write_half(file, row("b.jpg", [0.0, 1.0]))
    assert read_gallery(file).faces["path"].tolist() == ["a.jpg"]
    assert read_gallery(tmp_path / "a.partial.parquet").faces["path"].tolist() == ["b.jpg"]


def test_nothing_is_left_of_a_gallery_without_faces(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        write_half(tmp_path / "a.parquet")
    assert not list(tmp_path.iterdir())


def test_what_is_no_gallery_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_text("no")
    for name in ("a.parquet", "missing.parquet"):
        with pytest.raises(DataError, match=f"{name}' cannot be read as a gallery"):
            read_gallery(tmp_path / name)
    with pytest.raises(ValueError, match="one file or more"):
        read_gallery()
