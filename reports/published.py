"""The rows that the SRTC-Net paper prints in its Tables 2-5, read from `published.yaml`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from reports.tables import Column, DataSet, Estimate, Row

_FILE = Path(__file__).with_name("published.yaml")


@dataclass(frozen=True, slots=True)
class PublishedTable:
    """One table of the paper.

    Attributes:
        key: e.g. "table3".
        title: what it shows.
        columns: its number columns, all published.
        quantities: the columns' machine-readable keys, e.g. ("eer",).
        rows: labels (method with the paper's reference number, training data) and estimates with the printed digits.
        source: which table of which publication.
        conditions: how the paper obtained the numbers, as far as it says.
    """

    key: str
    title: str
    columns: tuple[Column, ...]
    quantities: tuple[str, ...]
    rows: tuple[Row, ...]
    source: str
    conditions: str

    @property
    def data_set(self) -> DataSet:
        """The data set that all its numbers were obtained on."""
        return self.columns[0].data_set


@cache
def published_tables() -> dict[str, PublishedTable]:
    """The paper's tables by key, in the paper's order.

    Raises:
        ValueError: if a row's count of values differs from its table's count of columns.
    """
    import yaml

    document = yaml.safe_load(_FILE.read_text(encoding="utf-8"))
    source = document["source"]
    citation = f"{source['authors']}: {source['title']}. {source['venue']}, doi:{source['doi']}"
    return {entry["key"]: _table(entry, citation) for entry in document["tables"]}


def _table(entry: dict[str, Any], citation: str) -> PublishedTable:
    data_set = DataSet(**entry["dataset"])
    columns = tuple(Column(column["label"], data_set, "published", column["better"]) for column in entry["columns"])
    rows = []
    for row in entry["rows"]:
        if len(row["values"]) != len(columns):
            raise ValueError(f"{_FILE}: {entry['key']}, {row['method']}: {len(row['values'])} of {len(columns)} values")
        method = f"{row['method']} [{row['cite']}]" if "cite" in row else row["method"]
        estimates = tuple(Estimate.printed(text) for text in row["values"])
        rows.append(Row((method, row.get("training", "")), estimates, data_set, "published"))
    return PublishedTable(
        key=entry["key"],
        title=entry["title"],
        columns=columns,
        quantities=tuple(column["key"] for column in entry["columns"]),
        rows=tuple(rows),
        source=f"{entry['source']} of {citation}",
        conditions=" ".join(entry["conditions"].split()),
    )
