"""Synthetic data sets: same seed, same bytes; read by the real protocols; truth that agrees with the pictures."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from pifr.errors import DataError
from pifr.geometry.face_model import load_face_model
from protocols.base import read_dataset
from protocols.cfp import Cfp
from protocols.landmark_data import read_cfp, read_csv, read_multipie
from protocols.landmarks import SCHEMES, landmark_errors
from protocols.multipie import MultiPie, Switches
from protocols.shape import ShapeOptions, ShapeScans
from protocols.synthetic import write_cfp, write_multipie, write_shape
from protocols.synthetic.layouts import _write_cfp_protocol
from protocols.synthetic.people import expression, sample_person
from protocols.synthetic.scene import Light, Scene, View, surface_landmarks


class _Plain:
    """Skins of one colour a person."""

    def sample(self, generator: torch.Generator, count: int) -> torch.Tensor:
        return torch.rand(count, 3, 1, 1, generator=generator).mul(0.5).add(0.3).expand(-1, -1, 32, 32)


def _digest(root: Path) -> dict[str, str]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def cfp_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("cfp") / "tree"
    write_cfp(root, 4, 11, textures=_Plain())
    return root


@pytest.fixture(scope="module")
def multipie_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("multipie") / "tree"
    write_multipie(root, 2, 11, cameras=("24_0", "11_0"), shots=("00", "07"), textures=_Plain())
    return root


def test_cfp_tree_is_accepted_by_the_cfp_protocol(cfp_tree: Path) -> None:
    protocol = Cfp(cfp_tree)
    assert protocol.validate() == []
    pairs = protocol.comparisons("FP")
    assert pairs.groupby(["fold", "same"]).size().tolist() == [14] * 4
    assert len(protocol.samples("FF")) <= 40


@pytest.mark.parametrize("seed", range(10))
def test_no_pair_of_a_synthetic_cfp_is_drawn_twice(tmp_path: Path, seed: int) -> None:
    _write_cfp_protocol(tmp_path, 4, seed)
    for file in tmp_path.glob("Split/*/*/*.txt"):
        lines = file.read_text().splitlines()
        assert len(set(lines)) == len(lines) == 14


def test_every_tree_says_that_it_is_synthetic(cfp_tree: Path, multipie_tree: Path) -> None:
    assert read_dataset(cfp_tree).synthetic
    assert read_dataset(multipie_tree).synthetic
    assert json.loads((cfp_tree / "dataset.json").read_text())["seed"] == 11


def test_same_seed_same_bytes_and_more_people_leave_the_first_ones_alone(multipie_tree: Path, tmp_path: Path) -> None:
    write_multipie(tmp_path / "one", 1, 11, cameras=("24_0", "11_0"), shots=("00", "07"), textures=_Plain())
    again, first = _digest(tmp_path / "one"), _digest(multipie_tree)
    del again["dataset.json"]
    assert again.items() <= first.items()
    write_multipie(tmp_path / "other", 1, 12, cameras=("24_0",), shots=("07",), textures=_Plain())
    other = _digest(tmp_path / "other")
    pictures = [name for name in other if name.endswith("_07.png") and name in again]
    assert pictures
    assert all(other[name] != again[name] for name in pictures)


def test_multipie_tree_is_read_by_the_multipie_protocol(multipie_tree: Path) -> None:
    images = MultiPie(multipie_tree, Switches(poses=(90,))).samples("1")
    assert images.groupby(["role", "camera"]).size().to_dict() == {
        ("probe", "11_0"): 4,
        ("probe", "24_0"): 4,
        ("reference", "05_1"): 2,
    }


def test_multipie_labels_hold_the_profile_scheme_with_the_nose_on_the_cameras_side(multipie_tree: Path) -> None:
    found = {truth.view: truth for truth in read_multipie(multipie_tree, multipie_tree / "labels")}
    assert {truth.scheme for truth in found.values()} == {"multipie39"}
    assert found["24_0"].side == "left"
    assert found["11_0"].side == "right"


def test_fiducials_and_landmarks_of_a_picture_agree(cfp_tree: Path) -> None:
    fiducials = {truth.sample: truth for truth in read_cfp(cfp_tree)}
    points = {str(Path(truth.sample).relative_to("../Data/Images")): truth for truth in
              read_csv(cfp_tree / "Truth" / "landmarks.csv")}  # fmt: skip
    assert len(fiducials) == 16
    assert len(points) == 56
    for sample, truth in fiducials.items():
        assert landmark_errors(points[sample].points, truth)["error"] < 0.01
        assert truth.side == ("left" if points[sample].yaw > 0 else "right")
    assert all(len(truth.points) == SCHEMES["multipie68"].count for truth in points.values())


def test_pncc_lies_within_the_mask_and_nowhere_else(cfp_tree: Path) -> None:
    for file in sorted((cfp_tree / "Truth" / "001").rglob("*_mask.png")):
        mask = cv2.imread(str(file), cv2.IMREAD_GRAYSCALE) > 0
        pncc = cv2.imread(str(file).replace("_mask", "_pncc"))
        assert (pncc[mask] > 0).all()
        assert (pncc[~mask] == 0).all()
        picture = cv2.imread(
            str(cfp_tree / "Data" / "Images" / file.relative_to(cfp_tree / "Truth")).replace("_mask.png", ".jpg")
        )
        assert picture.shape[:2] == mask.shape


def test_shape_tree_is_accepted_and_its_scan_is_the_persons_neutral_face(tmp_path: Path) -> None:
    write_shape(tmp_path / "tree", 1, 3, frames=2, textures=_Plain())
    protocol = ShapeScans(tmp_path / "tree", ShapeOptions(every=1))
    assert protocol.validate() == []
    person, model = sample_person(3, 0, _Plain()), load_face_model()
    np.testing.assert_allclose(protocol.scan("001").vertices, model.at_template(person.neutral), atol=1e-3)
    assert len(protocol.frames("001")) == 2


def test_a_folder_in_use_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(DataError, match="exists already"):
        write_cfp(tmp_path, 4, 1, textures=_Plain())
    assert (tmp_path / "mine.txt").read_text() == "keep"


def test_an_interrupted_tree_does_not_take_the_name(tmp_path: Path) -> None:
    asked = []

    def stop(done: int, total: int) -> None:
        asked.append((done, total))
        raise KeyboardInterrupt

    (tmp_path / ".tree.part-killed").mkdir()  # as a writer that was killed leaves it
    with pytest.raises(KeyboardInterrupt):
        write_shape(tmp_path / "tree", 2, 1, frames=1, textures=_Plain(), progress=stop)
    assert list(tmp_path.iterdir()) == []
    assert asked == [(1, 2)]


def test_a_tree_may_take_the_place_of_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    write_shape(tmp_path / "tree", 1, 1, frames=1, textures=_Plain())
    assert (tmp_path / "tree" / "dataset.json").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"cameras": ("99_9",)}, "no camera 99_9"),
        ({"cameras": ("07",)}, "no camera 07"),  # a shot is called so
        ({"shots": ("20",)}, "no shot 20"),
        ({"sessions": 5}, "sessions must be 1 to 4"),
    ],
)
def test_a_camera_or_shot_that_does_not_exist_is_named(tmp_path: Path, arguments: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        write_multipie(tmp_path / "tree", 1, 1, textures=_Plain(), **arguments)


@pytest.fixture(scope="module")
def scene() -> Scene:
    rng = np.random.default_rng(0)
    return Scene(sample_person(5, 0, _Plain()), expression("neutral", 0, rng))


def _view(yaw: float) -> View:
    return View(yaw, 0.0, 0.0, 0.6, (80.0, 80.0), 160, 160)


def test_the_nose_points_to_the_right_of_the_image_at_positive_yaw(scene: Scene) -> None:
    for yaw in (-60.0, 60.0):
        points = scene.truth(_view(yaw)).landmarks
        assert np.sign(points[30, 0] - points[36:48, 0].mean()) == np.sign(yaw)


def test_light_from_the_left_lights_the_left_half(scene: Scene) -> None:
    lit = scene.irradiance(Light((0.1, 0.1, 0.1), (((-1.0, 0.0, 0.3), (1.0, 1.0, 1.0)),)))
    (picture,), coverage = scene.draw(_view(0), [lit])
    assert picture[40:120, 40:78].sum() > 1.5 * picture[40:120, 82:120].sum()
    assert coverage.max() == 1


def test_what_hides_a_lamp_throws_a_shadow(scene: Scene) -> None:
    behind = scene.irradiance(Light((0.0, 0.0, 0.0), (((0.0, 0.0, -1.0), (1.0, 1.0, 1.0)),)))
    face = slice(0, len(load_face_model().template.vertices))
    assert behind[face].mean() < 0.02


def test_pncc_is_the_ncc_of_the_point_that_is_seen(scene: Scene) -> None:
    truth = scene.truth(_view(0))
    x, y = np.round(truth.landmarks[30]).astype(int)
    template = load_face_model().template
    tip = template.to_ncc(torch.from_numpy(load_face_model().mean[load_face_model().landmarks68[30]])).numpy()
    np.testing.assert_allclose((truth.pncc[y, x].astype(float) - 1) / 254, tip, atol=0.03)


def test_two_people_differ_in_shape_and_skin() -> None:
    first, second = (sample_person(5, index, _Plain()) for index in (0, 1))
    assert np.linalg.norm(first.neutral - second.neutral, axis=1).mean() > 1
    assert np.abs(first.texture - second.texture).mean() > 0.01


def test_landmarks_lie_near_the_face_models_own_vertices() -> None:
    model = load_face_model()
    distance = np.linalg.norm(surface_landmarks(model.at_template(model.mean)) - model.mean[model.landmarks68], axis=1)
    # The model's mark lids and lips; the template is closed over them.
    assert distance[17:].max() < 6
    assert np.median(distance) < 1.5
