"""Where tables are printed."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


def wide_console() -> "Console":
    """The terminal; a file or a pipe, which has no edge to wrap at, takes 200 columns."""
    from rich.console import Console

    console = Console()
    return console if console.is_terminal else Console(width=200)
