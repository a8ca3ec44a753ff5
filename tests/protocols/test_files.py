"""A file appears whole or not at all."""

from pathlib import Path

import pytest

from pifr.files import write_whole


def test_a_file_is_written_and_replaced(tmp_path: Path) -> None:
    for text in ("first", "second"):
        write_whole(tmp_path / "a.txt", lambda part, text=text: part.write_text(text))
        assert (tmp_path / "a.txt").read_text() == text
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("before")

    def fail(part: Path) -> None:
        part.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_whole(tmp_path / "a.txt", fail)
    assert (tmp_path / "a.txt").read_text() == "before"
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]
