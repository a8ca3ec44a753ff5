"""Shape error against cases with a closed form."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import trimesh

from pifr.errors import ConfigError, DataError
from pifr.faces import FaceCrops
from pifr.geometry import warp
from pifr.geometry.similarity import Similarity, fit_similarity
from pifr.geometry.template import load_template
from protocols.shape import (
    PersonShape,
    ShapeOptions,
    ShapeScans,
    Surface,
    average_shape,
    averaged,
    evaluate_shape,
    face_region,
    nose_tip,
    refine_icp,
    shape_errors,
    surface_distances,
)

from ..black_faces import black_faces

POINTS = np.array(
    [[-45, 35, -20], [-15, 33, -8], [15, 33, -8], [45, 35, -20], [0, -12, 12], [-25, -35, -8], [25, -35, -8]], float
)


def _sphere(radius: float) -> trimesh.Trimesh:
    return trimesh.creation.icosphere(subdivisions=5, radius=radius)


def _rotation(seed: int) -> np.ndarray:
    return trimesh.transformations.random_rotation_matrix(np.random.default_rng(seed).random(3))[:3, :3]


def _plane(z: float = 0.0, half: float = 150.0, n: int = 31) -> Surface:
    axis = np.linspace(-half, half, n)
    x, y = np.meshgrid(axis, axis)
    index = np.arange(n * n).reshape(n, n)
    a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:]
    triangles = np.concatenate([np.stack([a, b, c], -1).reshape(-1, 3), np.stack([b, d, c], -1).reshape(-1, 3)])
    vertices = np.stack([x, y, np.full_like(x, z)], -1).reshape(-1, 3)
    return Surface(vertices, triangles, POINTS)


def test_two_concentric_spheres_are_as_far_apart_as_their_radii() -> None:
    inner, outer = _sphere(80), _sphere(83)
    distance = surface_distances(outer.vertices, inner.vertices, inner.faces)
    # Flat triangles lie below the sphere by at most the sagitta of their edge.
    sagitta = 80 - np.sqrt(80**2 - (inner.edges_unique_length.max() / np.sqrt(3)) ** 2)
    assert (distance >= 3 - 1e-9).all()
    assert (distance <= 3 + sagitta + 1e-9).all()


def test_a_plane_shifted_along_its_normal_errs_by_the_shift() -> None:
    scan, prediction = _plane(), _plane(z=2.5)
    np.testing.assert_allclose(shape_errors(scan, prediction, ShapeOptions()), 2.5)


def test_the_error_is_measured_to_the_surface_not_to_its_vertices() -> None:
    fine, coarse = _plane(n=61), _plane(n=4)
    np.testing.assert_allclose(shape_errors(fine, coarse, ShapeOptions()), 0, atol=1e-9)


def test_moving_turning_and_scaling_a_prediction_changes_nothing() -> None:
    scan, flat = _plane(), _plane(z=1.5)
    motion = Similarity(0.3, _rotation(4), np.array([9.0, -4, 7]))
    moved = Surface(motion(flat.vertices), flat.triangles, motion(flat.landmarks))
    np.testing.assert_allclose(
        shape_errors(scan, moved, ShapeOptions()), shape_errors(scan, flat, ShapeOptions()), atol=1e-9
    )


def test_the_crop_keeps_what_is_near_the_nose_and_below_the_forehead() -> None:
    plane = _plane(n=301)
    tip = np.array([0.0, 8.0, 30.0])
    scan = np.concatenate([plane.vertices, [tip]])
    kept = face_region(scan, POINTS, radius=90, forehead=0.4)
    eyes, mouth = POINTS[:4].mean(0), POINTS[5:].mean(0)
    near = np.linalg.norm(scan - tip, axis=1) <= 90
    up = (eyes - mouth) / np.linalg.norm(eyes - mouth)
    low = (scan - eyes) @ up <= 0.4 * np.linalg.norm(eyes - mouth)
    assert (kept == (near & low)).all()
    assert kept.any()
    assert (near & ~low).any()


@pytest.mark.parametrize("seed", range(3))
def test_the_tip_of_the_nose_is_found_in_any_pose(seed: int) -> None:
    template = load_template()
    points = template.landmarks("multipie68")
    vertices = np.asarray(template.vertices, float)
    motion = Similarity(1.0, _rotation(seed), np.array([30.0, -200.0, 11.0]))
    at = template.position_map(256)
    landmarks = warp.points_at(at[None], points[[36, 39, 42, 45, 33, 48, 54]])[0].T.numpy().astype(float)
    true = warp.points_at(at[None], points[[30]])[0, :, 0].numpy().astype(float)
    assert np.linalg.norm(nose_tip(motion(vertices), motion(landmarks)) - motion(true[None])[0]) < 6


def test_icp_removes_a_shift_that_the_seven_points_carry() -> None:
    sphere = _sphere(80)
    scan = Surface(np.asarray(sphere.vertices), np.asarray(sphere.faces), POINTS)
    shifted = Surface(scan.vertices, scan.triangles, POINTS + [1.0, -2.0, 0.5])
    plain = shape_errors(scan, shifted, ShapeOptions(radius=200, forehead=9))
    refined = shape_errors(scan, shifted, ShapeOptions(radius=200, forehead=9, icp=True))
    assert np.sqrt((plain**2).mean()) > 1
    assert np.sqrt((refined**2).mean()) < 0.1
    motion = refine_icp(scan.vertices, shifted, fit_similarity(shifted.landmarks, scan.landmarks))
    assert np.linalg.norm(motion.translation) < 0.2


def test_the_average_of_one_shape_in_many_poses_is_that_shape() -> None:
    face = _plane().vertices + np.random.default_rng(1).normal(size=(961, 3))
    posed = [Similarity(1 + k / 3, _rotation(k), np.full(3, k * 5.0))(face) for k in range(4)]
    size = np.exp(np.mean(np.log([1, *(1 + k / 3 for k in range(4))])))
    np.testing.assert_allclose(average_shape(np.stack([face, *posed])), size * face, atol=1e-8)


def test_the_size_of_an_average_does_not_depend_on_the_order_of_the_pictures() -> None:
    shapes = np.stack([scale * _plane().vertices for scale in (0.9, 1.0, 1.2)])
    assert np.ptp(average_shape(shapes)) == pytest.approx(np.ptp(average_shape(shapes[::-1])))


def test_pictures_are_averaged_in_batches_but_for_those_that_failed() -> None:
    shapes = np.arange(15.0).reshape(5, 3, 1) ** 2 * [1.0, 0.5, -0.3] + np.eye(3)
    shapes[3] = np.nan
    faces = FaceCrops.concatenate([FaceCrops.failed(["no_face"]), black_faces(4)])
    seen: list[int] = []

    def predict(some: FaceCrops) -> np.ndarray:
        seen.append(len(some))
        return shapes[sum(seen[:-1]) : sum(seen)]

    result = averaged(predict, faces, batch_size=2)
    assert seen == [2, 2, 1]
    assert result.used.tolist() == [False, True, True, False, True]
    np.testing.assert_allclose(result.vertices, average_shape(shapes[[1, 2, 4]]))
    assert np.isnan(averaged(lambda some: shapes[3:4], faces[:1]).vertices).all()


def test_a_scan_in_metres_is_told_apart_from_one_in_millimetres() -> None:
    scan = _plane()
    far = Surface(scan.vertices + [0, 0, 1e6], scan.triangles, scan.landmarks)
    with pytest.raises(DataError, match="is the scan in mm"):
        shape_errors(far, scan, ShapeOptions())


class _Flat:
    name, fingerprint, in_millimetres = "flat", "flat", False
    triangles = _plane().triangles

    def __init__(self, shapes: Sequence[PersonShape] = ()) -> None:
        self.shapes = iter(shapes)

    def __call__(self, faces: FaceCrops) -> PersonShape:
        return next(self.shapes)

    def landmarks(self, vertices: np.ndarray) -> np.ndarray:
        return POINTS


def _write_subject(root: Path, name: str, suffix: str = ".ply", frames: int = 25) -> None:
    folder = root / name
    (folder / "frames" / "indoor").mkdir(parents=True)
    plane = _plane()
    trimesh.Trimesh(plane.vertices, plane.triangles, process=False).export(folder / f"scan{suffix}")
    np.savetxt(folder / "landmarks.txt", POINTS)
    for k in range(frames):
        (folder / "frames" / "indoor" / f"{k:04d}.jpg").touch()


@pytest.mark.parametrize("suffix", [".ply", ".obj"])
def test_a_tree_is_read_and_every_tenth_frame_used(tmp_path: Path, suffix: str) -> None:
    _write_subject(tmp_path, "01", suffix)
    protocol = ShapeScans(tmp_path)
    assert protocol.validate() == []
    assert [path.name for path in protocol.frames("01")] == ["0000.jpg", "0010.jpg", "0020.jpg"]
    np.testing.assert_allclose(protocol.scan("01").vertices, _plane().vertices, atol=1e-4)


def test_a_scan_that_cannot_be_measured_is_found_before_any_network_runs(tmp_path: Path) -> None:
    for name in ("cloud", "damaged", "metres", "whole"):
        _write_subject(tmp_path, name)
    trimesh.PointCloud(_plane().vertices).export(tmp_path / "cloud" / "scan.ply")
    half = (tmp_path / "damaged" / "scan.ply").read_bytes()
    (tmp_path / "damaged" / "scan.ply").write_bytes(half[: len(half) // 2])
    np.savetxt(tmp_path / "metres" / "landmarks.txt", POINTS / 1000)
    cloud, damaged, metres = ShapeScans(tmp_path).validate()
    assert "cloud/scan.ply: holds no triangles" in cloud
    assert "damaged/scan.ply: cannot be read as a mesh" in damaged
    assert "metres/scan.ply: the outer corners of the eyes are 0.09 apart" in metres


def test_a_predictor_without_a_size_is_not_measured_in_millimetres(tmp_path: Path) -> None:
    _write_subject(tmp_path, "01")
    with pytest.raises(ConfigError, match="flat predicts no size"):
        evaluate_shape(
            ShapeScans(tmp_path, ShapeOptions(scale=False)), lambda files: black_faces(len(files)), [_Flat()]
        )


def test_failed_frames_are_counted_and_a_subject_without_any_keeps_its_row(tmp_path: Path) -> None:
    for name in ("01", "02"):
        _write_subject(tmp_path, name)
    vertices, used = _plane(z=2.0).vertices, np.array([True, False, True])
    shapes = [PersonShape(vertices, used), PersonShape(vertices * np.nan, used & False)]
    table, errors = evaluate_shape(ShapeScans(tmp_path), lambda files: black_faces(len(files)), [_Flat(shapes)])
    rows = table.set_index("subject")
    assert rows.loc["01", ["frames", "failed_frames", "status"]].tolist() == [3, 1, "ok"]
    assert rows.loc["01", "rmse"] == pytest.approx(2.0, abs=1e-5)
    assert rows.loc["02", ["failed_frames", "status", "reason"]].tolist() == [3, "failed", "no_prediction"]
    assert np.isnan(rows.loc["02", "rmse"])
    assert set(errors["flat"]) == {"01"}


def test_a_scan_is_read_once_for_all_predictors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write_subject(tmp_path, "01")
    read, scan = [], ShapeScans.scan
    monkeypatch.setattr(ShapeScans, "scan", lambda scans, subject: read.append(subject) or scan(scans, subject))
    shape = PersonShape(_plane(z=2.0).vertices, np.array([True, True, True]))
    predictors = [_Flat([shape]), _Flat([shape])]
    predictors[1].name = "other"
    table, _ = evaluate_shape(ShapeScans(tmp_path), lambda files: black_faces(len(files)), predictors)
    assert table["predictor"].tolist() == ["flat", "other"]
    assert read == ["01"]


def test_what_a_tree_lacks_is_named(tmp_path: Path) -> None:
    assert "no <subject>/<scan>.ply" in ShapeScans(tmp_path).validate()[0]
    _write_subject(tmp_path, "01", frames=0)
    (tmp_path / "01" / "landmarks.txt").unlink()
    problems = "\n".join(ShapeScans(tmp_path).validate())
    assert "landmarks.txt: the scan's seven points are needed" in problems
    assert "no pictures below frames/" in problems


def test_what_only_a_measurement_would_meet_is_named_before_any_prediction(tmp_path: Path) -> None:
    _write_subject(tmp_path, "01")
    _write_subject(tmp_path, "02")
    (tmp_path / "01" / "landmarks.txt").write_text("1 2 3\n")
    (tmp_path / "02" / "another.obj").touch()
    first, second = ShapeScans(tmp_path).validate()
    assert "landmarks.txt: the scan's seven points are needed" in first
    assert "one scan a subject, found 2" in second


@pytest.mark.parametrize(("icp", "least"), [(False, 20), (True, 5)])
def test_without_scale_a_prediction_keeps_its_size(icp: bool, least: float) -> None:
    sphere = _sphere(80)
    scan, large = (Surface(sphere.vertices * size, np.asarray(sphere.faces), POINTS * size) for size in (1.0, 1.5))
    assert shape_errors(scan, large, ShapeOptions(icp=icp)).max() < 1e-6
    assert shape_errors(scan, large, ShapeOptions(scale=False, icp=icp)).mean() > least
