"""Detectors report faces in the image's own pixels; a landmark file is checked before it is used."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from pifr._torchvision import ensure_operators, nms
from pifr.detectors import LandmarkFile, load_detector
from pifr.errors import DataError, UnknownNameError, WeightsError
from pifr.faces import ARCFACE_112, FaceFinder, align

POINTS = [[30, 40], [70, 41], [50, 60], [35, 80], [65, 81]]


def landmark_file(folder: Path, *lines: str, header: str | None = None) -> Path:
    path = folder / "landmarks.csv"
    path.write_text("\n".join([header or ",".join(LandmarkFile.COLUMNS), *lines]) + "\n", encoding="utf-8")
    return path


def line(name: str, points: list[list[float]] = POINTS) -> str:
    return ",".join([name, *(str(value) for point in points for value in point)])


# Landmark files


def test_landmarks_come_from_the_file_with_a_box_around_them(tmp_path: Path) -> None:
    detector = load_detector(f"file:{landmark_file(tmp_path, line('a.jpg'))}")
    for name in ("a.jpg", tmp_path / "a.jpg", tmp_path / "x" / ".." / "a.jpg"):
        found = detector(np.zeros((100, 100, 3), np.uint8), name)
        np.testing.assert_array_equal(found.landmarks, [POINTS])
        left, top, right, bottom = found.boxes[0]
        assert right - left == bottom - top == pytest.approx(41 * 2.7)
        assert ((left + right) / 2, (top + bottom) / 2) == (50, 60.5)


def test_an_image_that_the_file_does_not_know_has_no_landmarks(tmp_path: Path) -> None:
    finder = FaceFinder(f"file:{landmark_file(tmp_path, line('a.jpg'), 'b.jpg' + ',' * 10)}")
    image = np.zeros((100, 100, 3), np.uint8)
    faces = finder([image] * 3, names=["b.jpg", "c.jpg", "a.jpg"])
    assert faces.reason == ("no_landmarks", "no_landmarks", "")


def test_two_lines_for_an_image_are_two_faces(tmp_path: Path) -> None:
    file = landmark_file(tmp_path, line("a.jpg"), line("a.jpg", [[x + 100, y] for x, y in POINTS]))
    image = np.zeros((100, 200, 3), np.uint8)
    assert FaceFinder(f"file:{file}", "reject")([image], ["a.jpg"]).reason == ("several_faces",)


@pytest.mark.parametrize(
    "lines, header, words",
    [
        ((line("a.jpg"),), "path,x1,y1", "lacks the columns x2"),
        (("a.jpg,1,2,3",), None, "line 2: ten numbers"),
        ((line("a.jpg"), line("b.jpg").replace("41", "left")), None, "line 3: ten numbers"),
        ((line("a.jpg").replace("41", "nan"),), None, "line 2: a coordinate is not finite"),
    ],
)
def test_a_malformed_landmark_file_names_the_line(
    lines: tuple[str, ...], header: str | None, words: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=words):
        LandmarkFile(landmark_file(tmp_path, *lines, header=header))


def test_a_missing_landmark_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.csv"):
        LandmarkFile(tmp_path / "none.csv")


def test_the_fingerprint_of_a_landmark_file_is_its_content(tmp_path: Path) -> None:
    first = LandmarkFile(landmark_file(tmp_path, line("a.jpg"))).fingerprint
    assert LandmarkFile(landmark_file(tmp_path, line("b.jpg"))).fingerprint != first
    assert LandmarkFile(landmark_file(tmp_path, line("a.jpg"))).fingerprint == first


def test_landmarks_that_a_misplaced_file_did_not_find_are_looked_for_again(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    first = LandmarkFile(landmark_file(tmp_path / "elsewhere", line("a.jpg")))
    assert LandmarkFile(landmark_file(tmp_path, line("a.jpg"))).fingerprint != first.fingerprint


# Aligned crops


def smooth(height: int, width: int) -> np.ndarray:
    noise = np.random.default_rng(0).uniform(0, 255, (8, 8, 3)).astype(np.float32)
    return np.clip(cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC), 0, 255).astype(np.uint8)


def test_an_aligned_image_is_one_face_at_the_templates_points() -> None:
    found = load_detector("aligned")(smooth(224, 224))
    assert [len(part) for part in found] == [1, 1, 1]
    np.testing.assert_allclose((found.landmarks[0] + 0.5) / 2 - 0.5, ARCFACE_112.points)


@pytest.mark.parametrize("size", [112, 224])
def test_an_aligned_image_reaches_the_recognizer_as_it_is(size: int) -> None:
    image = smooth(size, size)
    faces = FaceFinder("aligned")([image])
    seen = align(faces.pixels, faces.landmarks, ARCFACE_112, size, faces.extent)[0].permute(1, 2, 0).numpy() * 255
    assert faces.status == ("ok",)
    inner = slice(4, -4)  # beyond the image it is black, which blends in at its edge
    assert np.abs(seen - image)[inner, inner].max() < 5


def test_a_narrow_aligned_image_is_the_middle_of_the_square() -> None:
    square = smooth(112, 112)
    narrow, wide = (load_detector("aligned")(image) for image in (square[:, 8:-8], square))
    np.testing.assert_allclose(narrow.landmarks + [8, 0], wide.landmarks)


# Networks


def test_an_unknown_detector_says_which_there_are() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'yunet'"):
        load_detector("yunnet")


def test_a_detector_without_its_weights_says_what_to_type(pifr_home: Path) -> None:
    with pytest.raises(WeightsError, match="pifr models fetch yunet"):
        load_detector("yunet")


@pytest.mark.parametrize("name", ["yunet", "mtcnn"])
@pytest.mark.parametrize("shape", [(1, 1), (7, 300), (240, 320)])
def test_an_image_without_a_face_gives_no_detection(
    name: str, shape: tuple[int, int], fetched: Callable[[str], Path]
) -> None:
    fetched("yunet")
    found = load_detector(name)(np.full((*shape, 3), 128, np.uint8))
    assert [len(part) for part in found] == [0, 0, 0]


# The operator that stands in for torchvision's


def nms_by_definition(boxes: np.ndarray, scores: np.ndarray, threshold: float) -> list[int]:
    def overlap(a: np.ndarray, b: np.ndarray) -> float:
        width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
        height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
        areas = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
        return width * height / (areas - width * height)

    kept: list[int] = []
    for i in sorted(range(len(boxes)), key=lambda i: -scores[i]):
        if all(overlap(boxes[i], boxes[j]) <= threshold for j in kept):
            kept.append(i)
    return kept


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7])
def test_non_maximum_suppression_is_greedy_by_score(seed: int, threshold: float) -> None:
    rng = np.random.default_rng(seed)
    corner, side = rng.uniform(0, 60, (80, 2)), rng.uniform(5, 40, (80, 2))
    boxes, scores = np.concatenate([corner, corner + side], 1), rng.permutation(80) / 80
    kept = nms(torch.from_numpy(boxes), torch.from_numpy(scores), threshold)
    assert kept.tolist() == nms_by_definition(boxes, scores, threshold)


def test_no_boxes_are_suppressed_to_none() -> None:
    assert nms(torch.zeros(0, 4), torch.zeros(0), 0.5).tolist() == []


def test_torchvision_can_be_used_after_the_bridge() -> None:
    ensure_operators()
    ensure_operators()
    import torchvision

    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [1.0, 1.0, 10.0, 10.0], [20.0, 20.0, 30.0, 30.0]])
    scores = torch.tensor([0.5, 0.9, 0.3])
    assert torchvision.ops.nms(boxes, scores, 0.5).tolist() == [1, 2]
    assert torchvision.ops.batched_nms(boxes, scores, torch.tensor([0, 1, 0]), 0.5).tolist() == [1, 0, 2]
