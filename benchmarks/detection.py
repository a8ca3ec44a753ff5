"""How well faces are found, by their size, roll and yaw, in drawn photos whose landmarks are known.

    pifr bench detection

The people are samples of the face model (`protocols.synthetic`) before clutter, in photos of 960 x 720 pixels.
"""

from __future__ import annotations

from time import perf_counter
from typing import Annotated

import numpy as np
import typer

from benchmarks.timing import JsonFile, report
from pifr.detectors import Detections, load_detector
from pifr.geometry.five_landmarks import five_of_68
from protocols.synthetic.people import expression, sample_person
from protocols.synthetic.photography import clutter, develop, photograph, random_exposure
from protocols.synthetic.scene import Scene, View

WIDTH, HEIGHT = 960, 720
SEED = 31
FACE_MM = 180.0
"""Height of a face, as the sizes count it."""
SIZES = (240, 96, 48, 24)
"""Pixels."""
ROLLS = (0, 30, 60, 90)
YAWS = {"0-20": (0.0, 20.0), "45-90": (45.0, 90.0)}
FOUND = 60.0
"""Mean landmark error in percent of the eye-mouth distance from which something else was found."""


def main(
    detector: Annotated[list[str], typer.Option(help="May be repeated.")] = ["yunet"],  # noqa: B006
    people: Annotated[int, typer.Option(min=1, help="Photos of each size, roll and range of yaw.")] = 12,
    json: JsonFile = None,
) -> None:
    """Print which share of the faces is found, how far the landmarks are off, and how long a photo takes."""
    detectors = {name: load_detector(name) for name in detector}
    rows = []
    for range_, (low, high) in YAWS.items():
        for size in SIZES:
            for roll in ROLLS:
                photos = [_photo(index, size, roll, low, high) for index in range(people)]
                for name, detect in detectors.items():
                    rows.append(
                        {"detector": name, "yaw": range_, "size": size, "roll": roll} | _measure(detect, photos)
                    )
    empty = [_empty_photo(index) for index in range(people)]
    for name, detect in detectors.items():
        found, milliseconds = _timed(detect, empty)
        false = np.mean([len(faces.scores) > 0 for faces in found])
        rows.append({"detector": name, "yaw": "no face", "found %": float(100 * false), "ms": milliseconds})
    report("detection", rows, json)


def _measure(detect, photos: list[tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
    found, milliseconds = _timed(detect, [photo for photo, _ in photos])
    errors = np.array([_error(faces, truth) for faces, (_, truth) in zip(found, photos, strict=True)])
    good = errors < FOUND
    return {
        "found %": float(100 * good.mean()),
        "landmark error %": float(np.median(errors[good])) if good.any() else None,
        "ms": milliseconds,
    }


def _timed(detect, photos: list[np.ndarray]) -> tuple[list[Detections], float]:
    """What is found in each photo, and the median of the milliseconds a photo takes, after one to warm up."""
    detect(photos[0])
    found, seconds = [], []
    for photo in photos:
        begin = perf_counter()
        found.append(detect(photo))
        seconds.append(perf_counter() - begin)
    return found, 1000 * float(np.median(seconds))


def _error(faces: Detections, truth: np.ndarray) -> float:
    """Mean distance of the nearest face's landmarks in percent of the distance between eyes and mouth."""
    if not len(faces.scores):
        return np.inf
    distance = np.linalg.norm(truth[:2].mean(0) - truth[3:].mean(0))
    return float(100 * np.linalg.norm(faces.landmarks - truth, axis=2).mean(1).min() / distance)


def _photo(index: int, size: int, roll: int, low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
    """A photo of one person and the five landmarks, 5 x 2 pixels."""
    rng = np.random.default_rng([SEED, index, size, roll, round(high)])
    scene = Scene(sample_person(SEED, index), expression("neutral", 0.5, rng))
    yaw = float(rng.choice([-1, 1]) * rng.uniform(low, high))
    place = rng.uniform(0.3, 0.7, 2) * [WIDTH, HEIGHT]
    centre = (float(place[0]), float(place[1]))
    view = View(yaw, rng.normal(0, 5), roll, size / FACE_MM, centre, WIDTH, HEIGHT)
    picture = photograph(scene, view, rng)
    return picture, five_of_68(scene.truth(view).landmarks)


def _empty_photo(index: int) -> np.ndarray:
    rng = np.random.default_rng([SEED, index])
    return develop(clutter(HEIGHT, WIDTH, rng), random_exposure(rng), rng)


if __name__ == "__main__":
    typer.run(main)
