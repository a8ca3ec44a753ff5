"""The root of the command line: which command groups there are, and how errors end."""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from pifr import __version__
from pifr.cli.support.lazy import lazy_group
from pifr.errors import PifrError

COMMANDS = {
    "models": "List, fetch and verify recognizers and weights.",
    "extract": "Embed the faces of your own images.",
    "evaluate": "Run a protocol and write its table of scores.",
    "compare": "Compare evaluated runs side by side.",
    "report": "Write figures and a page from evaluated runs.",
    "demo": "See the whole pipeline work without any private data.",
    "frontalize": "Turn faces to the front and save the pictures.",
    "synthesize": "Make a synthetic data set in a protocol's layout.",
    "train": "Register photos, render training data, train the networks.",
    "bench": "Measure speed, detection and registration.",
    "doctor": "Say what is installed, what is missing and how to get it.",
}
"""Command -> one line of help. Each lives in `pifr.cli.<command>` as the Typer application `app`."""

app = typer.Typer(
    cls=lazy_group("pifr", {name: (f"pifr.cli.{name}:app", line) for name, line in COMMANDS.items()}),
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"pifr {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Pose-invariant face recognition by SRTC-Net face frontalization."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; exits 0 when done, 1 on an error of the user's data or set-up, 2 on wrong usage."""
    try:
        with _terminated_as_by_ctrl_c():
            typer.main.get_command(app).main(arguments, prog_name="pifr")
    except (PifrError, OSError) as error:  # files and folders that cannot be written, for one
        typer.echo(f"pifr: {error}", err=True)
        sys.exit(1)


@contextmanager
def _terminated_as_by_ctrl_c() -> Iterator[None]:
    """What stops services and batch jobs (SIGTERM) does what Ctrl-C does: what is finished is kept, and cleared up."""

    def terminate(*_: object) -> None:
        if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as shells have it for what runs in the background
            sys.exit(128 + signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)

    if threading.current_thread() is not threading.main_thread():  # which alone is told of signals
        yield
        return
    usual = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, usual)


if __name__ == "__main__":
    main()
