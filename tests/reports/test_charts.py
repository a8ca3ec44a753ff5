"""Charts: readable without colour, the same bytes every time, and the numbers behind the curves."""

import re
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from reports import figures
from reports.figures import GENUINE, IMPOSTOR, STYLES, Chart, Series


def luminance(color: str) -> float:
    """Relative luminance of WCAG 2.1."""
    channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


def curve(label: str = "none", low: float = 0.9, style: int = 0) -> Series:
    x = np.geomspace(1e-3, 1, 20)
    y = np.linspace(low, 1, 20)
    return Series(label, x, y, y - 0.05, np.minimum(y + 0.05, 1), style)


def chart() -> Chart:
    return figures.roc("a-roc", "ROC", "", [curve(), curve("srtc", 0.95, 1)], 1e-3)


@pytest.mark.parametrize("color", [GENUINE, IMPOSTOR, *(style[0] for style in STYLES)])
def test_every_colour_stands_out_from_white(color: str) -> None:
    assert 1.05 / (luminance(color) + 0.05) >= 3


def test_series_differ_in_dash_and_marker_without_colour() -> None:
    for (_, dash, marker), (_, other_dash, other_marker) in combinations(STYLES, 2):
        assert dash != other_dash
        assert marker != other_marker


def test_fourteen_series_look_all_different_without_colour() -> None:
    assert len({figures.look(style)[1:] for style in range(14)}) == 14


def test_the_first_two_series_differ_in_grey() -> None:
    assert abs(luminance(STYLES[0][0]) - luminance(STYLES[1][0])) > 0.1


@pytest.mark.parametrize("name", ["a$b_$ {x", "$\\frac$", "_hidden"])
def test_a_name_is_printed_as_it_is(tmp_path: Path, name: str) -> None:
    scores = (name, np.arange(3.0), np.arange(3.0), 1.0)
    charts = [
        figures.roc("a", "", "", [curve(name), curve("srtc", style=1)], 1e-3),
        figures.by_yaw("b", "", "", [Series(name, np.array([10.0, 20.0]), np.array([0.1, 0.2]))], "", {10: "", 20: ""}),
        figures.histograms("c", "", "", [scores]),
        figures.fold_differences("d", "", "", [(name, np.zeros(2), 0.0, -0.1, 0.1, 0)]),
    ]
    for drawn in charts:
        assert f">{name}</text>" in drawn.svg()
        drawn.save(tmp_path)


def test_the_same_chart_is_the_same_bytes(tmp_path: Path) -> None:
    assert chart().svg() == chart().svg()
    first, second = chart().save(tmp_path / "a"), chart().save(tmp_path / "b")
    assert [path.name for path in first] == ["a-roc.svg", "a-roc.png"]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_a_chart_that_cannot_be_written_leaves_the_earlier_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: object, file: Path, **_: object) -> None:
        file.write_bytes(b"half")
        raise OSError("disk full")

    before = [path.read_bytes() for path in chart().save(tmp_path)]
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", fail)
    with pytest.raises(OSError, match="disk full"):
        chart().save(tmp_path)
    assert [path.read_bytes() for path in sorted(tmp_path.iterdir(), reverse=True)] == before


def test_ids_begin_with_the_charts_key_so_that_charts_can_share_a_page() -> None:
    text = chart().svg()
    ids = re.findall(r'\bid="([^"]*)"', text)
    used = re.findall(r'(?:url\(|href=")#([^")]*)', text)
    assert ids
    assert all(name.startswith("a-roc-") for name in ids + used)
    assert set(used) <= set(ids)


def test_svg_refers_to_nothing_outside() -> None:
    assert not re.search(r'(?:href|src)="(?!#)', chart().svg())


def test_hover_tells_the_numbers_that_were_drawn() -> None:
    (plain, _) = chart().hover["series"]
    x, y, x_text, y_text = plain["points"][-1]
    left, top, right, _ = chart().hover["plot"]
    assert x == pytest.approx(right, abs=0.2)
    assert left < x
    assert top <= y
    assert (x_text, y_text) == ("100.0 %", "100.0 % [95.0, 100.0 %]")


def test_a_rate_by_yaw_reads_out_the_bins_name() -> None:
    series = [Series("none", np.array([15.0, 45.0]), np.array([0.1, 0.2]))]
    drawn = figures.by_yaw("y", "", "", series, "EER", {15.0: "0–30°", 45.0: "30–60°"})
    assert [point[2:] for point in drawn.hover["series"][0]["points"]] == [["0–30°", "10.0 %"], ["30–60°", "20.0 %"]]


def test_hover_points_where_the_marker_of_a_rate_by_yaw_is() -> None:
    series = [Series(name, np.array([15.0, 45.0]), np.array([0.1, 0.2])) for name in ("none", "srtc")]
    drawn = figures.by_yaw("y", "", "", series, "EER", {15.0: "0–30°", 45.0: "30–60°"})
    axes, height = drawn.figure.axes[0], drawn.figure.bbox.height
    for bars, trace in zip(axes.containers, drawn.hover["series"], strict=True):
        x, y = axes.transData.transform(bars.lines[0].get_xydata()).T
        np.testing.assert_allclose([point[:2] for point in trace["points"]], np.stack([x, height - y], 1), atol=0.06)
        assert [point[2] for point in trace["points"]] == ["0–30°", "30–60°"]


def test_missing_values_are_not_drawn() -> None:
    series = [Series("none", np.array([15.0, 45.0]), np.array([0.1, np.nan]))]
    drawn = figures.by_yaw("y", "", "", series, "EER", {15.0: "a", 45.0: "b"})
    assert len(drawn.hover["series"][0]["points"]) == 1


def test_histograms_and_differences_are_drawn(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    scores = [("none", rng.normal(1, 1, 90), rng.normal(0, 1, 80), 0.5)]
    rows = [("srtc", np.array([-0.01, 0.02]), 0.005, -0.01, 0.02, 1)]
    for drawn in (figures.histograms("h", "", "", scores), figures.fold_differences("d", "", "", rows)):
        assert all(path.stat().st_size > 1000 for path in drawn.save(tmp_path))
