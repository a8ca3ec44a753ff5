"""Draws the README's picture: people who do not exist, turned to the front.

python docs/figures.py docs/images/frontalization.jpg
"""

from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import torch
import typer
from torch import Tensor
from torch.nn import functional

from pifr.export.panels import shaded
from pifr.faces import ARCFACE_112, FaceFinder
from pifr.frontalizer import Frontalizer, FrontalizerConfig
from protocols.synthetic.people import expression, sample_person
from protocols.synthetic.photography import clutter, compose, develop, random_exposure, random_light
from protocols.synthetic.scene import Scene, View

CELL = 160
YAWS = (0.0, 35.0, -50.0, 65.0, -78.0, 88.0)
COLUMNS = (
    "photo", "mask", "PNCC", "partial texture", "complete texture", "shape", "turned to 60", "frontal", "true frontal",
)  # fmt: skip


def _portraits(seed: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """One drawn person a yaw: the turned photo, and the same scene from the front."""
    turned, frontal = [], []
    for index, yaw in enumerate(YAWS):
        rng = np.random.default_rng([seed, index])
        scene = Scene(sample_person(seed, index), expression("smile" if index % 2 else "neutral", 0.5, rng))
        light = scene.irradiance(random_light(rng))
        background, exposure = clutter(256, 256, rng), random_exposure(rng)
        for pictures, angle in ((turned, yaw), (frontal, 0.0)):
            view = View(angle, 4.0, 0.0, scale=0.75, centre=(128.0, 132.0), width=256, height=256)
            (drawn,), coverage = scene.draw(view, [light])
            pictures.append(develop(compose(drawn, coverage, background), exposure, rng))
    return turned, frontal


def _cells(images: Tensor) -> list[np.ndarray]:
    """B x (1 or 3) x H x W in [0, 1] to B uint8 RGB cells."""
    resized = functional.interpolate(images.expand(-1, 3, -1, -1), (CELL, CELL), mode="bilinear", antialias=True)
    return list((255 * resized.clamp(0, 1)).round().byte().permute(0, 2, 3, 1).numpy())


def main(
    out: Annotated[Path, typer.Argument(help="Picture to write.")],
    weights: Annotated[Path | None, typer.Option(help="Folder of weights instead of the shipped ones.")] = None,
    seed: int = 8,
) -> None:
    """A row a person, a column a step."""
    turned, frontal = _portraits(seed)
    faces = FaceFinder()(turned)
    with torch.inference_mode():
        config = FrontalizerConfig(completion="inet", shape="snet", fine=True)
        frontalizer = Frontalizer.from_pretrained(weights=weights, config=config)
        result = frontalizer(faces, ARCFACE_112, 224)
        turned_to_60 = frontalizer.turn(faces, result, result.fitted, None, ARCFACE_112, 224, largest_yaw=60.0)
    truth = torch.from_numpy(np.stack(frontal)).permute(0, 3, 1, 2).float() / 255
    columns = [
        faces.pixels,
        result.mask,
        result.pncc * (result.mask > 0.5),
        result.uv_partial * result.visibility,
        result.uv_texture,
        shaded(result.surface, 224),
        turned_to_60,
        result.frontal,
        truth[:, :, 40:216, 40:216],
    ]
    rows = [np.hstack(cells) for cells in zip(*(_cells(column) for column in columns), strict=True)]
    header = np.full((24, rows[0].shape[1], 3), 255, np.uint8)
    for k, name in enumerate(COLUMNS):
        place = (k * CELL + 6, 17)
        cv2.putText(header, name, place, cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 0, 0), 1, cv2.LINE_AA)
    out.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(out), np.vstack([header, *rows])[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88])


if __name__ == "__main__":
    typer.run(main)
