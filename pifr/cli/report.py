"""`pifr report`: tables, figures and one HTML page from evaluated runs."""

from pathlib import Path
from typing import Annotated

import typer

from pifr.cli.compare import Rule

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def report(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...", help="Folders that 'pifr evaluate --out' wrote.", show_default=False),
    ],
    out: Annotated[
        Path | None, typer.Option("--out", help="The HTML page, one self-contained file.", show_default=False)
    ] = None,
    tables: Annotated[
        Path | None,
        typer.Option("--tables", help="Folder for every table as Markdown, CSV, LaTeX and HTML.", show_default=False),
    ] = None,
    figures: Annotated[
        Path | None, typer.Option("--figures", help="Folder for every figure as PNG and SVG.", show_default=False)
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(
            "--images",
            help="Show montages of the probes a frontalizer changed most; the folder that sample names are relative to "
            "(CFP: Data/Images). The page then holds faces.",
            show_default=False,
        ),
    ] = None,
    panels: Annotated[
        Path | None,
        typer.Option(
            "--panels",
            help="The same from pictures of 'pifr frontalize --all': FOLDER/<probe>/<panel>.png.",
            show_default=False,
        ),
    ] = None,
    title: Annotated[
        str, typer.Option("--title", help="Title of the page. (the runs' names)", show_default=False)
    ] = "",
    timestamp: Annotated[
        str | None,
        typer.Option(
            "--timestamp", help="Printed as the time of making: the same runs then give the same bytes. (now)"
        ),
    ] = None,
    eer_rule: Annotated[
        Rule, typer.Option("--eer-rule", help="How the EER is read off: per fold, then the mean; or pooled.")
    ] = Rule.INTERPOLATED,
    replicates: Annotated[int, typer.Option("--replicates", min=100, help="Bootstrap resamples of subjects.")] = 1000,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the bootstrap.")] = 0,
    confidence: Annotated[float, typer.Option("--confidence", min=0.5, max=0.999, help="Of every interval.")] = 0.95,
) -> None:
    """Write figures and a page from evaluated runs; without an output option, print the tables."""
    from datetime import UTC, datetime

    from pifr.errors import ConfigError
    from pifr.support.files import check_writable
    from protocols.summary import Statistics
    from reports.build import build_report, write_figures, write_html, write_tables
    from reports.montage import folder_panels, image_panels
    from reports.runs import read_runs
    from reports.tables import to_rich

    if out and out.is_dir():
        raise ConfigError(f"--out '{out}' is a folder: name the file, such as '{out / 'report.html'}'")
    if (panels or images) and not out:
        raise ConfigError("pictures are for a page: name it by --out")
    for folder in filter(None, (out and out.parent, tables, figures)):
        check_writable(folder)
    source = folder_panels(panels) if panels else image_panels(images) if images else None
    content = build_report(
        read_runs(runs),
        timestamp or datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        Statistics(eer_rule.value, replicates, seed, confidence),
        source,
        title,
    )
    if out:
        write_html(content, out)
        typer.echo(f"report: {out}")
    if tables:
        typer.echo(f"tables: {len(write_tables(content, tables))} files in {tables}")
    if figures:
        typer.echo(f"figures: {len(write_figures(content, figures))} files in {figures}")
    if not (out or tables or figures):
        from pifr.cli.support.console import wide_console

        console = wide_console()
        for table in content.tables():
            console.print(to_rich(table))
            console.print()
