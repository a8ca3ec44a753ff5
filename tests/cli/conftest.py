"""The eight people of the protocol tests, and a way to run `pifr`."""

from collections.abc import Callable

import pytest

from ..protocols.conftest import cfp_root, small_recognizer

__all__ = ["cfp_root"]


@pytest.fixture
def pifr(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str, str]]:
    """Runs the command line with recognizers that need no weights; returns exit code, output and messages."""
    import feature_extractors
    from pifr.cli.main import main

    def load(name: str, device: str = "cpu", precision: str = "float32") -> object:
        from pifr.errors import UnknownNameError

        if name not in ("small", "bgr"):
            raise UnknownNameError("recognizer", name, ["small", "bgr"])
        return small_recognizer(name, "BGR" if name == "bgr" else "RGB")

    monkeypatch.setattr(feature_extractors, "load_recognizer", load, raising=False)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: object) -> tuple[int, str, str]:
        code = 0
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run
