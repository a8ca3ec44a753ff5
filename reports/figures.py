"""Charts for papers (PNG, SVG) and for the HTML report (inline SVG with the numbers behind each point).

Up to 49 series differ in dash pattern and marker, the first seven in each of them and in colour, so a chart is readable
by colour-blind people and in a grey print. All rates are fractions in [0, 1] on the way in and per cent on the axes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pifr.support.files import write_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Colours of at least 3:1 on white, after Okabe and Ito; dash patterns in points.
STYLES: tuple[tuple[str, tuple[float, ...], str], ...] = (
    ("#111111", (), "o"),
    ("#0072b2", (5, 2), "s"),
    ("#c8460a", (1.5, 1.5), "^"),
    ("#00805c", (7, 2, 1.5, 2), "D"),
    ("#8a4fa3", (3, 1.5, 1, 1.5, 1, 1.5), "v"),
    ("#7a5c00", (9, 3), "P"),
    ("#5b6770", (2, 3), "X"),
)
GENUINE, IMPOSTOR = "#0072b2", "#c8460a"

_SIZE = (5.2, 3.7)  # inches: 374 points wide, so that text keeps its size on a phone
_STYLE = {
    "figure.dpi": 72,
    "font.family": "sans-serif",
    "font.size": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.titlesize": 9.5,
    "grid.color": "#dfe3e6",
    "grid.linewidth": 0.7,
    "lines.linewidth": 1.8,
    "lines.markersize": 5,
    "legend.frameon": False,
    "legend.handlelength": 3.2,
    "text.parse_math": False,  # a $ in a name is a $
    "svg.hashsalt": "pifr",  # ids in the SVG are derived from it: the same chart is the same bytes
}
_DET_TICKS = (0.0001, 0.001, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4)


def look(style: int) -> tuple[str, tuple[float, ...], str]:
    """Colour, dash pattern and marker; from the eighth style on, other combinations of those of `STYLES`."""
    again, place = divmod(style, len(STYLES))
    color, _, _ = STYLES[place]
    _, dashes, _ = STYLES[(place + again) % len(STYLES)]
    _, _, marker = STYLES[(place + 2 * again) % len(STYLES)]
    return color, dashes, marker


@dataclass(frozen=True, slots=True)
class Series:
    """One curve; equal-length float arrays, NaN where there is nothing to draw.

    Attributes:
        label: what it is, as the legend says it.
        x, y: its points.
        low, high: bounds of the confidence band, where there is one.
        style: see `look`; one system keeps its style in all charts of a report.
    """

    label: str
    x: np.ndarray
    y: np.ndarray
    low: np.ndarray | None = None
    high: np.ndarray | None = None
    style: int = 0

    @property
    def look(self) -> tuple[str, tuple[float, ...], str]:
        """Colour, dash pattern, marker."""
        return look(self.style)


@dataclass(frozen=True, slots=True)
class Chart:
    """A drawn figure, what it shows in words, and the numbers behind it.

    Attributes:
        key: machine-readable name, used for files and anchors.
        title: one line.
        caption: how to read it, with what it was computed from.
        figure: the matplotlib figure.
        hover: for the HTML report: `plot` (x0, y0, x1, y1 of the axes) and, a series, `label`, `color`, `dash` and
            `points` (x, y in SVG units, then both values as text).
    """

    key: str
    title: str
    caption: str
    figure: Figure
    hover: Mapping[str, Any]

    def svg(self) -> str:
        """A self-contained `<svg>` element for HTML: text stays text, ids begin with the chart's key."""
        import matplotlib

        with matplotlib.rc_context({**_STYLE, "svg.fonttype": "none"}):
            buffer = StringIO()
            self.figure.savefig(buffer, format="svg", metadata={"Date": None}, transparent=True)
        text = buffer.getvalue()
        text = text[text.index("<svg") :]
        text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
        text = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{self.key}-", text)
        # The page's font, not the one that matplotlib measured with; the sizes stay.
        text = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", text)
        return re.sub(r"\n\s*", "\n", text).replace("<svg ", '<svg aria-hidden="true" focusable="false" ', 1)

    def save(self, folder: Path) -> list[Path]:
        """Write `key`.svg (outlined text) and `key`.png (300 dpi) into `folder`, each whole; the paths."""
        import matplotlib

        paths = [folder / f"{self.key}.svg", folder / f"{self.key}.png"]
        folder.mkdir(parents=True, exist_ok=True)
        with matplotlib.rc_context({**_STYLE, "svg.fonttype": "path"}):
            write_whole(paths[0], lambda part: self.figure.savefig(part, format="svg", metadata={"Date": None}))
            write_whole(paths[1], lambda part: self.figure.savefig(part, format="png", dpi=300))
        return paths


@dataclass(frozen=True, slots=True)
class _Axis:
    """Label, scale and number format of one axis."""

    label: str
    scale: Literal["linear", "log", "probit"] = "linear"
    limits: tuple[float, float] | None = None
    percent: bool = False
    whole: bool = False
    names: Mapping[float, str] = field(default_factory=dict)

    def text(self, value: float) -> str:
        if self.names:  # the nearest, for points are moved a little so that none hides another
            return self.names[min(self.names, key=lambda place: abs(place - value))]
        if not self.percent:
            return f"{value:.3g}"
        return f"{100 * value:.3g} %" if value < 0.1 else f"{100 * value:.1f} %"

    def apply(self, axis: Any, setters: tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]) -> None:
        from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator
        from scipy.special import ndtr, ndtri

        set_label, set_scale, set_limits = setters
        set_label(self.label)
        if self.scale == "probit":
            set_scale("function", functions=(lambda p: ndtri(np.clip(p, 1e-9, 1 - 1e-9)), ndtr))
            axis.set_major_locator(FixedLocator(_DET_TICKS))
            axis.set_minor_locator(NullLocator())
        elif self.scale == "log":
            set_scale("log")
            axis.set_minor_locator(NullLocator())
        if self.whole:
            axis.set_major_locator(MaxNLocator(integer=True))
        if self.limits:
            set_limits(*self.limits)
        if self.percent:
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %"))


def roc(key: str, title: str, caption: str, series: Sequence[Series], floor: float) -> Chart:
    """True match rate over false match rate (log), bands vertical.

    Args:
        series: x = FMR, y = TMR.
        floor: the least FMR that the data can measure; the axis begins there.
    """
    lowest = min((float(np.nanmin(s.y)) for s in series), default=0.0) - 0.05
    x = _Axis("False match rate", "log", (floor, 1.0), percent=True)
    y = _Axis("True match rate", limits=(max(0.0, np.floor(lowest * 20) / 20), 1.005), percent=True)
    return _lines(key, title, caption, series, x, y)


def det(key: str, title: str, caption: str, series: Sequence[Series], floor: float) -> Chart:
    """False non-match rate over false match rate, both on a normal-deviate axis (Martin et al. 1997)."""
    # A rate of exactly 0 lies infinitely far below.
    lowest = min((float(s.y[s.y > 0].min()) for s in series if (s.y > 0).any()), default=floor)
    x = _Axis("False match rate", "probit", (floor, 0.5), percent=True)
    y = _Axis("False non-match rate", "probit", (min(floor, 0.8 * lowest), 0.5), percent=True)
    return _lines(key, title, caption, series, x, y)


def cmc(key: str, title: str, caption: str, series: Sequence[Series]) -> Chart:
    """Identification rate over rank."""
    return _lines(key, title, caption, series, _Axis("Rank", whole=True), _Axis("Identification rate", percent=True))


def cumulative_error(
    key: str, title: str, caption: str, series: Sequence[Series], quantity: str, *, percent: bool
) -> Chart:
    """Share of items whose error is at most x; failures keep the curve below 100 %.

    Args:
        series: x = error (a fraction if `percent`), y = share.
    """
    x, y = _Axis(quantity, percent=percent), _Axis("Share", limits=(0.0, 1.005), percent=True)
    return _lines(key, title, caption, series, x, y)


def by_yaw(
    key: str, title: str, caption: str, series: Sequence[Series], quantity: str, bins: Mapping[float, str]
) -> Chart:
    """A rate with its interval by |yaw|.

    Args:
        series: x = degrees, the middle of a bin.
        quantity: label of the rate.
        bins: label of each bin by its middle.
    """
    import matplotlib

    with matplotlib.rc_context(_STYLE):
        figure, axes = _figure()
        # Side by side, so that intervals do not hide each other.
        series = [replace(curve, x=curve.x + 1.2 * (k - (len(series) - 1) / 2)) for k, curve in enumerate(series)]
        handles = []
        for curve in series:
            color, dash, marker = curve.look
            errors = None if curve.low is None else np.stack([curve.y - curve.low, curve.high - curve.y]).clip(0)
            bars = axes.errorbar(curve.x, curve.y, errors, color=color, marker=marker, capsize=2.5, elinewidth=1.2)
            bars.lines[0].set_dashes(dash) if dash else None
            handles.append(bars)
        x_axis, y_axis = _Axis("|yaw|", names=bins), _Axis(quantity, percent=True)
        _dress(axes, x_axis, y_axis)
        axes.set_ylim(bottom=max(0.0, axes.get_ylim()[0]))
        axes.set_xticks(list(bins), list(bins.values()))
        return _finish(key, title, caption, figure, axes, handles, series, x_axis, y_axis)


def histograms(
    key: str, title: str, caption: str, scores: Sequence[tuple[str, np.ndarray, np.ndarray, float]]
) -> Chart:
    """Distribution of genuine (filled) and impostor (hatched) scores, one panel a system.

    Args:
        scores: label, genuine scores, impostor scores, threshold at the equal error rate (drawn dotted).
    """
    import matplotlib

    with matplotlib.rc_context(_STYLE):
        figure, panels = _figure(len(scores), height=max(_SIZE[1], 0.7 + 1.15 * len(scores)))
        for axes, (label, genuine, impostor, threshold) in zip(np.atleast_1d(panels), scores, strict=True):
            edges = np.histogram_bin_edges(np.concatenate([genuine, impostor]), bins=48)
            weights = np.full(len(genuine), 1 / len(genuine)), np.full(len(impostor), 1 / len(impostor))
            axes.hist(impostor, edges, weights=weights[1], histtype="stepfilled", fill=False, hatch="/////",
                      edgecolor=IMPOSTOR, linewidth=1.1, label="impostor")  # fmt: skip
            axes.hist(genuine, edges, weights=weights[0], histtype="stepfilled", color=GENUINE, alpha=0.45,
                      edgecolor=GENUINE, linewidth=1.1, label="genuine")  # fmt: skip
            axes.axvline(threshold, color="#111111", linestyle=":", linewidth=1.3, label="threshold at the EER")
            axes.set_title(label, loc="left")
            axes.set_yticks([])
            axes.grid(False)
        axes.set_xlabel("Score")
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3)
        return Chart(key, title, caption, figure, {"series": []})


def fold_differences(
    key: str, title: str, caption: str, rows: Sequence[tuple[str, np.ndarray, float, float, float, int]]
) -> Chart:
    """Paired differences of each fold (points), and their mean with its interval, against zero.

    Args:
        rows: label, differences by fold, estimate, low, high, style; rates as fractions, negative is better.
    """
    import matplotlib

    with matplotlib.rc_context(_STYLE):
        figure, axes = _figure(height=max(2.0, 1.0 + 0.62 * len(rows)))
        axes.axvline(0, color="#111111", linewidth=1)
        for k, (label, folds, mean, low, high, style) in enumerate(rows):
            color, _, marker = look(style)
            y = len(rows) - 1 - k
            axes.plot(100 * folds, np.full(len(folds), y - 0.2), "|", color=color, markersize=9, markeredgewidth=1.6)
            axes.errorbar(100 * mean, y + 0.12, xerr=[[100 * max(0, mean - low)], [100 * max(0, high - mean)]],
                          color=color, marker=marker, markersize=7, capsize=4)  # fmt: skip
            axes.text(0, y + 0.34, label, transform=axes.get_yaxis_transform(), va="center")
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.set_ylim(-0.5, len(rows) - 0.35)
        axes.set_xlabel("Difference of EER in percentage points (below 0 is better)")
        return Chart(key, title, caption, figure, {"series": []})


def _lines(key: str, title: str, caption: str, series: Sequence[Series], x_axis: _Axis, y_axis: _Axis) -> Chart:
    import matplotlib

    with matplotlib.rc_context(_STYLE):
        figure, axes = _figure()
        handles = []
        for curve in series:
            color, dash, _ = curve.look
            if curve.low is not None and curve.high is not None:
                axes.fill_between(curve.x, curve.low, curve.high, color=color, alpha=0.13, linewidth=0)
            (line,) = axes.plot(curve.x, curve.y, color=color)
            line.set_dashes(dash) if dash else None
            handles.append(line)
        _dress(axes, x_axis, y_axis)
        return _finish(key, title, caption, figure, axes, handles, series, x_axis, y_axis)


def _figure(panels: int = 1, height: float = _SIZE[1]) -> tuple[Figure, Any]:
    """A figure outside pyplot's registry, so that nothing has to be closed."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_SIZE[0], height), layout="constrained")
    return figure, figure.subplots(panels, 1, sharex=True)


def _dress(axes: Axes, x_axis: _Axis, y_axis: _Axis) -> None:
    x_axis.apply(axes.xaxis, (axes.set_xlabel, axes.set_xscale, axes.set_xlim))
    y_axis.apply(axes.yaxis, (axes.set_ylabel, axes.set_yscale, axes.set_ylim))


def _finish(
    key: str,
    title: str,
    caption: str,
    figure: Figure,
    axes: Axes,
    handles: Sequence[Any],
    series: Sequence[Series],
    x_axis: _Axis,
    y_axis: _Axis,
) -> Chart:
    # Names are given here, for an artist's own label is left out where it begins with an underscore.
    names = [curve.label for curve in series]
    figure.legend(handles, names, loc="outside lower center", ncols=1 if max(map(len, names), default=0) > 28 else 2)
    figure.draw_without_rendering()  # settles the layout, so that the transforms below are final
    figure.set_layout_engine("none")
    height = figure.bbox.height
    box = axes.bbox
    traces = []
    for curve in series:
        color, dash, _ = curve.look
        shown = np.isfinite(curve.x) & np.isfinite(curve.y)
        pixels = axes.transData.transform(np.column_stack([curve.x, curve.y]))
        points = []
        for i in np.flatnonzero(shown):
            text = y_axis.text(curve.y[i])
            if curve.low is not None and curve.high is not None and np.isfinite(curve.low[i]):
                text += f" [{y_axis.text(curve.low[i])}, {y_axis.text(curve.high[i])}]".replace(" %,", ",")
            x, y = float(pixels[i, 0]), float(height - pixels[i, 1])
            if box.x0 - 1 <= x <= box.x1 + 1:
                y = min(max(y, height - box.y1), height - box.y0)
                points.append([round(x, 1), round(y, 1), x_axis.text(curve.x[i]), text])
        traces.append({"label": curve.label, "color": color, "dash": " ".join(map(str, dash)), "points": points})
    plot = [round(float(v), 1) for v in (box.x0, height - box.y1, box.x1, height - box.y0)]
    size = [round(float(figure.bbox.width), 1), round(float(height), 1)]
    return Chart(key, title, caption, figure, {"size": size, "plot": plot, "x": x_axis.label, "series": traces})
