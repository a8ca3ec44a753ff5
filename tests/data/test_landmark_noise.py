"""What is known of a landmark source's errors, and what the fit makes of it."""

import numpy as np
import pytest
import torch

from pifr.geometry.camera import rotation_from_angles
from pifr.geometry.face_model import load_face_model
from pifr.training.landmark_fit import (
    NOISE_MODES,
    LandmarkFitter,
    LandmarkNoise,
    estimate_noise,
    load_fitter,
    load_landmark_noise,
    write_landmark_noise,
)

SCALE = 2.0
SOURCE = "face-mesh"


def _rotation(*angles):
    return rotation_from_angles(torch.tensor([angles], dtype=torch.float64))[0].numpy()


def _points(fitter, angles, identity, noise_mm):
    vertices = load_face_model().vertices(identity)[fitter.vertices] + fitter.noise.bias
    seen = vertices @ _rotation(*angles)[:2].T + noise_mm
    return SCALE * seen * [1, -1] + [300.0, 200.0]


def _people(count, seed=0):
    """Angles, identities and errors as the shipped noise has them, all upright."""
    rng, noise = np.random.default_rng(seed), load_landmark_noise(SOURCE)
    for _ in range(count):
        shared = np.tensordot(rng.normal(size=NOISE_MODES), noise.modes, 1)
        own = noise.deviation[:, None] * rng.normal(size=shared.shape)
        yield (*rng.normal(0, [12, 7]), 0.0), rng.normal(size=50), shared + own


def _rmse(shape, truth):
    return np.sqrt((((shape - shape.mean(0)) - (truth - truth.mean(0))) ** 2).sum(1).mean())


def test_noise_is_recovered_from_people_who_have_it():
    rng, landmarks = np.random.default_rng(0), 30
    bias, mode = rng.normal(size=(landmarks, 3)), 2 * rng.normal(size=(landmarks, 2))
    rotations = np.array([_rotation(*rng.normal(0, [20, 15]), 0.0) for _ in range(4000)])
    errors = np.einsum("nia,la->nli", rotations[:, :2], bias) + rng.normal(size=(4000, 1, 1)) * mode
    noise = estimate_noise(errors, rotations)
    assert np.abs(noise.bias[:, :2] - bias[:, :2]).max() < 0.25
    assert np.abs(np.einsum("li,li->", noise.modes[0], mode)) / np.linalg.norm(mode) ** 2 == pytest.approx(1, abs=0.05)
    assert np.abs(noise.modes[5:]).max() < 0.05


def test_noise_survives_its_file(tmp_path):
    noise = load_landmark_noise(SOURCE)
    write_landmark_noise(noise, tmp_path / "noise.npz")
    with np.load(tmp_path / "noise.npz") as archive:
        assert all(np.array_equal(archive[key], getattr(noise, key)) for key in ("bias", "modes", "deviation"))


def test_noise_of_other_landmarks_is_refused():
    noise = load_landmark_noise(SOURCE)
    with pytest.raises(ValueError, match="10 landmarks"):
        LandmarkFitter(LandmarkNoise(noise.bias[:10], noise.modes[:, :10], noise.deviation[:10]))


def test_a_fit_under_the_assumed_noise_beats_the_mean_face():
    """The promise of a regularised fit, which holds only if the assumed noise is the one that is there."""
    model, fitter = load_face_model(), load_fitter(SOURCE)
    fitted, mean = [], []
    for angles, identity, noise in _people(8):
        fit = fitter.fit(_points(fitter, angles, identity, noise))
        truth = model.vertices(identity)[: model.face_end]
        fitted.append(_rmse(model.vertices(fit.identity, fit.expression)[: model.face_end], truth))
        mean.append(_rmse(model.mean[: model.face_end], truth))
    assert np.mean(fitted) < 0.9 * np.mean(mean)


def test_knowing_shared_errors_improves_the_pose():
    fitter, known = load_fitter(SOURCE), load_landmark_noise(SOURCE)
    blind = LandmarkFitter(LandmarkNoise(known.bias, 0 * known.modes, known.deviation))
    errors = {"known": [], "blind": []}
    for angles, identity, noise in _people(12, seed=1):
        points = _points(fitter, angles, identity, noise)
        errors["known"].append(np.abs(np.subtract(fitter.fit(points).angles, angles)).max())
        errors["blind"].append(np.abs(np.subtract(blind.fit(points).angles, angles)).max())
    assert np.mean(errors["known"]) < 0.9 * np.mean(errors["blind"])


def test_a_rolled_face_is_fitted_like_an_upright_one():
    """Shared errors turn with the head, as Face Mesh's upright crop does."""
    fitter = load_fitter(SOURCE)
    ((yaw, pitch, _), identity, noise), *_ = _people(1, seed=2)
    upright = fitter.fit(_points(fitter, (yaw, pitch, 0.0), identity, noise))
    roll = np.radians(20.0)
    turn = np.array([[np.cos(roll), np.sin(roll)], [-np.sin(roll), np.cos(roll)]])
    rolled = fitter.fit(_points(fitter, (yaw, pitch, 20.0), identity, noise @ turn.T))
    assert np.allclose(rolled.identity, upright.identity, atol=0.05)
    assert np.allclose(rolled.angles, np.add(upright.angles, [0, 0, 20.0]), atol=0.2)
