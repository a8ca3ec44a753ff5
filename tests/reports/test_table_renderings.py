"""Tables: provenance cannot be mixed, and every rendering says what a number is."""

import csv
import io
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from reports.tables import (
    Column,
    DataSet,
    Estimate,
    ProvenanceError,
    Row,
    Table,
    to_csv,
    to_frame,
    to_html,
    to_latex,
    to_markdown,
    to_rich,
)

CFP = DataSet("CFP", "FP", size="10 folds")
PART = DataSet("CFP", "FP", size="4 folds")
SYNTHETIC = DataSet("CFP", "FP", synthetic=True, size="10 folds")


def table() -> Table:
    columns = (
        Column("EER (%)", CFP, "published", "lower"),
        Column("EER (%)", PART, "measured", "lower"),
        Column("EER (%)", SYNTHETIC, "measured", "lower"),
    )
    rows = (
        Row(("A & B_1", "50 % | {x}"), (Estimate.printed("7.850"), None, None), CFP, "published"),
        Row(("ours", ""), (None, Estimate(1 / 3, 0.1, 0.7, 0.05), None), PART, "measured"),
        Row(("ours", "~^<>#$\\"), (None, None, Estimate(float("nan"))), SYNTHETIC, "measured"),
    )
    return Table(
        "t",
        "A title with 100 %",
        ("Method", "Training"),
        columns,
        rows,
        ("A note & more: ΔEER ± 1 °, “√x” − 3 – 4 — · × ≤ ≥ ’.",),
    )


@pytest.mark.parametrize("column", [0, 1])
def test_a_synthetic_number_cannot_stand_in_a_real_data_sets_column(column: int) -> None:
    estimates: list[Estimate | None] = [None, None, None]
    estimates[column] = Estimate(1.0)
    with pytest.raises(ProvenanceError, match="SYNTHETIC"):
        Table("t", "", ("Method",), table().columns, (Row(("x",), tuple(estimates), SYNTHETIC, "measured"),))


def test_a_measured_number_cannot_stand_in_a_published_column() -> None:
    with pytest.raises(ProvenanceError, match="measured on CFP FP, but the column"):
        Table("t", "", ("Method",), table().columns[:1], (Row(("x",), (Estimate(1.0),), CFP, "measured"),))


def test_a_part_of_a_data_set_is_not_the_data_set() -> None:
    column = Column("EER (%)", CFP, "measured")
    with pytest.raises(ProvenanceError):
        Table("t", "", ("Method",), (column,), (Row(("x",), (Estimate(1.0),), PART, "measured"),))


def test_a_row_must_fill_every_column() -> None:
    with pytest.raises(ValueError, match="1 numbers"):
        Table("t", "", ("Method",), table().columns, (Row(("x",), (None,), CFP, "published"),))


def test_csv_comes_back_bit_for_bit() -> None:
    pd.testing.assert_frame_equal(
        pd.read_csv(io.StringIO(to_csv(table()))),
        to_frame(table()).replace("", np.nan),
        check_exact=True,
    )


def test_csv_says_origin_and_synthetic_on_every_line() -> None:
    lines = list(csv.DictReader(io.StringIO(to_csv(table()))))
    assert [(line["origin"], line["synthetic"]) for line in lines] == [
        ("published", "False"),
        ("measured", "False"),
        ("measured", "True"),
    ]


def test_markdown_rows_have_one_cell_a_heading_whatever_the_labels_hold() -> None:
    lines = [line for line in to_markdown(table()).splitlines() if line.startswith("|")]
    assert {line.replace(r"\|", "").count("|") for line in lines} == {1 + 3 + 3}
    assert "measured: SYNTHETIC CFP FP (10 folds)" in lines[0]
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["published", "measured", "measured"]


def test_a_terminal_shows_origin_interval_and_reason() -> None:
    console = Console(width=200, file=io.StringIO())
    console.print(to_rich(table()))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert text.count("measured") >= 4
    assert "0.33 ± 0.05 [0.10, 0.70]" in text
    assert "insufficient data" in text


def test_markdown_says_once_what_all_numbers_share_and_escapes_markup() -> None:
    column, row = table().columns[1], Row(("<b>_x_", ""), (Estimate(1 / 3),), PART, "measured")
    text = to_markdown(Table("t", "Verification on CFP FP", ("Method", "Training"), (column,), (row, row)))
    assert text.startswith("**Verification on CFP FP (measured, 4 folds)**")
    assert text.count("measured") == text.count("4 folds") == text.count("CFP") == 1
    assert r"\<b\>\_x\_" in text


def test_a_terminal_says_once_what_all_numbers_share() -> None:
    column, row = table().columns[1], Row(("ours", ""), (Estimate(1 / 3),), PART, "measured")
    console = Console(width=200, file=io.StringIO())
    console.print(to_rich(Table("t", "Verification on CFP FP", ("Method", "Training"), (column,), (row, row))))
    text = " ".join(console.file.getvalue().split())  # type: ignore[attr-defined]
    assert "Verification on CFP FP (measured, 4 folds)" in text
    assert text.count("measured") == text.count("4 folds") == text.count("CFP") == 1


def test_a_published_number_keeps_the_digits_it_was_printed_with() -> None:
    assert Estimate.printed("7.850").format() == "7.850"


def test_bounds_that_could_not_be_measured_are_not_printed() -> None:
    unknown = float("nan")
    assert Estimate(1.0, unknown, unknown, unknown) == Estimate(1.0)
    with pytest.raises(ValueError, match="both bounds"):
        Estimate(1.0, 0.5, unknown)


def test_a_p_value_is_never_zero() -> None:
    estimate = Estimate(1e-5, decimals=3, positive=True)
    assert estimate.format() == "<0.001"
    assert Estimate(0.002, decimals=3, positive=True).format() == "0.002"
    column, row = Column("p", CFP, "measured"), Row(("x",), (estimate,), CFP, "measured")
    assert "&lt;0.001" in to_html(Table("t", "", ("Method",), (column,), (row,)))


def test_a_number_that_rounds_to_zero_has_no_sign() -> None:
    assert Estimate(-0.001, -0.004, 0.2).format() == "0.00 [0.00, 0.20]"


class _Cells(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.rows: list[list[dict[str, str | None]]] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append(dict(attrs))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_html_is_balanced_and_keeps_numbers_at_full_precision() -> None:
    parser = _Cells()
    parser.feed(to_html(table()))
    assert not parser.open
    widths = {sum(int(cell.get("colspan") or 1) for cell in row) for row in parser.rows}
    assert widths == {6}
    assert [cell["data-sort"] for row in parser.rows for cell in row if "data-sort" in cell] == [
        "7.85",
        "0.3333333333333333",
    ]


def test_html_escapes_names() -> None:
    hostile = Row(("<script>alert(1)</script>",), (Estimate(1.0),), CFP, "published")
    text = to_html(Table("t", "<b>", ("<i>",), table().columns[:1], (hostile,)))
    assert "<script" not in text
    assert "<b>" not in text
    assert "<i>" not in text


def test_latex_escapes_what_latex_would_read_as_markup() -> None:
    text = to_latex(table())
    assert r"A \& B\_1" in text
    assert r"50 \% \textbar{} \{x\}" in text
    assert r"\textasciitilde{}\textasciicircum{}\textless{}\textgreater{}\#\$\textbackslash{}" in text
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert [line.replace(r"\&", "").count("&") for line in rows[1:]] == [5] * 4


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed (Debian: texlive)")
def test_latex_compiles(tmp_path: Path) -> None:
    document = (
        r"\documentclass{article}\usepackage[T1]{fontenc}\usepackage{booktabs,graphicx}\begin{document}"
        f"{to_latex(table())}\\end{{document}}"
    )
    (tmp_path / "t.tex").write_text(document, encoding="utf-8")
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull" not in done.stdout
