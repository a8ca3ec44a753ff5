"""Rows of pictures like the paper's Figures 4-9, for probes that a rule chooses.

The rule is computed from scores alone; pictures are asked for only after it has chosen, and only for what it chose.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    import pandas as pd
    from PIL import Image

Rule = Literal["worst", "median", "best"]

PANELS: dict[str, str] = {
    "input": "input",
    "mask": "mask",
    "pncc": "PNCC",
    "landmarks": "landmarks",
    "uv_partial": "incomplete UV",
    "visibility": "visibility",
    "uv_texture": "completed UV",
    "shape": "shaded shape",
    "frontal": "frontal rendering",
    "truth": "true frontal",
}
"""Panels in the order in which a montage shows them, and their headings."""

PanelSource = Callable[[Mapping[str, Any], str, str, str], Mapping[str, np.ndarray]]
"""Pictures of a probe, given the configuration that the run's record holds and the names of the frontalizer, of the
probe and of a reference of the same person: uint8 H x W x 3 RGB by panel name; whatever is not there is left out."""

_FINDING = ("detector", "policy", "fallback")  # in a run's configuration, as `pifr.faces.FaceFinder` takes them
_CELL = 160  # pixels, side of a picture in a montage


@dataclass(frozen=True, slots=True)
class MontageRow:
    """One probe: why it was chosen, and its pictures (None where there is none), one a panel of the montage."""

    label: str
    pictures: tuple[np.ndarray | None, ...]


@dataclass(frozen=True, slots=True)
class Montage:
    """Rows of pictures under common headings; `panels` are keys of `PANELS`."""

    key: str
    title: str
    caption: str
    panels: tuple[str, ...]
    rows: tuple[MontageRow, ...]

    def image(self) -> np.ndarray:
        """All of it as one picture, uint8 H x W x 3, headings above and labels to the left."""
        from PIL import Image, ImageDraw, ImageFont

        font = ImageFont.load_default(13)
        margin, heading = 150, 22
        canvas = Image.new("RGB", (margin + _CELL * len(self.panels), heading + _CELL * len(self.rows)), "white")
        draw = ImageDraw.Draw(canvas)
        for i, panel in enumerate(self.panels):
            draw.text((margin + _CELL * (i + 0.5), heading / 2), PANELS[panel], "black", font, anchor="mm")
        for j, row in enumerate(self.rows):
            top = heading + _CELL * j
            draw.multiline_text((4, top + 8), row.label.replace(", ", "\n"), "black", font)
            for i, picture in enumerate(row.pictures):
                if picture is not None:
                    canvas.paste(thumbnail(picture), (margin + _CELL * i, top))
        return np.asarray(canvas)


def choose_probes(scores: pd.DataFrame, baseline: pd.DataFrame, rule: Rule, count: int) -> list[tuple[str, str, float]]:
    """Probes whose genuine scores a system changed most for the worse, for the better, or as it usually does.

    Scores of two systems are compared in standard deviations above the mean of each system's own impostor scores, so
    that a system with wider scores gains nothing by it. A probe's change is the mean over its genuine comparisons.

    Args:
        scores: rows of the score table of one system.
        baseline: rows of the other system on the same comparisons.
        rule: "worst" and "best" by change; "median" takes those next to the median change.
        count: how many probes; fewer where there are not so many.

    Returns:
        Probe, one of its references of the same person, change in standard deviations; worst, best or most usual first.
    """
    pairs = _standardised(scores).merge(_standardised(baseline), on=["probe", "reference"], suffixes=("", "_baseline"))
    pairs["change"] = pairs["z"] - pairs["z_baseline"]
    grouped = pairs.sort_values("reference").groupby("probe", sort=True)
    probes = grouped.agg(reference=("reference", "first"), change=("change", "mean")).reset_index()
    if rule == "worst":
        order = probes["change"]
    elif rule == "best":
        order = -probes["change"]
    else:
        order = (probes["change"] - probes["change"].median()).abs()
    chosen = probes.loc[order.sort_values(kind="stable").index[:count]]
    return [(str(p), str(r), float(c)) for p, r, c in chosen.itertuples(index=False)]


def _standardised(scores: pd.DataFrame) -> pd.DataFrame:
    """Genuine comparisons that took place, `z` = standard deviations above the mean impostor score."""
    measured = scores[np.isfinite(scores["score"])]
    same = measured["same"].astype(bool)
    impostor = measured.loc[~same, "score"]
    genuine = measured.loc[same, ["probe", "reference"]]
    return genuine.assign(z=(measured.loc[same, "score"] - impostor.mean()) / impostor.std())


def build_montage(
    key: str,
    title: str,
    scores: pd.DataFrame,
    baseline: pd.DataFrame,
    configuration: Mapping[str, Any],
    source: PanelSource,
    rules: Sequence[Rule] = ("worst", "median", "best"),
    count: int = 3,
) -> Montage:
    """Montage of `count` probes a rule; arguments as `choose_probes` and `PanelSource`.

    Panels that no chosen probe has are left out.
    """
    chosen = [(rule, *choice) for rule in rules for choice in choose_probes(scores, baseline, rule, count)]
    frontalizer = str(scores["frontalizer"].iloc[0])
    pictures = [source(configuration, frontalizer, probe, reference) for _, probe, reference, _ in chosen]
    panels = tuple(name for name in PANELS if any(name in found for found in pictures))
    rows = tuple(
        MontageRow(f"{rule}, {change:+.2f} sd, {probe}", tuple(found.get(name) for name in panels))
        for (rule, probe, _, change), found in zip(chosen, pictures, strict=True)
    )
    caption = (
        f"{count} probes each with the {', '.join(rules)} change of their genuine scores, in standard deviations of "
        "the impostor scores; chosen by this rule from the scores, before any picture was read."
    )
    return Montage(key, title, caption, panels, rows)


def folder_panels(folder: Path) -> PanelSource:
    """Pictures saved as `FOLDER/<probe without suffix>/<panel>.png`, as `pifr frontalize ROOT --all` writes them.

    Raises:
        DataError: (when asked for a probe) if the probe has no folder there.
    """
    from pifr.errors import DataError
    from pifr.images import read_image

    def read(configuration: Mapping[str, Any], frontalizer: str, probe: str, reference: str) -> dict[str, np.ndarray]:
        place = folder / Path(probe).with_suffix("")
        if not place.is_dir():
            raise DataError(f"no intermediate pictures of probe {probe!r}: expected the folder '{place}'")
        return {name: read_image(place / f"{name}.png") for name in PANELS if (place / f"{name}.png").is_file()}

    return read


def image_panels(root: Path) -> PanelSource:
    """Pictures made on demand: `srtc` is applied to `ROOT/<probe>`, with faces found, as in the run.

    Of other frontalizers the photos are shown.

    Args:
        root: folder that sample names are relative to (CFP: `Data/Images`).

    Raises:
        DataError: there is no such folder, or, when a picture is asked for, none of that name in it.
    """
    from functools import cache

    from pifr.errors import DataError
    from pifr.export.panels import panels
    from pifr.faces import ARCFACE_112, FaceFinder
    from pifr.frontal_views import load_srtc
    from pifr.images import to_uint8

    if not root.is_dir():
        raise DataError(f"'{root}' is no folder: name the one that the names of samples are relative to")
    make_finder, load = cache(FaceFinder), cache(load_srtc)

    def make(configuration: Mapping[str, Any], frontalizer: str, probe: str, reference: str) -> dict[str, np.ndarray]:
        if not (root / probe).is_file():
            raise DataError(f"'{root}' holds no '{probe}': name the folder that the names of samples are relative to")
        finder = make_finder(**{name: configuration[name] for name in _FINDING if name in configuration})
        faces, truth = finder([root / probe]), finder([root / reference])
        if faces.status[0] == "failed":
            return {}
        name, _, options = frontalizer.partition(":")
        if name == "srtc":
            result = load("cpu", options).frontalizer(faces, ARCFACE_112, _CELL)
            (pictures,) = panels(faces, result)
        else:  # its steps are not known here
            pictures = {"input": to_uint8(faces.pixels)[0]}
        return pictures | ({} if truth.status[0] == "failed" else {"truth": to_uint8(truth.pixels)[0]})

    return make


def thumbnail(picture: np.ndarray, size: int = _CELL) -> Image.Image:
    """`picture` (uint8 H x W x 3) fitted into a white square of `size` pixels, as a PIL image."""
    from PIL import Image, ImageOps

    return ImageOps.pad(Image.fromarray(picture), (size, size), Image.Resampling.LANCZOS, color="white")
