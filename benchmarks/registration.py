"""How well photos are registered, measured on drawn people whose shape, pose and landmarks are known.

    pifr bench registration

The people are samples of the face model with sampled textures (`protocols.synthetic`), drawn near frontal with hair,
clutter, light and a camera's faults; what is fitted never sees the truth. How a landmark source errs, which the fit
knows, is measured on other such people, turned further, and anew for every C-Net:

    python -c "from benchmarks.registration import calibrate; calibrate('cnet')"
"""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Annotated

import numpy as np
import typer

from benchmarks.timing import JsonFile, report
from pifr.assets import ASSETS
from pifr.faces import FaceFinder
from pifr.geometry.face_model import load_face_model
from pifr.geometry.five_landmarks import five_of_68
from pifr.geometry.mesh_raster import vertex_normals
from pifr.geometry.similarity import fit_similarity
from pifr.training.heads import TexturedHead
from pifr.training.landmark_fit import estimate_noise, noise_file, write_landmark_noise
from pifr.training.landmark_sources import LANDMARK_SOURCES, LandmarkSource, load_landmark_source, load_links
from pifr.training.registration import read_fit, register_image
from protocols.synthetic.people import expression, sample_person
from protocols.synthetic.photography import photograph
from protocols.synthetic.scene import Scene, View

SIZE = 320
SCALE = 0.8
"""Pixels a millimetre."""
SEED, CALIBRATION_SEED = 11, 2001
SPREAD, LIMIT = (12.0, 7.0, 6.0), 30.0
"""Standard deviations of yaw, pitch, roll, and where they are cut; degrees."""
CALIBRATION_SPREAD, CALIBRATION_LIMIT = (16.0, 8.0, 6.0), 42.0
NOISE_FOLDER = ASSETS / "sources"
INNER = slice(17, 68)
"""Multi-PIE's landmarks without the jaw, whose place on the outline is a convention."""
FACING = 0.2
"""Cosine between normal and view from which on a point of the face counts as visible."""


@dataclass(frozen=True, slots=True)
class _Errors:
    """Of one portrait: where the visible face is placed in the picture, its landmarks in percent of the eyes' distance,
    the angle between poses, and shapes."""

    place_mm: float
    landmarks_percent: float
    pose_degrees: float
    shape_mm: float
    mean_face_mm: float


def main(
    people: Annotated[int, typer.Option(min=1, help="Drawn portraits.")] = 60,
    seed: Annotated[int, typer.Option(min=0, help="Which people.")] = SEED,
    json: JsonFile = None,
) -> None:
    """How far each landmark source's fits are from the truth: median place, landmarks and pose, mean RMSE of shapes."""
    sources = (load_landmark_source(name) for name in LANDMARK_SOURCES)
    report("registration", [{"landmarks": source.name} | _measure(source, people, seed) for source in sources], json)


def _measure(source: LandmarkSource, people: int, seed: int) -> dict[str, float]:
    finder = FaceFinder(policy="central")
    found = [errors for index in range(people) if (errors := _register_one(seed, index, source, finder))]
    return {
        "people": people,
        "registered": len(found),
        "place mm": float(np.median([e.place_mm for e in found])),
        "landmarks %": float(np.median([e.landmarks_percent for e in found])),
        "pose degrees": float(np.median([e.pose_degrees for e in found])),
        "shape mm": float(np.mean([e.shape_mm for e in found])),
        "mean face mm": float(np.mean([e.mean_face_mm for e in found])),
    }


def calibrate(source_name: str, people: int = 1000, seed: int = CALIBRATION_SEED) -> None:
    """Measure on `people` drawn portraits how a landmark source errs, and write the noise that the fit assumes.

    Raises:
        UnknownNameError: there is no such source.
        ValueError: if these are the people that the benchmark reports.
    """
    if seed == SEED:
        raise ValueError(f"seed {seed} draws the people that the benchmark reports: choose another")
    source, finder = load_landmark_source(source_name), FaceFinder(policy="central")
    vertices = load_links()[1]
    errors, rotations = [], []
    for index in range(people):
        head, _, view, picture = _draw(seed, index, CALIBRATION_SPREAD, CALIBRATION_LIMIT)
        faces = finder([picture])
        if faces.status[0] != "ok":
            continue
        found = source(picture, faces)
        if found.reason:
            continue
        # Where the face stands in the picture is the fit's to find.
        error = found.points * [1, -1] / view.scale - head[vertices] @ view.rotation[:2].T
        roll = np.radians(view.roll)
        upright = np.array([[np.cos(roll), -np.sin(roll)], [np.sin(roll), np.cos(roll)]])
        errors.append((error - error.mean(0)) @ upright.T)
        rotations.append(np.vstack([upright @ view.rotation[:2], view.rotation[2]]))
    write_landmark_noise(estimate_noise(np.array(errors), np.array(rotations)), NOISE_FOLDER / noise_file(source_name))


def _draw(
    seed: int, index: int, spread: tuple[float, float, float], limit: float
) -> tuple[np.ndarray, Scene, View, np.ndarray]:
    """Portrait `index`: the head mesh V x 3 mm, the scene, the camera, and the picture SIZE x SIZE x 3."""
    rng = np.random.default_rng([seed, index])
    person = sample_person(seed, index)
    mood = rng.choice(["neutral", "smile", "squint"])
    coefficients = expression(str(mood), rng.uniform(0.2, 0.9), rng)
    scene = Scene(person, coefficients)
    angles = np.clip(rng.normal(0, spread), -limit, limit)
    view = View(*map(float, angles), scale=SCALE, centre=(SIZE / 2, SIZE / 2), width=SIZE, height=SIZE)
    return person.with_expression(coefficients), scene, view, photograph(scene, view, rng)


def _register_one(seed: int, index: int, source: LandmarkSource, finder: FaceFinder) -> _Errors | None:
    _, scene, view, picture = _draw(seed, index, SPREAD, LIMIT)
    row = register_image(picture, source, finder)
    if row["status"] != "ok":
        return None
    fit = read_fit(SimpleNamespace(**row))
    head = TexturedHead(picture, fit)
    model = load_face_model()
    truth = scene.truth(view).landmarks
    eyes = np.linalg.norm(np.subtract(*five_of_68(truth)[:2]))
    landmarks = np.linalg.norm(head.pixels[model.landmarks68[INNER], :2] - truth[INNER], axis=1).mean() / eyes
    turned = fit.rotation @ view.rotation.T
    pose = np.degrees(np.arccos(np.clip((np.trace(turned) - 1) / 2, -1, 1)))
    true_face = scene.vertices[: len(model.template.vertices)]
    visible = vertex_normals(true_face, model.template.triangles) @ view.rotation[2] > FACING
    moved = model.at_template(head.pixels) - scene.place(true_face, view)
    return _Errors(
        float(np.linalg.norm(moved[visible, :2], axis=1).mean() / view.scale),
        100 * float(landmarks),
        float(pose),
        _rmse(model.at_template(head.vertices), true_face),
        _rmse(model.template.vertices, true_face),
    )


def _rmse(shape: np.ndarray, truth: np.ndarray) -> float:
    """RMSE in mm of corresponding points after a similarity alignment."""
    aligned = fit_similarity(shape, truth)(shape)
    return float(np.sqrt(((aligned - truth) ** 2).sum(1).mean()))
