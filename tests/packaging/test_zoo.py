"""Weights are the published ones or they are not used, whatever happens while they are fetched."""

import errno
import hashlib
import multiprocessing
import os
import subprocess
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from pifr import zoo
from pifr.errors import UnknownNameError, WeightsError
from pifr.zoo import UserFile, WheelMember

CONTENT = b"weights" * 1000
ENTRY = WheelMember("tiny", "tiny-wheel==1.0", "tiny/data/net.onnx", hashlib.sha256(CONTENT).hexdigest(), "MIT")


class Index:
    """Stands for pip and the package index: writes a wheel, or fails, and counts the calls."""

    def __init__(self, members: dict[str, bytes] | None, wheel: bytes | None = None) -> None:
        self.members, self.wheel, self.calls = members, wheel, 0
        self.error = "ERROR: one\nERROR: No matching distribution found"

    def run(self, command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
        self.calls += 1
        assert command[1:4] == ["-m", "pip", "download"]
        assert "--no-deps" in command
        assert command[command.index("--only-binary") + 1] == ":all:"  # a source package would run its setup code
        target = Path(command[command.index("--dest") + 1]) / "tiny_wheel-1.0-py3-none-any.whl"
        if self.wheel is not None:
            target.write_bytes(self.wheel)
        elif self.members is None:
            return subprocess.CompletedProcess(command, 1, "", self.error)
        else:
            with zipfile.ZipFile(target, "w") as archive:
                for name, data in self.members.items():
                    archive.writestr(name, data)
        return subprocess.CompletedProcess(command, 0, "", "")


def serve(monkeypatch: pytest.MonkeyPatch, members: dict[str, bytes] | None, wheel: bytes | None = None) -> Index:
    index = Index(members, wheel)
    monkeypatch.setattr(subprocess, "run", index.run)
    return index


def remains(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if not path.name.endswith(".lock")}


def test_only_the_named_member_is_taken_from_the_wheel(pifr_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = serve(monkeypatch, {ENTRY.member: CONTENT, "tiny/__init__.py": b"raise SystemExit('code was run')"})
    path = ENTRY.fetch()
    assert path.read_bytes() == CONTENT
    assert ENTRY.path() == path == pifr_home / "tiny.onnx"
    assert remains(pifr_home) == {"tiny.onnx"}
    ENTRY.fetch()
    assert index.calls == 1


def test_a_tampered_download_is_not_kept(pifr_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    serve(monkeypatch, {ENTRY.member: CONTENT + b"!"})
    with pytest.raises(WeightsError, match=r"'tiny' have SHA-256 .* not .* as published"):
        ENTRY.fetch()
    assert remains(pifr_home) == set()


def test_a_file_that_was_changed_afterwards_is_not_used_and_can_be_replaced(
    pifr_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(monkeypatch, {ENTRY.member: CONTENT})
    ENTRY.fetch().write_bytes(CONTENT[:-1])
    with pytest.raises(WeightsError, match="pifr models fetch tiny"):
        ENTRY.path()
    assert ENTRY.fetch().read_bytes() == CONTENT


@pytest.mark.parametrize(
    "members, wheel, words",
    [
        (None, None, r"tiny-wheel==1\.0 \(ERROR: No matching distribution found\)"),
        ({"other": b""}, None, "lacks tiny/data/net.onnx"),
        (None, b"not a wheel", "damaged"),
    ],
)
def test_a_failed_fetch_says_what_failed_and_leaves_nothing(
    members: dict[str, bytes] | None, wheel: bytes | None, words: str, pifr_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(monkeypatch, members, wheel)
    with pytest.raises(WeightsError, match=words):
        ENTRY.fetch()
    assert remains(pifr_home) == set()


def test_without_pip_a_fetch_says_how_to_get_it(pifr_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    serve(monkeypatch, None).error = "/venv/bin/python: No module named pip\n"
    with pytest.raises(WeightsError, match=r"'python -m ensurepip' \(uv: 'uv pip install pip'\) first"):
        ENTRY.fetch()


def test_a_verified_file_is_fetched_where_nothing_can_be_written(
    pifr_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> None:
        raise PermissionError(errno.EROFS, "Read-only file system")

    pifr_home.mkdir()
    ENTRY.file.write_bytes(CONTENT)
    monkeypatch.setattr("filelock.FileLock", refuse)
    assert ENTRY.fetch() == ENTRY.file
    ENTRY.file.write_bytes(b"other")
    with pytest.raises(WeightsError, match=r"'tiny' cannot be written to .*pifr-home' \(Read-only.*: set PIFR_HOME"):
        ENTRY.fetch()


def test_a_fetch_that_dies_before_the_end_leaves_no_weights(pifr_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    serve(monkeypatch, {ENTRY.member: CONTENT})

    def die(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", die)
    with pytest.raises(KeyboardInterrupt):
        ENTRY.fetch()
    assert remains(pifr_home) == set()


def _fetch_and_count(counter: Path) -> None:
    index = Index({ENTRY.member: CONTENT})
    subprocess.run = index.run  # type: ignore[assignment]  # in the child process alone
    ENTRY.fetch()
    with counter.open("a") as file:
        file.write("x" * index.calls)


def test_two_processes_fetch_once(pifr_home: Path, tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_fetch_and_count, args=(tmp_path / "calls",)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert (tmp_path / "calls").read_text() == "x"
    assert ENTRY.path().read_bytes() == CONTENT


def test_weights_that_were_not_fetched_say_what_to_type(pifr_home: Path) -> None:
    with pytest.raises(WeightsError, match="pifr models fetch tiny"):
        ENTRY.path()


def test_a_users_file_says_where_to_get_it_and_where_to_put_it(pifr_home: Path) -> None:
    entry = UserFile("theirs", (".pth", ".onnx"), "the authors' page", "research only")
    with pytest.raises(WeightsError, match=r"the authors' page.*pifr-home/theirs\.pth.*theirs:PATH"):
        entry.path()
    pifr_home.mkdir()
    (pifr_home / "theirs.onnx").write_bytes(b"x")
    assert entry.path() == pifr_home / "theirs.onnx"


def test_the_folder_of_weights_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("PIFR_HOME", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert zoo.home() == tmp_path / "pifr"
    monkeypatch.setenv("PIFR_HOME", str(tmp_path / "own"))
    assert zoo.home() == tmp_path / "own"


@pytest.mark.parametrize("chosen", ["", "~/weights"])
def test_without_a_home_folder_it_says_what_to_set(chosen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere(path: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setenv("PIFR_HOME", chosen)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "expanduser", nowhere)
    with pytest.raises(WeightsError, match="no home folder is known here: set PIFR_HOME"):
        zoo.home()


def test_every_published_file_is_pinned_and_licensed() -> None:
    for name, entry in zoo.ZOO.items():
        assert entry.name == name
        assert "==" in entry.requirement
        assert len(bytes.fromhex(entry.sha256)) == 32
        assert entry.licence
    with pytest.raises(UnknownNameError, match="Did you mean 'sface'"):
        zoo.find_weights("sfase")


# Packaged weights


@pytest.fixture
def assets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(zoo, "ASSETS", tmp_path)
    return tmp_path


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "trained.bin"
    path.write_bytes(b"weights")
    return path


def test_packaged_weights_are_the_file_that_was_added(assets: Path, source: Path) -> None:
    zoo.package_weights("net", source, "MIT", "a test")
    assert zoo.packaged_file("net").read_bytes() == b"weights"
    assert zoo.packaged_weights()["net"]["licence"] == "MIT"


def test_damaged_packaged_weights_are_not_used(assets: Path, source: Path) -> None:
    zoo.package_weights("net", source, "MIT", "a test").write_bytes(b"weighty")
    with pytest.raises(WeightsError, match=r"'net' are .*damaged"):
        zoo.packaged_file("net")


def test_unknown_packaged_weights_are_named(assets: Path) -> None:
    with pytest.raises(UnknownNameError, match="'net'"):
        zoo.packaged_file("net")


def test_the_repository_ships_the_packaged_weights_it_lists() -> None:
    for name, entry in zoo.packaged_weights().items():
        assert zoo.file_sha256(zoo.ASSETS / entry["file"]) == entry["sha256"], name


def test_an_entry_is_a_value() -> None:
    assert replace(ENTRY) == ENTRY
