"""Tables whose every number knows where it comes from, and their renderings.

A `Table` has label columns (method, origin, ...) and number columns. Each number column belongs to one data set and one
origin, each row likewise, and a table cannot be built with a number outside its own data set's and origin's columns:
so a synthetic figure cannot stand in a real data set's column, nor a measured one in a published column.
"""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from textwrap import wrap
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import pandas
    import rich.table

Origin = Literal["published", "measured"]
Better = Literal["lower", "higher", ""]


class ProvenanceError(ValueError):
    """A number stands where its data set or its origin does not belong."""


@dataclass(frozen=True, slots=True)
class DataSet:
    """What a number was obtained on; two numbers are comparable only where all of it is equal.

    Attributes:
        name: e.g. "CFP".
        setting: the protocol's setting, e.g. "FP".
        synthetic: True where the people do not exist.
        size: how much of it was used, in few words, e.g. "4 folds, 2,800 comparisons": a part of a data set is not the
            data set.
        detail: more about it, for captions.
    """

    name: str
    setting: str = ""
    synthetic: bool = False
    size: str = ""
    detail: str = ""

    @property
    def title(self) -> str:
        """Name and setting, led by SYNTHETIC where the people do not exist."""
        plain = f"{self.name} {self.setting}".strip()
        if not self.synthetic:
            return plain
        return f"SYNTHETIC {plain.removeprefix('synthetic').lstrip(' -_')}".strip()


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number to print, in the unit of its column.

    Attributes:
        value: NaN where it cannot be measured; `reason` then says why.
        low, high: bounds of its confidence interval; None (NaN becomes None) where there is none.
        spread: standard deviation over folds; likewise.
        decimals: digits to print after the point.
        reason: printed in place of a missing value.
        positive: whether it is never exactly zero: then a value that rounds to it is printed as "<0.001".
    """

    value: float
    low: float | None = None
    high: float | None = None
    spread: float | None = None
    decimals: int = 2
    reason: str = "insufficient data"
    positive: bool = False

    def __post_init__(self) -> None:
        for name in ("low", "high", "spread"):
            bound = getattr(self, name)
            if bound is not None and math.isnan(bound):
                object.__setattr__(self, name, None)
        if (self.low is None) != (self.high is None):
            raise ValueError(f"an interval needs both bounds, got low={self.low} and high={self.high}")

    @classmethod
    def printed(cls, text: str) -> Estimate:
        """The number that a publication prints as `text`, with as many decimals as it prints."""
        return cls(float(text), decimals=len(text.partition(".")[2]))

    def format(self, plus_minus: str = "±", minus: str = "-") -> str:
        """Value, ± spread, [interval]; the reason where there is no value."""
        if math.isnan(self.value):
            return self.reason
        text = self._number(self.value)
        if self.positive and not text.strip("0."):
            return f"<{10**-self.decimals:.{self.decimals}f}"
        if self.spread is not None:
            text += f" {plus_minus} {self._number(self.spread)}"
        if self.low is not None and self.high is not None:
            text += f" [{self._number(self.low)}, {self._number(self.high)}]"
        return text.replace("-", minus)

    def _number(self, value: float) -> str:
        text = f"{value:,.{self.decimals}f}"
        return text if text.strip("-0.,") else text.lstrip("-")


@dataclass(frozen=True, slots=True)
class Column:
    """A number column: one quantity, on one data set, of one origin."""

    name: str
    data_set: DataSet
    origin: Origin
    better: Better = ""

    @property
    def group(self) -> str:
        """The heading that the columns of one origin and data set share."""
        size = f" ({self.data_set.size})" if self.data_set.size else ""
        return f"{self.origin}: {self.data_set.title}{size}"


@dataclass(frozen=True, slots=True)
class Row:
    """A row: its labels, and one estimate (or None) a number column."""

    labels: tuple[str, ...]
    estimates: tuple[Estimate | None, ...]
    data_set: DataSet
    origin: Origin


@dataclass(frozen=True, slots=True)
class Table:
    """A titled table.

    Attributes:
        key: machine-readable name, used for files and anchors.
        title: one line.
        label_columns: headings of the label columns, without the origin, which is always printed first.
        columns: the number columns; columns of one group stand side by side.
        rows: in the order to print.
        notes: sentences of the caption.

    Raises:
        ProvenanceError: if a row has a number in a column of another data set or origin.
        ValueError: if a row's length differs from the headings'.
    """

    key: str
    title: str
    label_columns: tuple[str, ...]
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for row in self.rows:
            name = " ".join(row.labels)
            if len(row.labels) != len(self.label_columns) or len(row.estimates) != len(self.columns):
                raise ValueError(
                    f"table {self.key}, row {name!r}: {len(row.labels)} labels and {len(row.estimates)} numbers for "
                    f"{len(self.label_columns)} and {len(self.columns)} columns"
                )
            for column, estimate in zip(self.columns, row.estimates, strict=True):
                if estimate is None:
                    continue
                if (row.origin, row.data_set) != (column.origin, column.data_set):
                    raise ProvenanceError(
                        f"table {self.key}, row {name!r}: {row.origin} on {row.data_set.title}, but the column "
                        f"{column.name!r} holds what is {column.origin} on {column.data_set.title}"
                    )

    def groups(self) -> Iterator[tuple[str, list[Column]]]:
        """Runs of number columns under one heading, in order."""
        for heading, columns in groupby(self.columns, key=lambda column: column.group):
            yield heading, list(columns)

    def is_of_one_group(self) -> bool:
        """Whether all numbers have one origin and data set."""
        return len(list(self.groups())) == 1

    def full_title(self) -> str:
        """The title, with origin and size of the data set where all numbers share them."""
        if not self.is_of_one_group():
            return self.title
        first = self.columns[0]
        return f"{self.title} ({', '.join(filter(None, (first.origin, first.data_set.size)))})"

    def used_labels(self) -> list[int]:
        """Indices of the label columns that hold anything."""
        return [i for i in range(len(self.label_columns)) if any(row.labels[i] for row in self.rows)]


def to_frame(table: Table) -> pandas.DataFrame:
    """The table in long form: one row a printed number, with its origin and data set, at full precision."""
    import pandas

    records = [
        {
            "table": table.key,
            "origin": row.origin,
            "data_set": row.data_set.name,
            "setting": row.data_set.setting,
            "size": row.data_set.size,
            "synthetic": row.data_set.synthetic,
            **{heading.lower(): label for heading, label in zip(table.label_columns, row.labels, strict=True)},
            "quantity": column.name,
            "value": estimate.value,
            "low": math.nan if estimate.low is None else estimate.low,
            "high": math.nan if estimate.high is None else estimate.high,
            "spread": math.nan if estimate.spread is None else estimate.spread,
            "reason": estimate.reason if math.isnan(estimate.value) else "",
        }
        for row in table.rows
        for column, estimate in zip(table.columns, row.estimates, strict=True)
        if estimate is not None
    ]
    return pandas.DataFrame(records)


def to_csv(table: Table) -> str:
    """Long-form CSV (see `to_frame`); reading it back gives the same numbers, bit for bit."""
    return to_frame(table).to_csv(index=False, lineterminator="\n")


def to_rich(table: Table) -> rich.table.Table:
    """For the terminal; published rows are dim, measured rows are not.

    Origin and size of the data set stand in the title where all numbers share them, otherwise by each column and row.
    """
    import rich.box
    import rich.table
    from rich.text import Text

    used, shared = table.used_labels(), table.is_of_one_group()
    rendering = rich.table.Table(
        title=Text(table.full_title()),
        caption=Text(" ".join(table.notes)),
        title_justify="left",
        caption_justify="left",
        box=rich.box.SIMPLE_HEAD,
    )
    for heading in (*(() if shared else ("Origin",)), *(table.label_columns[i] for i in used)):
        rendering.add_column(Text(heading), overflow="fold")
    for column in table.columns:
        rendering.add_column(Text(column.name if shared else f"{column.name}\n{column.group}"), justify="right")
    for row in table.rows:
        cells = [*(() if shared else (row.origin,)), *(row.labels[i] for i in used), *map(_plain, row.estimates)]
        rendering.add_row(*map(Text, cells), style="dim" if row.origin == "published" else "")
    return rendering


def to_markdown(table: Table) -> str:
    """GitHub's pipe table under its title, the notes below.

    Origin and data set stand in the title where all numbers share them, otherwise by each column and row.
    """
    used, shared = table.used_labels(), table.is_of_one_group()
    headings = [*(() if shared else ("Origin",)), *(table.label_columns[i] for i in used)]
    alignments = ["---"] * len(headings) + ["---:"] * len(table.columns)
    headings += [column.name if shared else f"{column.name}, {column.group}" for column in table.columns]
    lines = [headings, alignments]
    for row in table.rows:
        labels = [*(() if shared else (row.origin,)), *(row.labels[i] for i in used)]
        lines.append([*labels, *(_plain(estimate) for estimate in row.estimates)])
    body = "\n".join("| " + " | ".join(map(_markdown, line)) + " |" for line in lines)
    return f"**{_markdown(table.full_title())}**\n\n{body}\n\n{_markdown(' '.join(table.notes))}\n"


def to_latex(table: Table) -> str:
    """A floating `table` for the packages booktabs and graphicx; a rule parts rows of different provenance.

    A table wider than the text is shrunk to its width.
    """
    used = table.used_labels()
    label_count = 1 + len(used)
    groups = list(table.groups())
    spans, rules, start = [], [], label_count + 1
    for heading, columns in groups:
        spans.append(rf"\multicolumn{{{len(columns)}}}{{c}}{{{_stacked(heading, 12 * len(columns) + 8, 'c')}}}")
        rules.append(rf"\cmidrule(lr){{{start}-{start + len(columns) - 1}}}")
        start += len(columns)
    names = [_latex(name) for name in ("Origin", *(table.label_columns[i] for i in used))]
    names += [_stacked(column.name, 12, "r") for column in table.columns]
    lines = [
        r"\begin{table}[htbp]",
        r"\centering",
        rf"\caption{{{_latex(' '.join([table.title + '.', *table.notes]))}}}",
        rf"\label{{tab:{table.key}}}",
        r"\smallskip",
        r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
        rf"\begin{{tabular}}{{{'l' * label_count}{'r' * len(table.columns)}}}",
        r"\toprule",
        " & ".join([""] * label_count + spans) + r" \\",
        "".join(rules),
        " & ".join(names) + r" \\",
    ]
    previous = None
    for row in table.rows:
        if (row.origin, row.data_set) != previous:
            lines.append(r"\midrule")
            previous = (row.origin, row.data_set)
        cells = [_latex(cell) for cell in (row.origin, *(row.labels[i] for i in used))]
        cells += ["" if e is None else _latex(e.format(minus="−")) for e in row.estimates]
        lines.append(" & ".join(cells) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}}", r"\end{table}"]
    return "\n".join(lines) + "\n"


def to_html(table: Table) -> str:
    """A `<table>` with scoped headings, without the notes; `data-sort` holds each number at full precision."""
    used = table.used_labels()
    head = "".join(
        f'<th scope="colgroup" colspan="{len(columns)}" class="{columns[0].origin}'
        f'{" synthetic" if columns[0].data_set.synthetic else ""}">{html.escape(heading)}</th>'
        for heading, columns in table.groups()
    )
    labels = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in _label_headings(table))
    names = "".join(f'<th scope="col" class="number">{html.escape(column.name)}</th>' for column in table.columns)
    body = []
    for row in table.rows:
        first, *rest = (row.labels[i] for i in used)
        cells = f'<th scope="row">{html.escape(first)}</th><td><span class="origin">{row.origin}</span></td>'
        cells += "".join(f"<td>{html.escape(label)}</td>" for label in rest)
        cells += "".join(_html_cell(estimate) for estimate in row.estimates)
        body.append(f'<tr class="{row.origin}">{cells}</tr>')
    spacer = f'<td colspan="{1 + len(used)}"></td>'
    return (
        f'<table class="sortable" id="{html.escape(table.key)}"><caption>{html.escape(table.title)}</caption>'
        f"<thead><tr>{spacer}{head}</tr><tr>{labels}{names}</tr></thead><tbody>{''.join(body)}</tbody></table>"
    )


def _label_headings(table: Table) -> list[str]:
    first, *rest = (table.label_columns[i] for i in table.used_labels())
    return [first, "Origin", *rest]


def _html_cell(estimate: Estimate | None) -> str:
    if estimate is None:
        return '<td class="number empty"></td>'
    if math.isnan(estimate.value):
        return f'<td class="number missing">{html.escape(estimate.reason)}</td>'
    value, _, interval = estimate.format(minus="−").partition(" [")
    interval = f' <span class="interval">[{interval}</span>' if interval else ""
    return f'<td class="number" data-sort="{estimate.value!r}">{html.escape(value)}{interval}</td>'


def _plain(estimate: Estimate | None) -> str:
    return "" if estimate is None else estimate.format()


def _markdown(text: str) -> str:
    """What Markdown would read as markup or as the end of a cell is escaped."""
    return re.sub(r"([\\`*_|<>])", r"\\\1", text)


_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "±": r"$\pm$",
    "°": r"$^{\circ}$",
    "−": r"$-$",
    "·": r"$\cdot$",
    "×": r"$\times$",
    "≥": r"$\geq$",
    "≤": r"$\leq$",
    "–": "--",
    "—": "---",
    "Δ": r"$\Delta$",
    "√": r"$\surd$",
    "“": "``",
    "”": "''",
    "’": "'",
}


def _stacked(text: str, width: int, side: str) -> str:
    """`text` in lines of about `width` characters."""
    lines = r" \\ ".join(map(_latex, wrap(text, width)))
    return rf"\shortstack[{side}]{{{lines}}}"


def _latex(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in text)
