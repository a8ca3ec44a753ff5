"""How well photos are registered, measured on drawn people whose shape, pose and landmarks are known.

    pifr bench registration

The people are samples of the face model with sampled textures (`protocols.synthetic`), drawn near frontal with hair,
clutter, light and a camera's faults; what is fitted never sees the truth.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from pifr.faces import FaceFinder
from pifr.geometry.face_model import load_face_model
from pifr.training.facemesh import FaceMesh
from pifr.training.heads import TexturedHead
from pifr.training.registration import read_fit, register_image
from pifr.zoo import find_weights
from protocols.shape import fit_similarity
from protocols.synthetic.people import expression, sample_person
from protocols.synthetic.photography import clutter, compose, develop, random_exposure, random_light
from protocols.synthetic.scene import Scene, View

SIZE = 320
INNER = slice(17, 68)
"""Multi-PIE's landmarks without the jaw, whose place on the outline is a convention."""


@dataclass(frozen=True, slots=True)
class _Errors:
    landmarks_percent: float
    pose_degrees: float
    shape_mm: float
    mean_face_mm: float


def main(json_path: Path | None = None, people: int = 60, seed: int = 11) -> dict[str, float]:
    """Register `people` drawn portraits; prints and returns the medians, and writes them to `json_path`."""
    detector, finder = FaceMesh(find_weights("face-mesh").fetch(), threads=2), FaceFinder(policy="central")
    found = [errors for index in range(people) if (errors := _register_one(seed, index, detector, finder))]
    result = {
        "people": people,
        "registered": len(found),
        "landmark error, % of the eye distance": float(np.median([e.landmarks_percent for e in found])),
        "pose error, degrees": float(np.median([e.pose_degrees for e in found])),
        "shape RMSE, mm": float(np.mean([e.shape_mm for e in found])),
        "mean face RMSE, mm": float(np.mean([e.mean_face_mm for e in found])),
    }
    for name, value in result.items():
        print(f"{name:40s} {value:8.3f}")
    if json_path is not None:
        json_path.write_text(json.dumps(result, indent=1))
    return result


def _register_one(seed: int, index: int, detector: FaceMesh, finder: FaceFinder) -> _Errors | None:
    rng = np.random.default_rng([seed, index])
    person = sample_person(seed, index)
    mood = rng.choice(["neutral", "smile", "squint"])
    scene = Scene(person, expression(str(mood), rng.uniform(0.2, 0.9), rng))
    angles = np.clip(rng.normal(0, [12, 7, 6]), -30, 30)
    view = View(*map(float, angles), scale=0.8, centre=(SIZE / 2, SIZE / 2), width=SIZE, height=SIZE)
    (drawn,), coverage = scene.draw(view, [scene.irradiance(random_light(rng))])
    picture = develop(compose(drawn, coverage, clutter(SIZE, SIZE, rng)), random_exposure(rng), rng)

    row = register_image(picture, detector, finder)
    if row["status"] != "ok":
        return None
    fit = read_fit(SimpleNamespace(**row))
    head = TexturedHead(picture, fit)
    model = load_face_model()
    truth = scene.truth(view).landmarks
    eyes = np.linalg.norm(truth[36:42].mean(0) - truth[42:48].mean(0))
    landmarks = np.linalg.norm(head.pixels[model.landmarks68[INNER], :2] - truth[INNER], axis=1).mean() / eyes
    turned = fit.rotation @ view.rotation.T
    pose = np.degrees(np.arccos(np.clip((np.trace(turned) - 1) / 2, -1, 1)))
    true_face = scene.vertices[: len(model.template.vertices)]
    return _Errors(
        100 * float(landmarks),
        float(pose),
        _rmse(model.at_template(head.vertices), true_face),
        _rmse(model.template.vertices, true_face),
    )


def _rmse(shape: np.ndarray, truth: np.ndarray) -> float:
    """RMSE in mm of corresponding points after a similarity alignment."""
    aligned = fit_similarity(shape, truth)(shape)
    return float(np.sqrt(((aligned - truth) ** 2).sum(1).mean()))
