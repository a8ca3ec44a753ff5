"""From photos to shards, on people that the face model draws."""

import json
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock, patch

import cv2
import numpy as np
import pandas as pd
import pytest
import torch

from pifr.detectors.face_mesh import FaceMeshLandmarks
from pifr.errors import ConfigError, DataError, MissingExtraError, UnknownNameError
from pifr.faces import FaceCrops, cut
from pifr.frontalized import POOR
from pifr.geometry.camera import rotation_from_angles
from pifr.geometry.face_model import load_face_model
from pifr.geometry.five_landmarks import five_of_68, nominal_landmarks
from pifr.support.files import file_sha256
from pifr.training import landmark_sources, pairs, registration
from pifr.training.heads import CANVAS, MASK_FRACTION, TexturedHead
from pifr.training.landmark_fit import PhotoFit, load_fitter
from pifr.training.landmark_sources import LANDMARK_SOURCES, CNetSource, FaceMeshSource
from pifr.training.pairs import RenderSettings, render
from pifr.training.registration import read_fit
from protocols.landmark_predictors import MediaPipeLandmarks
from protocols.synthetic.people import expression, sample_person
from protocols.synthetic.photography import photograph
from protocols.synthetic.scene import Scene, View

SCALE, CENTRE = 0.9, np.array([128.0, 120.0])
FACE_BOX = np.array([80.0, 70.0, 240.0, 250.0])
"""Of drawn people, in pictures of 320 x 320."""


def _project(points, rotation):
    turned = points @ rotation.T * SCALE
    return np.column_stack([turned[:, 0] + CENTRE[0], -turned[:, 1] + CENTRE[1]])


def _landmarks(identity, expression, angles, source="cnet"):
    """The linked landmarks, as a source places them when it errs as it does on the average."""
    fitter, model = load_fitter(source), load_face_model()
    vertices = model.vertices(identity, expression)[fitter.vertices] + fitter.noise.bias
    return _project(vertices, rotation_from_angles(torch.tensor([angles], dtype=torch.float64))[0].numpy())


def _fit_of(angles=(0.0, 0.0, 0.0), seed=0) -> PhotoFit:
    identity = 0.5 * np.random.default_rng(seed).normal(size=50)
    return load_fitter("cnet").fit(_landmarks(identity, np.zeros(57), angles))


def _portrait(seed: int) -> np.ndarray:
    """256 x 256 RGB noise, smooth enough to survive resampling."""
    noise = np.random.default_rng(seed).uniform(0, 255, (16, 16, 3)).astype(np.float32)
    return np.clip(cv2.resize(noise, (256, 256), interpolation=cv2.INTER_CUBIC), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("source", LANDMARK_SOURCES)
@pytest.mark.parametrize("angles", [(0.0, 0.0, 0.0), (30.0, -10.0, 5.0), (-35.0, 15.0, -12.0)])
def test_fit_recovers_pose_and_landmarks(angles, source):
    rng = np.random.default_rng(1)
    fit = load_fitter(source).fit(_landmarks(0.7 * rng.normal(size=50), np.zeros(57), angles, source))
    assert np.abs(np.array(fit.angles) - angles).max() < 2.5
    assert fit.residual_mm < 0.5


@pytest.mark.parametrize("source", LANDMARK_SOURCES)
def test_fit_recovers_shape_better_than_the_mean_face(source):
    model, rng = load_face_model(), np.random.default_rng(2)
    identity = rng.normal(size=50)
    fit = load_fitter(source).fit(_landmarks(identity, np.zeros(57), (12.0, 5.0, 0.0), source))
    truth = model.vertices(identity)[: model.face_end]
    fitted = model.vertices(fit.identity, fit.expression)[: model.face_end]
    mean = model.mean[: model.face_end]

    def rmse(shape):
        centred = shape - shape.mean(0), truth - truth.mean(0)
        return np.sqrt(((centred[0] - centred[1]) ** 2).sum(1).mean())

    assert rmse(fitted) < 0.7 * rmse(mean)


@pytest.mark.parametrize("source", LANDMARK_SOURCES)
def test_textured_head_lies_nearer_to_the_truth_than_its_landmarks(source):
    """Errors that landmarks share are told from the face; the rest moves the linked vertices."""
    fitter, rng = load_fitter(source), np.random.default_rng(3)
    truth = _project(load_face_model().mean[fitter.vertices], np.eye(3))
    points = _landmarks(np.zeros(50), np.zeros(57), (0, 0, 0), source)
    shared = np.tensordot(rng.normal(size=len(fitter.noise.modes)), fitter.noise.modes, 1)
    points += SCALE * shared * [1, -1] + rng.normal(0, 0.5, truth.shape)
    found = TexturedHead(_portrait(0), fitter.fit(points)).pixels[fitter.vertices, :2]
    before = np.linalg.norm(points - truth, axis=1).mean()
    assert np.linalg.norm(found - truth, axis=1).mean() < 0.8 * before


def test_a_render_at_the_photos_own_pose_shows_the_photo():
    photo = _portrait(4)
    head = TexturedHead(photo, _fit_of())
    own = head.photo_view()
    again = head.render(head.fit.angles, own.image)
    mask = cv2.erode((own.pncc.max(2) > 0).astype(np.uint8), np.ones((5, 5))) > 0
    assert np.abs(own.image[mask].astype(int) - again.image[mask]).mean() < 4


@pytest.mark.parametrize("yaw", [0.0, 45.0, -90.0])
def test_mask_fills_its_share_of_the_canvas(yaw):
    result = TexturedHead(_portrait(5), _fit_of()).render((yaw, 0, 0), np.zeros((CANVAS, CANVAS, 3), np.uint8))
    rows, columns = np.nonzero(result.pncc.max(2))
    side = max(np.ptp(rows), np.ptp(columns)) + 1
    assert abs(side - CANVAS * MASK_FRACTION) < 4
    assert abs((rows.min() + rows.max()) / 2 - CANVAS / 2) < 3


def test_a_profile_shows_only_its_own_side():
    """At yaw 90 the nose points right, so the image shows the face's image-left half: NCC x below the middle."""
    result = TexturedHead(_portrait(6), _fit_of()).render((90.0, 0, 0), np.zeros((CANVAS, CANVAS, 3), np.uint8))
    seen = result.pncc[result.pncc.max(2) > 0].astype(float)
    assert ((seen[:, 0] - 1) / 254 < 0.52).mean() > 0.98


def test_added_light_comes_from_the_side_that_is_named():
    head = TexturedHead(np.full((256, 256, 3), 120, np.uint8), _fit_of())
    black = np.zeros((CANVAS, CANVAS, 3), np.uint8)
    plain = head.render((0.0, 0.0, 0.0), black)
    face = cv2.erode((plain.pncc.max(2) > 0).astype(np.uint8), np.ones((9, 9))) > 0
    x, y = np.meshgrid(np.linspace(-1, 1, CANVAS), np.linspace(1, -1, CANVAS))  # right and up

    def gain(*direction: float) -> np.ndarray:
        lit = head.render((0.0, 0.0, 0.0), black, light=(np.array(direction), 0.5))
        return (lit.image[face].mean(1) / plain.image[face].mean(1)).astype(float)

    for towards, light, least in ((x[face], gain(1.0, 0.0, 0.0), 0.3), (y[face], gain(0.0, 1.0, 0.0), 0.05)):
        assert light[towards > 0.1].mean() > light[towards < -0.1].mean() + least
    assert gain(0.0, 0.0, 1.0).mean() > 1.05  # from the front
    assert gain(0.0, 0.0, -1.0).mean() < 0.7


def test_an_opened_mouth_is_dark_inside_and_no_part_of_the_face():
    model, head = load_face_model(), TexturedHead(np.full((256, 256, 3), 200, np.uint8), _fit_of())
    jaw = [model.expression_names.index("jawOpen")]
    offset = model.offset(np.zeros(50), [0.7], jaw)
    np.testing.assert_allclose(offset, model.vertices(np.zeros(50), 0.7 * np.eye(57)[jaw[0]]) - model.mean, atol=1e-4)
    background, mouth = np.full((CANVAS, CANVAS, 3), 255, np.uint8), np.full((2, 3), 20.0)
    opened = head.render((0.0, 0.0, 0.0), background, offset, mouth=mouth)
    face = (opened.pncc.max(2) > 0).astype(np.uint8)
    hole = (cv2.morphologyEx(face, cv2.MORPH_CLOSE, np.ones((25, 25))) > 0) & (opened.image.max(2) < 40)
    assert hole.sum() > 100
    assert face[hole].mean() < 0.05
    np.testing.assert_allclose(opened.vertices, head.vertices + offset, atol=1e-3)


def test_other_faces_are_another_persons_or_another_expression_about_half_of_the_time():
    head = TexturedHead(_portrait(8), _fit_of())
    offsets = [pairs._another_face(head, np.random.default_rng(seed))[0] for seed in range(60)]
    changed = [offset for offset in offsets if offset is not None]
    assert 40 <= len(changed) < 60  # 1 - 0.4 * 0.45 of them
    moved = [np.linalg.norm(offset, axis=1).mean() for offset in changed]
    assert max(moved) < 30  # mm: people, not monsters


def test_texture_of_a_frontal_photo_is_seen_almost_everywhere():
    texture, visibility = TexturedHead(_portrait(7), _fit_of()).texture()
    assert texture.shape == (128, 128, 3)
    assert texture.dtype == np.uint8
    assert (visibility[32:96, 32:96] > 128).mean() > 0.85


def test_nothing_aliases_however_large_the_photo_is(tmp_path):
    """Of noise a pixel wide, next to nothing is left where a photo shrinks to a tenth."""
    zoom, fit = 8, _fit_of()
    fit = replace(fit, scale=zoom * fit.scale, translation=zoom * fit.translation, residual=zoom * fit.residual)
    photo = np.random.default_rng(0).integers(0, 256, (2048, 2048, 3)).astype(np.uint8)
    cv2.imwrite(str(tmp_path / "other.png"), photo)
    head = TexturedHead(photo, fit)
    grey = np.full((CANVAS, CANVAS, 3), 128, np.uint8)
    turned = head.render((40.0, 0.0, 0.0), grey)
    texture, seen = head.texture()
    backgrounds = [
        pairs.draw_background(head, 40.0, tmp_path / "other.png", np.random.default_rng(seed)) for seed in range(6)
    ]
    left = [head.photo_view().image, turned.image[turned.pncc.max(2) > 0], texture[seen > 128], *backgrounds]
    assert max(pixels.reshape(-1, 3).std(0).max() for pixels in left) < 8  # of 74


def test_the_grid_has_every_yaw_once():
    with pytest.raises(ConfigError, match="19 yaws"):
        RenderSettings(views=12, grid=True)
    assert RenderSettings().views == 12
    settings, head = RenderSettings(grid=True), TexturedHead(_portrait(0), _fit_of())
    with patch.object(pairs, "draw_background", lambda *_: np.zeros((CANVAS, CANVAS, 3), np.uint8)):
        views = [pairs._draw_view(head, 0, view, Path(), ["a"], settings) for view in range(settings.views)]
    assert [view.yaw for view in views] == list(range(-90, 91, 10))


@pytest.fixture
def registered(tmp_path) -> tuple[Path, Path]:
    """Four "photos" of two sets and their registration."""
    photos, fits = tmp_path / "photos", tmp_path / "registration"
    fits.mkdir()
    rows = []
    for k in range(4):
        name = f"set{k % 2}/{k}.png"
        (photos / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(photos / name), _portrait(k))
        fit = _fit_of(seed=k)
        yaw, pitch, roll = fit.angles
        rows.append({
            "photo": name, "set": f"set{k % 2}", "status": "ok", "reason": "", "residual_mm": fit.residual_mm,
            "yaw": yaw, "pitch": pitch, "roll": roll, "identity": fit.identity, "expression": fit.expression,
            "scale": fit.scale, "rotation": fit.rotation.ravel(), "translation": fit.translation,
            "residual": fit.residual.ravel(), "sha256": file_sha256(photos / name),
        })  # fmt: skip
    pd.DataFrame(rows).to_parquet(fits / "registration.parquet")
    return photos, fits


def _render(photos, fits, out, **kwargs):
    return list(render(fits, photos, out, RenderSettings(views=2, seed=5), workers=1, **kwargs))


def test_a_fit_survives_the_table(registered):
    row = next(pd.read_parquet(registered[1] / "registration.parquet").itertuples())
    fit, expected = read_fit(row), _fit_of(seed=0)
    assert np.array_equal(fit.identity, expected.identity)
    assert np.allclose(fit.rotation, expected.rotation)
    assert np.array_equal(fit.residual, expected.residual)


def test_shards_hold_what_the_manifest_says_and_repeat_to_the_byte(registered, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    _render(*registered, first)
    _render(*registered, second)
    manifest = json.loads((first / "manifest.json").read_text())
    assert manifest["photos"] == 4
    assert manifest["shards"] == [{"name": "shard-0000", "pairs": 8}]
    for path in sorted(first.rglob("*.npy")):
        assert path.read_bytes() == (second / path.relative_to(first)).read_bytes(), path.name
    rows = pd.read_parquet(first / "shard-0000" / "pairs.parquet")
    assert rows["kind"].tolist() == ["photo", "render"] * 4
    assert len(np.load(first / "shard-0000" / "texture.npy")) == 4


def test_a_photo_that_was_replaced_is_not_drawn_by_the_old_fit(registered, tmp_path):
    cv2.imwrite(str(registered[0] / "set1" / "1.png"), _portrait(9))
    with pytest.raises(DataError, match=r"1\.png' is not the file that was registered"):
        _render(*registered, tmp_path / "out")


def test_a_registration_that_cannot_be_read_says_so(registered, tmp_path):
    file = registered[1] / "registration.parquet"
    pd.read_parquet(file).drop(columns="sha256").to_parquet(file)
    with pytest.raises(DataError, match="no column sha256: register the photos again"):
        _render(*registered, tmp_path / "out")
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(DataError, match="is not a Parquet table"):
        _render(*registered, tmp_path / "out")


@pytest.mark.parametrize("asked", [{"sets": ["set0", "sett1"]}, {"licences": {"sett1": "MIT"}}])
def test_a_set_that_is_not_there_is_named(registered, tmp_path, asked):
    with pytest.raises(DataError, match="has no photos of the set 'sett1'"):
        _render(*registered, tmp_path / "out", **asked)


def test_a_run_with_other_settings_refuses_the_folder(registered, tmp_path):
    _render(*registered, tmp_path / "out", sets=["set0"])
    with pytest.raises(DataError, match="another folder"):
        _render(*registered, tmp_path / "out")


def test_a_failing_disk_leaves_nothing_half_written(registered, tmp_path, monkeypatch):
    photos, fits = registered
    out = tmp_path / "out"
    out.mkdir()
    rows = pd.read_parquet(fits / "registration.parquet")

    def full(*_args):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(pairs, "write_whole", full)
        with pytest.raises(OSError, match="No space"):
            pairs._render_shard((photos, rows, rows["photo"].tolist(), out / "shard-0000", RenderSettings(2, 5)))
    assert list(out.iterdir()) == []
    assert _render(photos, fits, out) == [(1, 1)]


def _no_landmarks(*_args):
    raise AssertionError("a photo without a face reached the landmark source")


class _SeveralFaces:
    """A finder that meets two faces everywhere."""

    def __call__(self, images):
        return FaceCrops.failed(("several_faces",) * len(images))


class _NoFace:
    def __call__(self, images):
        return FaceCrops.failed(("no_face",) * len(images))


@pytest.mark.parametrize(
    ("content", "finder", "reason"),
    [
        (b"not an image", _NoFace(), "unreadable"),
        (b"", _NoFace(), "unreadable"),
        (cv2.imencode(".png", np.full((64, 64, 3), 200, np.uint8))[1].tobytes(), _NoFace(), "no_face"),
        (cv2.imencode(".png", np.full((64, 64, 3), 200, np.uint8))[1].tobytes(), _SeveralFaces(), "several_faces"),
    ],
    ids=["text", "empty", "no face", "two faces"],
)
def test_a_photo_that_cannot_be_used_is_rejected_with_a_reason(tmp_path, content, finder, reason):
    path = tmp_path / "photo.png"
    path.write_bytes(content)
    row = registration._register_photo(path, Path("set/photo.png"), _no_landmarks, finder)
    assert row["status"] == "rejected"
    assert row["reason"] == reason
    assert row["set"] == "set"


class _Found:
    """A finder that meets a face everywhere."""

    def __call__(self, images):
        return cut(images[0], np.array([60.0, 50.0, 196.0, 200.0]), nominal_landmarks().numpy())


def test_without_its_runtime_face_mesh_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
    for make in (FaceMeshSource, MediaPipeLandmarks):
        with pytest.raises(MissingExtraError, match=r"needs the package 'ai_edge_litert': pip install '\.\[train\]'"):
            make(Path("any.tflite"))


def test_a_drawing_is_rejected_by_the_landmark_networks_doubt(monkeypatch):
    """Face Mesh answers on anything; its presence logit says when it does not believe in a face."""

    class Doubtful:
        fingerprint = "doubtful"

        def __init__(self, _model):
            pass

        def from_five_points(self, *_args):
            return FaceMeshLandmarks(np.zeros((468, 3), np.float32), presence=-4.0)

    monkeypatch.setattr(landmark_sources, "FaceMesh", Doubtful)
    row = registration.register_image(_portrait(0), FaceMeshSource(Path("any.tflite")), _Found())
    assert (row["status"], row["reason"]) == ("rejected", "not_a_face")


@pytest.mark.parametrize(
    ("yaw", "identity", "jitter", "moved", "reason"),
    [
        (20.0, 1.0, 0.0, 0.0, ""),
        (60.0, 1.0, 0.0, 0.0, "profile"),
        (20.0, 1.0, 0.0, 30.0, "landmarks_disagree"),
        (20.0, 9.0, 0.0, 0.0, "unlikely_shape"),
        (20.0, 1.0, 12.0, 0.0, "poor_fit"),
    ],
)
def test_a_fit_is_kept_only_within_every_limit(yaw, identity, jitter, moved, reason):
    model = load_face_model()
    coefficients = np.zeros(50, np.float32)
    coefficients[0] = identity
    rotation = rotation_from_angles(torch.tensor([[yaw, 0.0, 0.0]]))[0].numpy()
    fit = PhotoFit(coefficients, np.zeros(57, np.float32), 1.0, rotation, np.full(2, 128.0), np.zeros((0, 2)))
    vertices = model.vertices(coefficients, fit.expression)
    linked = fit.project(vertices[landmark_sources.load_links()[1]])[:, :2]
    five = five_of_68(fit.project(vertices[model.landmarks68])[:, :2])

    class Source:
        name = "cnet"

        def __call__(self, image, face):
            noise = np.random.default_rng(0).normal(0, 1, linked.shape)
            return landmark_sources.FoundLandmarks(linked + jitter * noise)

    def finder(images):
        return cut(images[0], np.array([40.0, 30.0, 216.0, 226.0]), (five + [moved, 0]).astype(np.float32))

    row = registration.register_image(np.zeros((256, 256, 3), np.uint8), Source(), finder)
    assert (row["status"], row["reason"]) == ("rejected" if reason else "ok", reason)


def test_what_c_net_finds_no_face_in_is_rejected_with_its_reason():
    row = registration.register_image(np.full((256, 256, 3), 90, np.uint8), CNetSource(), _Found())
    assert row["status"] == "rejected"
    assert row["reason"] in POOR


@pytest.mark.parametrize("roll", [0.0, 20.0])
def test_c_net_finds_the_linked_vertices_of_a_drawn_person(roll):
    rng, vertices = np.random.default_rng(5), landmark_sources.load_links()[1]
    person, mood = sample_person(7, 3), expression("neutral", 0.5, rng)
    scene, view = Scene(person, mood), View(12.0, 5.0, roll, 1.0, (160.0, 160.0), 320, 320)
    picture = photograph(scene, view, rng)
    found = CNetSource()(picture, cut(picture, FACE_BOX))
    truth = scene.place(person.with_expression(mood)[vertices], view)[:, :2]
    assert found.reason == ""
    assert np.linalg.norm(found.points - truth, axis=1).mean() < 3.5  # pixels, which are millimetres here


def test_a_registration_by_other_landmarks_or_of_changed_photos_is_not_gone_on_with(tmp_path, monkeypatch):
    class Source:
        fingerprint = "one"

    class Yunet:
        def fetch(self):
            pass

    monkeypatch.setattr(registration, "load_landmark_source", lambda name: Source())
    monkeypatch.setattr(registration, "find_weights", lambda name: Yunet())
    monkeypatch.setattr(registration, "_face_finder", Source)
    monkeypatch.setattr(registration, "ProcessPoolExecutor", lambda *arguments: nullcontext(Mock(map=lambda *_: [])))
    cv2.imwrite(str(tmp_path / "a.png"), _portrait(0))
    with pytest.raises(DataError, match="part-0000"):  # no process has written it
        list(registration.register(tmp_path, tmp_path / "out"))
    (tmp_path / "a.png").write_bytes(b"another photo")
    with pytest.raises(DataError, match="with other photos_sha256"):
        list(registration.register(tmp_path, tmp_path / "out"))
    Source.fingerprint = "two"
    with pytest.raises(DataError, match="other faces, landmarks"):
        list(registration.register(tmp_path, tmp_path / "out"))


def test_photos_without_any_face_are_no_registration(tmp_path, monkeypatch):
    class Source:
        fingerprint = "one"

    class Here:
        """Registers in this process."""

        map = staticmethod(lambda function, tasks: [function(task) for task in tasks])

    monkeypatch.setattr(registration, "load_landmark_source", lambda name: Source())
    monkeypatch.setattr(registration, "find_weights", lambda name: Mock())
    monkeypatch.setattr(registration, "_face_finder", lambda: _NoFace())
    monkeypatch.setattr(_NoFace, "fingerprint", "none", raising=False)
    monkeypatch.setattr(registration, "ProcessPoolExecutor", lambda *arguments: nullcontext(Here()))
    for name in ("a", "b"):
        cv2.imwrite(str(tmp_path / f"{name}.png"), _portrait(0))
    (tmp_path / "c.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"no face could be fitted: 0 of 3 photos, rejected: no_face 2, unreadable 1"):
        list(registration.register(tmp_path, tmp_path / "out"))


def test_a_registration_is_summed_up_in_a_line():
    table = pd.DataFrame({"status": ["ok"] * 1500 + ["rejected"] * 3, "reason": [""] * 1500 + ["b", "a", "b"]})
    assert registration.summary(table) == "1,500 of 1,503 photos, rejected: b 2, a 1"
    assert registration.summary(table[:1500]) == "1,500 of 1,500 photos"


def test_an_unknown_landmark_source_is_refused_before_any_photo_is_read(tmp_path):
    with pytest.raises(UnknownNameError, match="cnet"):
        next(registration.register(tmp_path, tmp_path / "out", landmarks="c-net"))


def test_an_empty_folder_says_what_it_lacks(tmp_path):
    with pytest.raises(DataError, match="no photos"):
        registration.find_photos(tmp_path)


def test_added_light_of_training_views_comes_from_the_front(monkeypatch):
    monkeypatch.setattr(pairs, "draw_background", lambda *a: None)
    monkeypatch.setattr(pairs, "_another_face", lambda *a: (None, False))
    head = SimpleNamespace(render=lambda angles, background, offset, hair, light, mouth: light)
    drawn = [pairs._draw_view(head, photo, 1, Path(), ["x"], pairs.RenderSettings()) for photo in range(60)]
    directions = np.array([light[0] for light in drawn if light])
    assert 20 < len(directions) < 50  # of 36 that are expected
    np.testing.assert_allclose(np.linalg.norm(directions, axis=1), 1)
    assert directions[:, 2].min() > 0
    assert directions[:, :2].min() < 0 < directions[:, :2].max()


@pytest.mark.parametrize("yaw", [-60.0, 60.0])
def test_the_own_background_trails_behind_a_turned_head(yaw):
    photo = np.zeros((256, 256, 3), np.uint8)
    photo[:, 124:132] = 255  # where the head is
    head = SimpleNamespace(smooth=photo, face_box=lambda: (np.array([127.5, 127.5]), 110.0))
    nose = rotation_from_angles(torch.tensor([[yaw, 0.0, 0.0]]))[0, 0, 2].item()
    seeds = [seed for seed in range(20) if np.random.default_rng(seed).random() > 0.5]  # those that show it
    for seed in seeds:
        background = pairs.draw_background(head, yaw, Path(), np.random.default_rng(seed))
        middle = background[:, CANVAS // 4 : -CANVAS // 4, 0].mean(0)  # beside it the photo may be reflected
        place = middle.argmax() - (len(middle) - 1) / 2
        assert place * nose < -0.1 * CANVAS


def test_every_view_of_every_photo_is_drawn_anew(monkeypatch):
    monkeypatch.setattr(pairs, "draw_background", lambda *a: None)
    monkeypatch.setattr(pairs, "_another_face", lambda *a: (None, False))
    head = SimpleNamespace(render=lambda angles, *rest: angles)

    def angles(photo=0, view=1, seed=1):
        return pairs._draw_view(head, photo, view, Path(), ["x"], pairs.RenderSettings(seed=seed))

    assert angles() == angles()
    assert len({angles(), angles(photo=1), angles(view=2), angles(seed=2)}) == 4


def test_expressions_stay_within_the_models_range(monkeypatch):
    names, steps = load_face_model().expression_names, []
    fake = SimpleNamespace(expression_names=names, offset=lambda identity, step, changed: steps.append(step))
    monkeypatch.setattr(pairs, "load_face_model", lambda: fake)
    head = SimpleNamespace(fit=SimpleNamespace(identity=np.zeros(40), expression=np.full(len(names), 0.9)))
    for seed in range(30):
        pairs._another_face(head, np.random.default_rng(seed))
    assert max(step.max() for step in steps if len(step)) <= 0.1 + 1e-6
