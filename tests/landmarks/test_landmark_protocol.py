"""Landmark errors against hand-made cases, and the three kinds of ground truth."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy.io import savemat

import pifr.faces
from pifr.cli.evaluate_landmarks import landmarks as evaluate
from pifr.errors import DataError, UnknownNameError
from pifr.faces import FaceCrops, FaceFinder
from pifr.geometry.template import LANDMARK_SETS
from protocols.landmark_data import read_cfp, read_csv, read_multipie
from protocols.landmark_predictors import LANDMARK_PREDICTORS
from protocols.landmarks import (
    SCHEMES,
    Annotation,
    Prediction,
    evaluate_landmarks,
    landmark_errors,
    summarise_landmarks,
)


def _face68() -> np.ndarray:
    """Any 68 points, the image-left eye (36-41) left of the nose tip (30), the right one right of it."""
    points = np.random.default_rng(0).uniform(40, 60, (68, 2))
    points[36:42, 0] -= 30
    points[42:48, 0] += 30
    return points


def _annotation(scheme: str, side: str = "left", points: np.ndarray | None = None) -> Annotation:
    rows = LANDMARK_SETS[f"{scheme}-{side}" if SCHEMES[scheme].sided else scheme]
    truth = (_face68() if points is None else points)[list(rows)]
    return Annotation("a.jpg", Path("a.jpg"), "001", "profile", scheme, truth)


@pytest.mark.parametrize(("scheme", "count"), [("multipie39", 27), ("multipie68", 51), ("cfp30", 3)])
@pytest.mark.parametrize("side", ["left", "right"])
def test_a_perfect_prediction_has_no_error_in_any_scheme_and_on_either_side(scheme: str, count: int, side: str) -> None:
    truth = _annotation(scheme, side)
    assert truth.side == (side if SCHEMES[scheme].sided else "")
    errors = landmark_errors(_face68(), truth)
    assert errors["nme_nose"] == 0
    assert sum(name.startswith("error_") for name in errors) == count


def test_a_shift_is_its_length_over_the_nose_and_over_the_root_of_the_box() -> None:
    truth = _annotation("multipie39")
    errors = landmark_errors(_face68() + [3, 4], truth)
    nose = np.hypot(*(truth.points[0] - truth.points[3]))
    width, height = truth.points.max(0) - truth.points.min(0)
    assert errors["error"] == pytest.approx(5)
    assert errors["nme_nose"] == pytest.approx(5 / nose)
    assert errors["nme_box"] == pytest.approx(5 / np.sqrt(width * height))


def test_the_eye_of_cfp_is_the_mean_of_its_points() -> None:
    truth = _annotation("cfp30")
    moved = _face68()
    moved[36:42] += [[6, 0], [-6, 0], [0, 6], [0, -6], [2, 0], [-2, 0]]
    assert landmark_errors(moved, truth)["error_eye"] == pytest.approx(0, abs=1e-9)


def test_eye_nose_and_mouth_of_cfp_are_those_of_the_68_points() -> None:
    of_68 = LANDMARK_SETS["cfp30-left"]
    found = {name: [of_68[point] for point in points] for name, points in SCHEMES["cfp30"].measured}
    assert found == {"eye": [36, 37, 38, 39, 40, 41], "nose": [30], "mouth": [48]}  # eye and corner on the image's left


def test_an_eye_that_is_known_in_part_tells_the_side() -> None:
    truth = _annotation("multipie39", "left")
    truth.points[10] = np.nan
    assert truth.side == "left"


def test_jaw_points_do_not_count() -> None:
    moved = _face68()
    moved[:17] += 100
    for scheme in ("multipie39", "multipie68"):
        assert landmark_errors(moved, _annotation(scheme))["error"] == 0


def test_a_point_without_annotation_is_left_out_and_one_without_prediction_is_a_failure() -> None:
    truth = _annotation("multipie68")
    truth.points[50] = np.nan
    assert landmark_errors(_face68() + [0, 2], truth)["error"] == pytest.approx(2)
    lacking = _face68()
    lacking[60] = np.nan
    assert np.isnan(landmark_errors(lacking, truth)["error"])


def test_annotations_that_nothing_can_be_measured_by_are_refused_before_anyone_predicts(tmp_path: Path) -> None:
    for missing in ([27], range(17, 68)):  # the nose's upper end; all but the jaw
        truth = _annotation("multipie68")
        truth.points[list(missing)] = np.nan
        with pytest.raises(DataError, match=f"1 of 2 pictures cannot be measured, '{truth.sample}'"):
            evaluate_landmarks([_annotation("multipie68"), truth], _finder, [], "x")


def test_annotations_without_extent_are_refused() -> None:
    for same in (SCHEMES["multipie68"].nose, range(68)):  # the nose; everything, as points that were never set
        truth = _annotation("multipie68")
        truth.points[list(same)] = 0.0
        assert not truth.measurable


@pytest.mark.parametrize(("scheme", "eye"), [("multipie39", range(10, 15)), ("cfp30", range(12, 18))])
def test_half_a_face_without_an_eye_could_be_either_half_and_is_refused(scheme: str, eye: range) -> None:
    truth = _annotation(scheme)
    assert truth.measurable
    truth.points[list(eye)] = np.nan
    assert not truth.measurable


class _Constant:
    fingerprint = "constant"
    yaw = 70.0

    def __init__(self, name: str, shift: float) -> None:
        self.name, self.shift = name, shift

    def __call__(self, faces: FaceCrops) -> Prediction:
        points = np.repeat(_face68()[None] + [self.shift, 0], len(faces), axis=0).astype(np.float32)
        points[~faces.usable.numpy()] = np.nan
        return Prediction(points, np.full(len(faces), self.yaw, np.float32), ("",) * len(faces))


def _finder(files: list[Path]) -> FaceCrops:
    """Every picture has a face but the one that is not there."""
    faces = [
        FaceCrops(torch.zeros(1, 3, 256, 256), torch.eye(2, 3)[None], torch.full((1, 5, 2), torch.nan), ("ok",), ("",))
        if file.exists()
        else FaceCrops.failed(["unreadable"])
        for file in files
    ]
    return FaceCrops.concatenate(faces)


class _Finder:
    fingerprint = "all"

    def __init__(self, detector: str) -> None: ...

    def __call__(self, files: list[Path]) -> FaceCrops:
        return _finder(files)


def test_failures_keep_their_row_and_are_counted_beside_the_error(tmp_path: Path) -> None:
    annotations = []
    for k, name in enumerate(("a.jpg", "b.jpg", "gone.jpg")):
        if name != "gone.jpg":
            (tmp_path / name).write_bytes(b"picture")
        annotations.append(Annotation(name, tmp_path / name, str(k), "p", "cfp30", _annotation("cfp30").points))
    predictors, told = [_Constant("exact", 0), _Constant("off", 5)], []
    table = evaluate_landmarks(
        annotations, _finder, predictors, "cfp", batch_size=2, progress=lambda *state: told.append(state)
    )
    assert told == [(2, 3), (3, 3)]
    assert len(table) == 6
    gone = table[table["sample"] == "gone.jpg"]
    assert gone.status.tolist() == ["failed", "failed"]
    assert set(gone.reason) == {"unreadable"}
    summary = summarise_landmarks(table, by=("yaw_bin",)).set_index(["predictor", "yaw_bin"])
    assert summary.loc[("exact", 60), ["pictures", "failures", "nme_nose"]].tolist() == [
        3,
        1,
        pytest.approx(0, abs=1e-5),
    ]
    nose = np.hypot(*(annotations[0].points[18] - annotations[0].points[21]))
    assert summary.loc[("off", 60), "nme_nose"] == pytest.approx(5 / nose, rel=1e-5)


def test_errors_are_summed_up_by_their_means_over_pictures_with_an_answer() -> None:
    table = pd.DataFrame(
        {
            "setting": "cfp",
            "predictor": "cnet",
            "sample": list("abcd"),
            "yaw": 80.0,
            "status": ["ok", "ok", "ok", "failed"],
            "nme_nose": [0.3, 0.6, 1.8, np.nan],
            "nme_box": [0.1, 0.2, 0.6, np.nan],
        }
    )
    (row,) = summarise_landmarks(table).to_dict("records")
    assert (row["pictures"], row["failures"]) == (4, 1)
    assert (row["nme_nose"], row["nme_nose_median"]) == pytest.approx((0.9, 0.6))
    assert row["nme_box"] == pytest.approx(0.3)


def test_a_landmark_file_finds_the_pictures(tmp_path: Path) -> None:
    Image.new("RGB", (200, 200)).save(tmp_path / "a.jpg")
    five = "80,80,120,80,100,100,85,120,115,120"
    (tmp_path / "five.csv").write_text(f"path,x1,y1,x2,y2,x3,y3,x4,y4,x5,y5\na.jpg,{five}\n")
    truth = Annotation("a.jpg", tmp_path / "a.jpg", "1", "p", "cfp30", _annotation("cfp30").points)
    finder = FaceFinder(f"file:{tmp_path / 'five.csv'}")
    (row,) = evaluate_landmarks([truth], finder, [_Constant("exact", 0)], "cfp").to_dict("records")
    assert (row["status"], row["reason"]) == ("ok", "")


def test_the_record_holds_what_the_chosen_annotation_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pifr.faces, "FaceFinder", _Finder)
    monkeypatch.setitem(LANDMARK_PREDICTORS.makers, "cnet", lambda device: _Constant("cnet", 0))
    points = "".join(f"{x},{y}\n" for x, y in _annotation("cfp30").points)
    folder = tmp_path / "Data" / "Fiducials" / "001" / "profile"
    folder.mkdir(parents=True)
    (folder / "01.txt").write_text(points)
    with pytest.raises(DataError, match="1 of 1 annotated pictures are missing"):
        evaluate(tmp_path, tmp_path / "run", truth="cfp")
    picture = tmp_path / "Data" / "Images" / "001" / "profile" / "01.jpg"
    picture.parent.mkdir(parents=True)
    picture.write_bytes(b"picture")
    evaluate(tmp_path, tmp_path / "run", truth="cfp")
    asked = json.loads((tmp_path / "run" / "run.json").read_text())["configuration"]
    assert {name: asked.get(name) for name in ("truth", "view", "session", "smallest_yaw")} == {
        "truth": "cfp", "view": "profile", "session": None, "smallest_yaw": None
    }  # fmt: skip


def test_an_unknown_predictor_names_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match=r"no landmark predictor 'net'\. Did you mean 'cnet'"):
        LANDMARK_PREDICTORS.load("net")


def test_predictors_are_binned_by_one_yaw_a_picture(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"picture")
    truth = _annotation("cfp30")
    truth = Annotation("a.jpg", tmp_path / "a.jpg", "1", "p", "cfp30", truth.points)
    blind = _Constant("blind", 0)
    blind.yaw = np.nan
    table = evaluate_landmarks([truth], _finder, [blind, _Constant("seeing", 0)], "cfp")
    assert table.yaw.tolist() == [70, 70]
    known = Annotation("a.jpg", tmp_path / "a.jpg", "1", "p", "cfp30", truth.points, yaw=-85.0)
    assert evaluate_landmarks([known], _finder, [blind], "cfp").yaw.tolist() == [-85]


def test_cfp_fiducials_are_read_with_their_pictures(tmp_path: Path) -> None:
    folder = tmp_path / "Data" / "Fiducials" / "1007" / "profile"  # generated sets may have over 999 people
    folder.mkdir(parents=True)
    points = _annotation("cfp30").points
    (folder / "02.txt").write_text("\n".join(f"{x:.6f},{y:.6f}" for x, y in points))
    (found,) = read_cfp(tmp_path)
    np.testing.assert_allclose(found.points, points, atol=1e-5)
    assert (found.subject, found.path) == ("1007", tmp_path / "Data" / "Images" / "1007" / "profile" / "02.jpg")


def test_a_short_fiducial_file_is_refused_by_name(tmp_path: Path) -> None:
    folder = tmp_path / "Data" / "Fiducials" / "007" / "profile"
    folder.mkdir(parents=True)
    (folder / "02.txt").write_text("1,2\n3,4\n")
    with pytest.raises(DataError, match=r"02\.txt.*\(30, 2\)"):
        read_cfp(tmp_path)


def test_multipie_labels_are_taken_at_large_poses_of_one_session_and_counted_from_zero(tmp_path: Path) -> None:
    points = _annotation("multipie39").points
    for name in ("001_01_01_110_06_lm", "001_01_01_051_06_lm", "001_02_01_110_06_lm", "002_01_01_200_06_lm"):
        savemat(tmp_path / f"{name}.mat", {"pts": points + 1})
    found = read_multipie(tmp_path / "images", tmp_path)
    assert [(truth.sample.split("/")[-1], truth.yaw) for truth in found] == [
        ("001_01_01_110_06.png", -90),
        ("002_01_01_200_06.png", 60),
    ]
    np.testing.assert_allclose(found[0].points, points)
    assert found[0].scheme == "multipie39"


def test_a_csv_gives_points_by_number_and_leaves_the_others_out(tmp_path: Path) -> None:
    file = tmp_path / "points.csv"
    file.write_text("path,landmark,x,y,yaw\na.jpg,1,3,4,80\na.jpg,68,5,6,80\n")
    (found,) = read_csv(file)
    assert found.points[0].tolist() == [3, 4]
    assert found.points[67].tolist() == [5, 6]
    assert np.isnan(found.points[1:67]).all()
    assert found.yaw == 80
    assert found.path == tmp_path / "a.jpg"


def test_cells_that_are_empty_in_a_csv_are_not_known(tmp_path: Path) -> None:
    file = tmp_path / "points.csv"
    file.write_text("path,landmark,x,y,subject,scheme,view\na.jpg,1.0,3,4,,,\nb.jpg,2,3,4,7,cfp30,left\n")
    first, second = read_csv(file)
    assert (first.subject, first.scheme, first.view) == ("", "multipie68", "")
    assert first.points[0].tolist() == [3, 4]
    assert (second.subject, second.scheme, second.view) == ("7", "cfp30", "left")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("path,x,y\na,1,2\n", "lacks the columns landmark"),
        ("path,landmark,x,y\na,69,1,2\n", "outside its scheme"),
        ("path,landmark,x,y\na,1.5,1,2\n", "outside its scheme"),
        ("path,landmark,x,y\na,,1,2\na,1,1,2\n", "outside its scheme"),
        ("path,landmark,x,y\na,one,1,2\n", "cannot be read as CSV"),
        ("path,landmark,x,y\na,1,1,?\n", "cannot be read as CSV"),
    ],
)
def test_a_wrong_csv_is_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "points.csv").write_text(content)
    with pytest.raises(DataError, match=message):
        read_csv(tmp_path / "points.csv")
