"""One self-contained HTML file: no requests, no dependencies, the same bytes for the same report."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from reports.content import VERDICT_WORDS, Report
from reports.montage import PANELS, thumbnail
from reports.tables import to_html

_ASSETS = Path(__file__).with_name("assets")
_NAMED_IMAGES = 200  # failed images listed by name in the page; the score table has all


def render_html(report: Report) -> str:
    """The report as one HTML document."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(loader=FileSystemLoader(_ASSETS), autoescape=True, undefined=StrictUndefined)
    text = environment.get_template("report.html.j2").render(
        report=report,
        all_findings=[finding for section in report.sections for finding in section.findings],
        all_hurts=[finding for section in report.sections for finding in section.hurts],
        judged=any(finding.verdict != "unknown" for section in report.sections for finding in section.findings),
        any_failures=any(section.failures for section in report.sections),
        words=VERDICT_WORDS,
        panel_names=PANELS,
        limit=_NAMED_IMAGES,
        css=Markup((_ASSETS / "report.css").read_text(encoding="utf-8")),
        js=Markup((_ASSETS / "report.js").read_text(encoding="utf-8")),
        svg=lambda chart: Markup(chart.svg()),
        to_html=lambda table: Markup(to_html(table)),
        json=lambda value: Markup(_script_json(value)),
        pretty=lambda record: json.dumps(record, indent=2, ensure_ascii=False, sort_keys=True),
        published=_published,
        data_uri=_data_uri,
    )
    return text + "\n"


def _published(record: Mapping[str, Any]) -> dict[str, Any]:
    """A run's record without where its files lay: a page is shown to others."""
    left_out = {"dataset": ("root",), "configuration": ("data", "out", "store")}
    return {
        name: {key: each for key, each in value.items() if key not in left_out.get(name, ())}
        if isinstance(value, Mapping)
        else value
        for name, value in record.items()
    }


def _script_json(value: Mapping[str, Any]) -> str:
    """JSON that cannot close the `<script>` it stands in."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")


def _data_uri(picture: np.ndarray) -> str:
    buffer = io.BytesIO()
    thumbnail(picture).save(buffer, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
