"""Folders that appear whole or not at all."""

from pathlib import Path

import pytest

from pifr.files import whole_folder


def test_a_folder_appears_when_it_is_whole(tmp_path: Path) -> None:
    with whole_folder(tmp_path / "shard") as folder:
        (folder / "a").write_text("1")
        assert not (tmp_path / "shard").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["shard"]
    assert (tmp_path / "shard" / "a").read_text() == "1"


def test_a_failure_leaves_nothing_and_what_killed_writers_left_goes(tmp_path: Path) -> None:
    (tmp_path / ".shard.killed").mkdir()
    with pytest.raises(OSError, match="full"), whole_folder(tmp_path / "shard") as folder:
        (folder / "a").write_text("1")
        raise OSError("full")
    assert not list(tmp_path.iterdir())
