"""The root of the command line: which command groups there are, and how errors end."""

import sys
from importlib import import_module
from typing import Annotated

import typer
from typer.core import TyperCommand, TyperGroup

from pifr import __version__
from pifr.errors import PifrError

COMMANDS = {
    "models": "List, fetch and verify recognizers and weights.",
    "extract": "Embed the faces of your own images.",
    "evaluate": "Run a protocol (CFP, Multi-PIE, pairs, ...) and write a table of scores.",
    "compare": "Compare evaluated runs side by side.",
    "report": "Write figures and a page from evaluated runs.",
    "demo": "See the whole pipeline work without any private data.",
    "frontalize": "Turn faces to the front and save the pictures.",
    "synthesize": "Make a synthetic data set in a protocol's layout.",
    "train": "Register photos, render training data, train the networks.",
    "bench": "Measure speed.",
    "doctor": "Say what is installed, what is missing and how to get it.",
}
"""Command -> one line of help. Each lives in `pifr.cli.<command>` as the Typer `app`."""


class _LazyCommand(TyperCommand):
    """Stands for a command group until it is asked for more than its one line of help."""

    def make_context(self, info_name, args, parent=None, **extra):  # type: ignore[no-untyped-def]
        app = import_module(f"pifr.cli.{self.name}").app
        command = typer.main.get_command(app)
        command.name = self.name
        return command.make_context(info_name, args, parent=parent, **extra)


class _LazyGroup(TyperGroup):
    """Lists its commands without importing them; lists them all when there is no such command."""

    def list_commands(self, ctx: typer.Context) -> list[str]:
        return list(self.commands)

    def resolve_command(self, ctx: typer.Context, args: list[str]):  # type: ignore[no-untyped-def]
        if args[0] not in self.commands and not args[0].startswith("-"):
            from pifr.errors import UnknownNameError

            ctx.fail(str(UnknownNameError("command", args[0], self.commands, "'pifr --help' lists all")))
        return super().resolve_command(ctx, args)


app = typer.Typer(
    cls=_LazyGroup,
    help="Pose-invariant face recognition by SRTC-Net face frontalization.",
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


def command() -> TyperGroup:
    """The root command with its lazy children."""
    group = typer.main.get_command(app)
    for name, line in COMMANDS.items():
        group.add_command(_LazyCommand(name=name, help=line, callback=lambda: None))
    return group


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; exits 0 when done, 1 on an error of the user's data or set-up, 2 on wrong usage."""
    try:
        command().main(arguments, prog_name="pifr")
    except PifrError as error:
        typer.echo(f"pifr: {error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
