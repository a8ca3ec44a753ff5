"""Command groups that list their commands without importing them."""

from collections.abc import Mapping
from importlib import import_module

import typer
from typer.core import TyperCommand, TyperGroup

from pifr.errors import UnknownNameError


def lazy_group(path: str, commands: Mapping[str, tuple[str, str]]) -> type[TyperGroup]:
    """A group class for `typer.Typer(cls=...)`.

    Args:
        path: how a user reaches the group ("pifr evaluate"), for messages.
        commands: name -> (target, one line of help). The target "module:attribute" is a Typer application or a function
            with Typer's annotations; it is imported when the command is run or asked for its help.
    """

    class LazyGroup(TyperGroup):
        def __init__(self, **attributes):  # type: ignore[no-untyped-def]
            super().__init__(**attributes)
            for name, (target, line) in commands.items():
                self.add_command(_LazyCommand(name, target, line))

        def list_commands(self, ctx: typer.Context) -> list[str]:
            return list(self.commands)  # in the order of the table

        def resolve_command(self, ctx: typer.Context, args: list[str]):  # type: ignore[no-untyped-def]
            if args[0] not in self.commands and not args[0].startswith("-"):
                ctx.fail(str(UnknownNameError("command", args[0], self.commands, f"'{path} --help' lists all")))
            return super().resolve_command(ctx, args)

    return LazyGroup


class _LazyCommand(TyperCommand):
    """Stands for a command until it is asked for more than its one line of help."""

    def __init__(self, name: str, target: str, line: str) -> None:
        super().__init__(name=name, help=line, callback=lambda: None)
        self.target = target

    def make_context(self, info_name, args, parent=None, **extra):  # type: ignore[no-untyped-def]
        module, _, attribute = self.target.partition(":")
        application = getattr(import_module(module), attribute)
        if not isinstance(application, typer.Typer):
            function, application = application, typer.Typer(add_completion=False, pretty_exceptions_enable=False)
            application.command()(function)
        command = typer.main.get_command(application)
        command.name = self.name
        return command.make_context(info_name, args, parent=parent, **extra)
