"""Shared by all tests. No test uses the network or a real face."""

import os
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # pytest-xdist brings the parallelism

import pytest


@pytest.fixture
def pifr_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of weights that stands for the user's own."""
    folder = tmp_path / "pifr-home"
    monkeypatch.setenv("PIFR_HOME", str(folder))
    return folder


@pytest.fixture(scope="session")
def fetched() -> Callable[[str], Path]:
    """The file of published weights by name; skips the test where `pifr models fetch` has not been run."""
    from pifr.zoo import find_weights

    def path(name: str) -> Path:
        entry = find_weights(name)
        if not entry.file.is_file():
            pytest.skip(f"needs 'pifr models fetch {name}'")
        return entry.path()

    return path
