"""Files and folders appear whole or not at all."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from pifr.errors import DataError
from pifr.support.files import check_writable, claim_folder, whole_folder, write_whole


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def closed_to_others() -> Iterator[None]:
    before = os.umask(0o077)
    yield
    os.umask(before)


def test_what_the_user_closes_to_others_is_closed_to_them(tmp_path: Path, closed_to_others: None) -> None:
    write_whole(tmp_path / "a.txt", lambda part: part.write_text("mine"))
    with whole_folder(tmp_path / "shard"):
        pass
    assert (mode(tmp_path / "a.txt"), mode(tmp_path / "shard")) == (0o600, 0o700)


def test_a_file_that_its_writer_closed_is_as_open_as_the_user_wants(tmp_path: Path) -> None:
    def write(part: Path) -> None:  # as safetensors does
        part.with_suffix(".tmp").touch(0o600)
        part.with_suffix(".tmp").replace(part)

    (tmp_path / "usual").touch()
    write_whole(tmp_path / "a.txt", write)
    assert mode(tmp_path / "a.txt") == mode(tmp_path / "usual")


def test_a_name_may_be_as_long_as_the_system_allows(tmp_path: Path) -> None:
    name = "a" * 251 + ".txt"
    write_whole(tmp_path / name, lambda part: part.write_text("mine"))
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_damaged_manifest_is_named(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"seed": 1')
    with pytest.raises(DataError, match=r"manifest\.json' is damaged"):
        claim_folder(tmp_path / "manifest.json", {"seed": 1})


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


def test_a_folder_that_cannot_be_made_is_known_before_any_work(tmp_path: Path) -> None:
    check_writable(tmp_path / "new" / "run")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(DataError, match=r"nothing can be written to .*: Not a directory"):
            check_writable(folder)


def test_a_folder_appears_when_it_is_whole(tmp_path: Path) -> None:
    with whole_folder(tmp_path / "shard") as folder:
        (folder / "a").write_text("1")
        assert not (tmp_path / "shard").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["shard"]
    assert (tmp_path / "shard" / "a").read_text() == "1"


def test_a_failure_leaves_nothing_and_what_killed_writers_left_goes(tmp_path: Path) -> None:
    (tmp_path / ".shard.part-killed").mkdir()
    with pytest.raises(FileNotFoundError), whole_folder(tmp_path / "shard") as folder:
        (folder / "no" / "such" / "folder").write_text("1")
    assert not list(tmp_path.iterdir())


def test_what_only_looks_like_a_killed_writers_stays(tmp_path: Path) -> None:
    (tmp_path / ".shard.d").mkdir()
    (tmp_path / ".shard.part-list").touch()
    with whole_folder(tmp_path / "shard"):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == [".shard.d", ".shard.part-list", "shard"]


def test_the_error_of_a_writer_that_removed_its_file_is_passed_on(tmp_path: Path) -> None:
    def write(part: Path) -> None:
        part.unlink()
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        write_whole(tmp_path / "a", write)
