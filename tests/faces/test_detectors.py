"""Detectors report faces in the image's own pixels; a landmark file is checked before it is used."""

import copy
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from pifr.detectors import LandmarkFile, load_detector
from pifr.errors import DataError, UnknownNameError, WeightsError
from pifr.faces import ARCFACE_112, FaceFinder, align
from pifr.support.torchvision_operators import ensure_operators, nms
from pifr.zoo import WheelMember
from protocols.synthetic.people import expression, sample_person
from protocols.synthetic.photography import photograph
from protocols.synthetic.scene import Scene, View

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
        (("a.jpg" + ",-1" * 10,), None, "line 2: all landmarks lie in one pixel"),
        ((line("a.jpg", [POINTS[k] for k in (1, 0, 2, 4, 3)]),), None, "line 2: left and right are exchanged"),
        ((line(""),), None, "line 2: the path is missing"),
        ((line("1").removeprefix("1,"),), ",".join([*LandmarkFile.COLUMNS[1:], "path"]), "line 2: the path is missing"),
    ],
)
def test_a_malformed_landmark_file_names_the_line(
    lines: tuple[str, ...], header: str | None, words: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=words):
        LandmarkFile(landmark_file(tmp_path, *lines, header=header))


def test_landmarks_that_no_face_of_the_image_can_have_are_none(tmp_path: Path) -> None:
    """The square around these would take 80 terabytes."""
    file = landmark_file(tmp_path, line("a.jpg").replace("41", "1000000"), line("b.jpg"))
    image = np.zeros((100, 100, 3), np.uint8)
    assert FaceFinder(f"file:{file}")([image] * 2, ["a.jpg", "b.jpg"]).reason == ("no_landmarks", "")


def test_a_missing_landmark_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.csv"):
        LandmarkFile(tmp_path / "none.csv")


def test_the_fingerprint_of_a_landmark_file_is_its_content(tmp_path: Path) -> None:
    first = LandmarkFile(landmark_file(tmp_path, line("a.jpg"))).fingerprint
    assert LandmarkFile(landmark_file(tmp_path, line("b.jpg"))).fingerprint != first
    assert LandmarkFile(landmark_file(tmp_path, line("a.jpg"))).fingerprint == first


def test_files_that_are_named_from_the_working_directory_are_found_in_a_landmark_file_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").mkdir()
    cv2.imwrite(str(tmp_path / "data" / "a.png"), np.zeros((200, 200, 3), np.uint8))
    landmark_file(tmp_path / "data", line("a.png"))
    monkeypatch.chdir(tmp_path)
    (csv,) = Path("data").glob("*.csv")
    finder = FaceFinder(f"file:{csv}")
    assert finder(["data/a.png"]).status == ("ok",)
    assert len(finder.every_face(Path("data/a.png"))) == 1


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
    seen = align(faces.pixels, faces.landmarks, ARCFACE_112, size, faces.edges)[0].permute(1, 2, 0).numpy() * 255
    assert faces.status == ("ok",)
    if size == 112:
        assert np.abs(seen - image).max() < 0.1
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


def test_no_face_of_a_crowd_is_lost(fetched: Callable[[str], Path]) -> None:
    fetched("yunet")
    person = photograph(
        Scene(sample_person(3, 1), expression("neutral", 0.5, np.random.default_rng(1))),
        View(0.0, 0.0, 0.0, 0.34, (40.0, 40.0), 80, 80),
        np.random.default_rng(1),
    )
    found = load_detector("yunet")(np.tile(person, (8, 10, 1)), every=True)
    assert len(found.scores) == 80


# How MTCNN looks at a photo


class SeesLarge:
    """Stands for MTCNN's network: finds one face, at the middle, in views of a longer side of at least `least`."""

    min_face_size, least = 40, 0

    def __init__(self) -> None:
        self.views: list[int] = []

    def detect(self, view: np.ndarray, landmarks: bool) -> tuple[np.ndarray | None, ...]:
        self.views.append(max(view.shape))
        if self.views[-1] < self.least:
            return None, None, None
        middle = (np.array(view.shape[1::-1]) - 1) / 2
        half = self.views[-1] / 20
        return np.array([[*(middle - half), *(middle + half)]]), np.ones(1), middle + np.zeros((1, 5, 2))


@pytest.mark.parametrize(
    "every, least, width, views",
    [
        (False, 0, 1000, [480]),
        (False, 1000, 1000, [480, 1400]),
        (True, 0, 1000, [480, 1400]),
        (True, 0, 3000, [480, 2000]),
        (True, 0, 200, [280]),
        (False, 9999, 200, [280]),
    ],
)
def test_small_faces_are_looked_for_at_the_photos_own_scale(every, least, width, views) -> None:
    detector = load_detector("mtcnn")
    detector._network = network = SeesLarge()
    network.least = least
    found = detector(np.zeros((width // 2, width, 3), np.uint8), every=every)
    assert network.views == views
    if least < 9999:
        np.testing.assert_allclose(found.landmarks[0, 0], [(width - 1) / 2, (width / 2 - 1) / 2], atol=2)
        assert found.boxes[0, 2] - found.boxes[0, 0] == pytest.approx(0.14 * width, rel=0.02)


# How YuNet looks at a photo


class Painted:
    """Stands for YuNet's network: sees the face that `photo` paints, of some size and roll.

    A red, a green and a blue dot are its eyes and its mouth. Larger and smaller faces than `sizes`, and heads that are
    rolled further than `roll`, are not seen; `level_below` this size their landmarks are level.
    """

    sizes, roll, level_below, score = (40, 250), 40.0, 100.0, 0.9

    def __init__(self) -> None:
        self.views: list[tuple[int, int]] = []

    def setInputSize(self, size: tuple[int, int]) -> None:
        self.size = tuple(size)

    def detect(self, view: np.ndarray) -> tuple[int, np.ndarray | None]:
        assert view.shape[1::-1] == self.size
        self.views.append(self.size)
        dots = []
        for channel in (2, 1, 0):
            others = view.astype(int).sum(2) - view[..., channel]
            y, x = np.nonzero((view[..., channel] > 120) & (others < 100))
            if not len(x):
                return 0, None
            dots.append([x.mean() + 0.5, y.mean() + 0.5])
        right, left, mouth = np.array(dots)
        side = 2.7 * np.linalg.norm(left - right)
        roll = np.degrees(np.arctan2(*(left - right)[::-1]))
        if not self.sizes[0] < side < self.sizes[1] or abs(roll) > self.roll:
            return 0, None
        landmarks = face_points(np.mean([right, left, mouth], 0), side / 2.7, roll if side > self.level_below else 0.0)
        centre = landmarks.mean(0)
        row = [*(centre - side / 2), side, side, *landmarks.ravel(), self.score]
        return 1, np.array([row], np.float32)


def face_points(middle: np.ndarray, eyes: float, roll: float) -> np.ndarray:
    """Five landmarks of a face as the mean face has them, 5 x 2, around the middle of eyes and mouth."""
    level = np.array([[-32.9, -30.8], [32.9, -30.8], [0, 0], [-25.5, 39.1], [25.5, 39.1]]) * eyes / 65.8
    cosine, sine = np.cos(np.radians(roll)), np.sin(np.radians(roll))
    return middle + (level - level[[0, 1, 3]].mean(0) * [0, 1]) @ np.array([[cosine, sine], [-sine, cosine]])


def photo(size: tuple[int, int], middle: tuple[float, float], eyes: float, roll: float = 0.0) -> np.ndarray:
    image = np.full((*size[::-1], 3), 30, np.uint8)
    right, left, _, *mouth = face_points(np.array(middle), eyes, roll)
    for place, colour in ((right, (255, 0, 0)), (left, (0, 255, 0)), (np.mean(mouth, 0), (0, 0, 255))):
        cv2.circle(image, [round(x * 16) for x in place], round(eyes / 5 * 16), colour, -1, cv2.LINE_AA, 4)
    return image


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Painted:
    painted = Painted()
    monkeypatch.setattr(WheelMember, "path", lambda weights: tmp_path)
    monkeypatch.setattr(cv2.FaceDetectorYN, "create", lambda *arguments: painted)
    return painted


@pytest.mark.parametrize(
    "size, middle, eyes",
    [
        ((300, 300), (150, 150), 80),
        ((1200, 900), (300, 600), 24),
        ((3000, 2000), (2500, 300), 90),
        ((60, 70), (30, 35), 16),
    ],
)
def test_faces_of_any_size_are_found_where_they_are(network, size, middle, eyes) -> None:
    found = load_detector("yunet")(photo(size, middle, eyes))
    points = face_points(np.array(middle), eyes, 0)
    np.testing.assert_allclose(found.landmarks[0], points, atol=eyes / 15)
    left, top, right, bottom = found.boxes[0]
    assert right - left == pytest.approx(2.7 * eyes, rel=0.05)
    np.testing.assert_allclose([(left + right) / 2, (top + bottom) / 2], points.mean(0), atol=eyes / 15)
    assert len(found.boxes) == 1


@pytest.mark.parametrize("roll", [-125.0, -90.0, -50.0, -20.0, 35.0, 60.0, 110.0])
def test_the_landmarks_of_rolled_heads_follow_their_roll(network, roll) -> None:
    found = load_detector("yunet")(photo((640, 480), (300, 250), 40, roll))
    np.testing.assert_allclose(found.landmarks[0], face_points(np.array([300, 250]), 40, roll), atol=3)


def test_a_face_that_is_found_for_sure_is_not_looked_for_any_further(network) -> None:
    image = photo((640, 480), (300, 250), 150)
    for detector, score, looks in (("yunet", 0.9, 1), ("yunet-close", 0.9, 2), ("yunet", 0.6, 12)):
        network.score = score
        network.views.clear()
        load_detector(detector)(image)
        assert len(network.views) == looks


def test_every_scale_is_looked_at_where_all_faces_are_asked_for(network) -> None:
    """In 640 x 480 pixels that is three."""
    found = load_detector("yunet")(photo((640, 480), (300, 250), 150), every=True)
    assert len(network.views) == 3
    assert len(found.boxes) == 1


def test_a_detector_can_be_copied_and_shared_by_threads(network) -> None:
    """OpenCV's network is told the size of a view before it looks: no other thread may come between."""
    detector = copy.deepcopy(load_detector("yunet"))
    images = [photo((640, 480), (300, 250), 150), photo((300, 300), (150, 150), 80)] * 20
    alone = [detector(image).boxes for image in images]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda image: detector(image).boxes, images))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_doubtful_face_beside_a_sure_one_is_dropped(network, monkeypatch) -> None:
    detector = load_detector("yunet")
    image = np.zeros((200, 400, 3), np.uint8)
    for doubtful, count in ((0.8, 2), (0.6, 1)):
        rows = np.zeros((2, 15), np.float32)
        for row, x, score in zip(rows, (60, 140), (0.9, doubtful), strict=True):
            row[:4] = x, 60, 40, 40
            row[4:14] = face_points(np.array([x + 20, 80]), 15, 0).ravel()
            row[14] = score
        monkeypatch.setattr(network, "detect", lambda view, rows=rows: (1, rows if min(view.shape[:2]) < 300 else None))
        found = detector(image)
        assert len(found.scores) == count
        assert found.scores[0] == pytest.approx(0.9)


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
