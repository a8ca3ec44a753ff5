"""The page: one file, the same bytes, readable by everyone, alive in a real browser."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from pifr.cli.report import app
from protocols.summary import Statistics
from reports.build import build_report
from reports.html import render_html
from reports.runs import read_runs

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), ""
)
CSS = (Path(__file__).parents[2] / "reports" / "assets" / "report.css").read_text(encoding="utf-8")
VOID = {"meta", "link", "img", "br"}


@pytest.fixture(scope="module")
def run(
    tmp_path_factory: pytest.TempPathFactory,
    score_table: Callable[..., pd.DataFrame],
    write_run: Callable[..., Path],
) -> Path:
    names = ("none", "mirror", "srtc:a/folder/of/weights,completion=smooth,shape=fitted-to-the-pncc")
    systems = {("sface", name, "weighted"): 1.5 + 0.5 * k for k, name in enumerate(names)}
    return write_run(tmp_path_factory.mktemp("runs") / "run", scores=score_table(systems, failing=1, pairs=40))


@pytest.fixture(scope="module")
def text(run: Path) -> str:
    return page(run)


def page(folder: Path, timestamp: str = "fixed") -> str:
    return render_html(build_report(read_runs([folder]), timestamp, Statistics(replicates=100)))


def test_the_same_scores_give_the_same_bytes_but_for_the_timestamp(run: Path, text: str) -> None:
    assert page(run) == text
    assert page(run, "another time") == text.replace("fixed", "another time")


class _Balanced(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.headings: list[int] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in ("href", "src", "xlink:href"):
                self.links.append(value or "")
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_well_formed_and_refers_to_nothing_outside_itself(text: str) -> None:
    parser = _Balanced()
    parser.feed(text)
    assert not parser.open
    assert len(parser.ids) == len(set(parser.ids))
    assert all(link.startswith(("#", "data:")) for link in parser.links)
    assert {link[1:] for link in parser.links if link.startswith("#")} <= set(parser.ids)
    assert "url(http" not in text


def test_headings_leave_out_no_level(text: str) -> None:
    parser = _Balanced()
    parser.feed(text)
    assert parser.headings[0] == 1
    assert parser.headings.count(1) == 1
    assert all(after - before <= 1 for before, after in zip(parser.headings, parser.headings[1:], strict=False))


def test_the_summary_comes_first(text: str) -> None:
    assert text.index('id="summary"') < text.index("<table")


def test_names_from_the_run_cannot_become_markup(
    tmp_path: Path, score_table: Callable[..., pd.DataFrame], write_run: Callable[..., Path]
) -> None:
    hostile = "</script><script>alert(1)</script>"
    scores = score_table({("sface", "none", "weighted"): 1.0, ("sface", hostile, "weighted"): 2.0}, pairs=30, failing=1)
    text = page(write_run(tmp_path / "run", name=hostile, scores=scores))
    assert "<script>alert(1)" not in text


def test_the_page_does_not_say_where_data_and_results_lay(
    tmp_path: Path, score_table: Callable[..., pd.DataFrame], write_run: Callable[..., Path]
) -> None:
    paths = {name: f"/home/me/{name}" for name in ("data", "out", "store")}
    folder = write_run(tmp_path / "run", scores=score_table(pairs=30), configuration=paths)
    record = json.loads((folder / "run.json").read_text())
    record["dataset"]["root"] = "/home/me/root"
    (folder / "run.json").write_text(json.dumps(record))
    text = page(folder)
    assert "/home/me" not in text
    assert "yunet" in text


def test_where_nothing_could_be_judged_no_harm_is_not_denied(
    text: str, tmp_path: Path, score_table: Callable[..., pd.DataFrame], write_run: Callable[..., Path]
) -> None:
    single = score_table({("sface", "none", "weighted"): 1.0}, pairs=30)
    denied = "No harm beyond noise was found"
    assert denied in text
    unjudged = page(write_run(tmp_path / "run", scores=single))
    assert denied not in unjudged
    assert "nothing is known of harm" in unjudged


def luminance(color: str) -> float:
    color = "#" + "".join(c * 2 for c in color[1:]) if len(color) == 4 else color
    channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("name", ["ink", "soft", "link", "better", "worse", "noise", "synthetic"])
def test_text_has_the_contrast_of_wcag_aa(name: str) -> None:
    colors = dict(re.findall(r"--([a-z]+): (#[0-9a-f]{3,6})", CSS))
    for background in ("paper", "faint"):
        bright, dark = sorted([luminance(colors[background]), luminance(colors[name])], reverse=True)
        assert (bright + 0.05) / (dark + 0.05) >= 4.5


# Run in a copy of the page: what a reader would do, and what came of it.
PROBE = """
<script>
const errors = [];
addEventListener("error", (event) => errors.push(event.message));
addEventListener("load", () => {
  const result = { width: innerWidth, scrollWidth: document.documentElement.scrollWidth };
  const table = document.querySelector("#table3");
  const column = [...table.tHead.rows[1].cells].findIndex((cell) => cell.classList.contains("number"));
  table.tHead.rows[1].cells[column].querySelector("button").click();
  result.sorted = [...table.tBodies[0].rows].map((row) => row.cells[column].dataset.sort ?? null);
  const plot = document.querySelector(".plot[tabindex]");
  plot.focus();
  plot.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight", bubbles: true }));
  result.keyboard = plot.querySelector(".readout").textContent;
  const box = plot.getBoundingClientRect();
  plot.dispatchEvent(new PointerEvent("pointermove", { clientX: box.left + box.width / 2, bubbles: true }));
  result.pointer = plot.querySelector(".readout").textContent;
  result.errors = errors;
  document.documentElement.dataset.result = JSON.stringify(result);
});
</script>
"""


@pytest.mark.slow
@pytest.mark.skipif(not CHROMIUM, reason="no Chromium on the path")
@pytest.mark.parametrize("width", [390, 1280])
def test_a_browser_shows_sorts_and_reads_out_without_errors(text: str, tmp_path: Path, width: int) -> None:
    (tmp_path / "page.html").write_text(text.replace("</head>", PROBE + "</head>"), encoding="utf-8")
    # A window cannot be made as narrow as a phone; a frame can.
    frame = tmp_path / "frame.html"
    frame.write_text(
        f'<iframe src="page.html" style="width:{width}px;height:800px;border:0"></iframe>'
        "<script>onload = () => { document.documentElement.dataset.result = "
        "document.querySelector('iframe').contentDocument.documentElement.dataset.result; }</script>",
        encoding="utf-8",
    )
    command = [
        *(CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
        *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
        *("--allow-file-access-from-files", "--enable-logging=stderr", f"--user-data-dir={tmp_path / 'profile'}"),
        *("--window-size=1400,900", "--virtual-time-budget=5000", "--dump-dom", frame.as_uri()),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ":CONSOLE" not in done.stderr, done.stderr
    (attribute,) = re.findall(r'<html[^>]* data-result="([^"]*)"', done.stdout)
    result = json.loads(attribute.replace("&quot;", '"').replace("&amp;", "&"))
    assert result["errors"] == []
    assert result["width"] == width
    assert result["scrollWidth"] <= width
    numbers = [float(text) for text in result["sorted"] if text is not None]
    assert numbers == sorted(numbers)
    assert result["sorted"] == [str(text) for text in result["sorted"][: len(numbers)]] + [None] * 3
    assert "False match rate" in result["keyboard"]
    assert "srtc:" in result["pointer"]


def test_the_command_writes_page_tables_and_figures(run: Path, tmp_path: Path) -> None:
    out, tables, figures = tmp_path / "out" / "report.html", tmp_path / "tables", tmp_path / "figures"
    done = CliRunner().invoke(
        app,
        [str(run), "--out", str(out), "--tables", str(tables), "--figures", str(figures), "--replicates", "100"],
    )
    assert done.exit_code == 0, done.output
    assert out.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert {path.suffix for path in tables.iterdir()} == {".md", ".csv", ".tex", ".html"}
    assert (tables / "table3.tex").is_file()
    assert {path.suffix for path in figures.iterdir()} == {".png", ".svg"}


def test_without_an_output_option_the_tables_are_printed(run: Path) -> None:
    done = CliRunner().invoke(app, [str(run), "--replicates", "100"])
    assert done.exit_code == 0, done.output
    assert "published" in done.output
    assert "measured" in done.output


def test_the_python_of_the_documentation_runs(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    document = (Path(__file__).parents[2] / "docs" / "reports.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", document, re.DOTALL)
    shutil.copytree(run, tmp_path / "runs" / "cfp")
    monkeypatch.chdir(tmp_path)
    exec(code + 'write_tables(report, "tables")\nwrite_figures(report, "figures")', {})
    assert (tmp_path / "report.html").is_file()
    assert list((tmp_path / "tables").glob("*.csv"))
    assert list((tmp_path / "figures").glob("*.png"))
