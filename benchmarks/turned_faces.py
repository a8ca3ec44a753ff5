"""What helps recognition, measured on photos that were turned: the choice of views and weights rests on this.

    python -m benchmarks.turned_faces PHOTOS REGISTRATION --out FEATURES

Each registered photo is turned to 45, 60, 75 and 90 degrees by the training renderer (with validation backgrounds) and
compared, as a probe, with the other photos of the same set, unturned, as references. Photos whose frontal embeddings
match mutually and clearly count as one person. Views are embedded once; any weighting of them is then a product, so
all candidates are compared on the same features. It is no command of `pifr bench`, for it needs photos of people twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import torch
import typer

from feature_extractors import load_recognizer
from pifr.faces import FaceCrops, FaceFinder
from pifr.frontal_views import AlignedWeights
from pifr.images import read_image
from pifr.training.heads import TexturedHead
from pifr.training.pairs import draw_background
from pifr.training.registration import read_fit
from pifr.views import load_view_maker
from protocols.metrics import equal_error_rate
from reports.measurements import slug

SETS = ("london", "canada")
"""Validation sets; the first one has two photos of most people."""
YAWS = (45.0, 60.0, 75.0, 90.0)
SAME_PERSON = 0.55
"""Cosine of two frontal photos above which mutual nearest neighbours count as one person."""
BATCH = 32


@dataclass(frozen=True, slots=True)
class TurnedFeatures:
    """Embeddings of one recognizer, L2-normalised.

    Attributes:
        reference: P x D of the photos themselves. person: P labels.
        probe: Q x V x D of the turned photos' views. names: V. weights: Q x V of the view maker.
        photo: Q index of the probe's photo. yaw: Q true |yaw|. predicted: Q predicted yaw.
    """

    reference: np.ndarray
    person: np.ndarray
    probe: np.ndarray
    names: list[str]
    weights: np.ndarray
    photo: np.ndarray
    yaw: np.ndarray
    predicted: np.ndarray

    def scores(self, weights: np.ndarray) -> np.ndarray:
        """Q x P cosines of the probes' views under the weights Q x V (or V)."""
        fused = (self.probe * np.broadcast_to(weights, self.probe.shape[:2])[..., None]).sum(1)
        fused /= np.linalg.norm(fused, axis=1, keepdims=True) + 1e-9
        return fused @ self.reference.T

    def evaluate(self, weights: np.ndarray) -> pd.DataFrame:
        """EER and rank-1 (%) and mean genuine cosine by yaw; a probe never meets its own photo."""
        scores = self.scores(weights)
        same = self.person[self.photo][:, None] == self.person[None]
        other = self.photo[:, None] != np.arange(len(self.person))[None]
        rows = []
        for yaw in (*YAWS, None):
            chosen = np.ones(len(self.yaw), bool) if yaw is None else self.yaw == yaw
            usable = other[chosen]
            s, y = scores[chosen], same[chosen]
            has_mate = (y & usable).any(1)
            best = np.where(usable, s, -2).argmax(1)
            rows.append({
                "yaw": "all" if yaw is None else f"{yaw:g}",
                "EER": 100 * equal_error_rate(y[usable], s[usable]),
                "rank-1": 100 * y[np.arange(len(y)), best][has_mate].mean(),
                "cosine": s[y & usable].mean(),
                "own photo": s[np.arange(len(s)), self.photo[chosen]].mean(),
            })  # fmt: skip
        return pd.DataFrame(rows).set_index("yaw")


def turned_photos(
    photos: Path, registration: Path, limit: int | None = None, seed: int = 3
) -> tuple[list[np.ndarray], list[np.ndarray], list]:
    """The first `limit` photos (or all), their turned renders, and (photo, yaw) of each render."""
    table = pd.read_parquet(registration / "registration.parquet")
    table = table[(table["status"] == "ok") & table["set"].isin(SETS)]
    table = table.sort_values("set", key=lambda names: names.map(SETS.index), kind="stable").reset_index(drop=True)
    names = table["photo"].tolist()
    originals, turned, labels = [], [], []
    for row in table[:limit].itertuples():
        head = TexturedHead(read_image(photos / row.photo), read_fit(row))
        originals.append(head.image)
        for yaw in YAWS:
            rng = np.random.default_rng([seed, row.Index, int(yaw)])
            angles = (yaw * rng.choice([-1, 1]), rng.normal(0, 6), rng.normal(0, 5))
            background = draw_background(head, angles[0], photos / names[rng.integers(len(names))], rng)
            turned.append(head.render(angles, background, hair_mm=rng.uniform(0, 20)).image)
            labels.append((row.Index, yaw))
    return originals, turned, labels


def extract(recognizer_name: str, frontalizer: str, originals: list, turned: list, labels: list) -> TurnedFeatures:
    """Embed photos and the views of their turned renders."""
    recognizer = load_recognizer(recognizer_name)
    plain, maker = load_view_maker("none"), load_view_maker(frontalizer)
    finder = FaceFinder(fallback="centre-crop")
    size, template = recognizer.config.input_size, recognizer.config.alignment
    reference = []
    for batch in _batches(finder, originals):
        reference.append(recognizer.embed(plain(batch, template, size).images[:, 0]))
    reference = torch.nn.functional.normalize(torch.cat(reference)).numpy()
    probe, weights, predicted, names = [], [], [], ()
    for batch in _batches(finder, turned):
        views = maker(batch, template, size)
        names = views.names
        embedded = recognizer.embed(views.images.flatten(0, 1).clamp(0, 1))
        probe.append(torch.nn.functional.normalize(embedded).unflatten(0, views.images.shape[:2]).numpy())
        weights.append(views.weights.numpy())
        predicted.append(views.yaw.numpy())
    photo, yaw = np.array([k for k, _ in labels]), np.array([y for _, y in labels])
    return TurnedFeatures(
        reference, _people(reference), np.concatenate(probe), list(names), np.concatenate(weights), photo, yaw,
        np.concatenate(predicted),
    )  # fmt: skip


def _batches(finder: FaceFinder, images: list[np.ndarray]) -> list[FaceCrops]:
    """Crops in batches; a face that is not found is cut from the middle, so that every system is asked."""
    crops = []
    for begin in range(0, len(images), BATCH):
        crops.append(finder(images[begin : begin + BATCH]))
    return crops


def _people(reference: np.ndarray) -> np.ndarray:
    similarity = reference @ reference.T
    np.fill_diagonal(similarity, -1)
    nearest = similarity.argmax(1)
    person = np.arange(len(reference))
    for k, n in enumerate(nearest):
        if nearest[n] == k and similarity[k, n] > SAME_PERSON:
            person[k] = person[n] = min(k, n)
    return person


def main(
    photos: Annotated[Path, typer.Argument(help="Folder of photos with the sets london and canada.")],
    registration: Annotated[Path, typer.Argument(help="Folder of 'pifr train register' on it.")],
    frontalizer: Annotated[str, typer.Option(help="View maker whose views are embedded.")] = "srtc",
    recognizer: Annotated[list[str], typer.Option(help="May be repeated.")] = ["sface"],  # noqa: B006
    out: Annotated[Path | None, typer.Option(help="Keep the features in this folder.")] = None,
    limit: Annotated[int | None, typer.Option(help="Use the first photos only.")] = None,
) -> None:
    """Print EER, rank-1 and cosines by yaw for each single view and for mirror, align and the frontalizer."""
    originals, turned, labels = turned_photos(photos, registration, limit)
    for name in recognizer:
        features = extract(name, frontalizer, originals, turned, labels)
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
            np.savez(out / f"{slug(name)}.npz", **{k: getattr(features, k) for k in TurnedFeatures.__slots__})
        pairs = len(features.person) - len(np.unique(features.person))
        typer.echo(f"\n{name}: {len(originals)} photos, {pairs} people with two, {len(turned)} turned")
        views = np.eye(len(features.names))
        systems = dict(zip(features.names, views, strict=True))
        aligned = AlignedWeights().aligned(torch.zeros(1)).numpy()[0] @ views[:4]
        systems |= {"mirror": views[:2].mean(0), "align": aligned, frontalizer: features.weights}
        for share in (0.1, 0.2, 0.3, 0.4):
            rendered = views[4:].mean(0) if len(views) > 4 else views[0]
            systems[f"align + {share:g} renderings"] = (1 - share) * aligned + share * rendered
        for system, weights in systems.items():
            result = features.evaluate(weights)
            cells = "  ".join(
                f"{yaw}: {row['EER']:5.2f} {row['rank-1']:5.1f} {row['own photo']:.3f}"
                for yaw, row in result.iterrows()
            )
            typer.echo(f"{system:26s} {cells}")


if __name__ == "__main__":
    typer.run(main)
