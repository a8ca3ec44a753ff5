"""The shipped template and face model keep what docs/architecture.md promises."""

import json

import numpy as np
import pytest
import torch

from pifr.assets import ASSETS
from pifr.errors import UnknownNameError
from pifr.geometry.face_model import FaceModel, load_face_model, read_face_model
from pifr.geometry.template import LANDMARK_SETS, load_template, mirror_positions


@pytest.fixture(scope="module")
def template():
    return load_template()


def test_mirrored_vertices_lie_at_mirrored_uv(template):
    flipped = template.uv[template.mirror] * [-1, 1] + [1, 0]
    assert np.abs(flipped - template.uv).max() < 1e-6


def test_mirrored_vertices_lie_at_mirrored_positions(template):
    assert np.abs(template.vertices[template.mirror] * [-1, 1, 1] - template.vertices).max() < 1e-3


def test_no_triangle_is_flipped_or_flat(template):
    a, b, c = np.moveaxis(template.uv[template.triangles], 1, 0)
    area = (b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]
    assert (area < 0).all() or (area > 0).all()


@pytest.mark.parametrize("size", [64, 84, 128])
def test_position_map_is_its_own_mirror_image(template, size):
    positions = template.position_map(size)
    assert positions.shape == (3, size, size)
    assert torch.equal(positions, mirror_positions(positions))


def test_position_map_meets_the_mesh_at_its_vertices(template):
    size = 256
    positions = template.position_map(size).double()
    inner = np.flatnonzero((np.abs(template.uv - 0.5) < 0.48).all(1))
    grid = torch.from_numpy(template.uv[inner] * 2 - 1)[None, None]
    found = torch.nn.functional.grid_sample(positions[None], grid, align_corners=False)[0, :, 0].T.numpy()
    # Sampled bilinearly between pixel centres, the map cuts corners: half a millimetre at most on nearly all vertices.
    assert np.percentile(np.linalg.norm(found - template.vertices[inner], axis=1), 99) < 0.5


def test_ncc_of_a_point_leads_back_to_it(template):
    points = torch.from_numpy(template.vertices[::100])
    assert torch.allclose(template.from_ncc(template.to_ncc(points)), points, atol=1e-4)
    assert template.to_ncc(points).min() >= -1e-6
    assert template.to_ncc(points).max() <= 1 + 1e-6


def test_right_landmark_sets_mirror_the_left(template):
    for name in LANDMARK_SETS:
        if name.endswith("-left"):
            left, right = template.landmarks(name), template.landmarks(name.replace("-left", "-right"))
            assert torch.allclose(left[:, 1], right[:, 1], atol=0.01)
            assert torch.allclose(left[:, 0], 1 - right[:, 0], atol=0.01)


def test_five_landmarks_are_in_the_order_of_recognizers(template):
    left_eye, right_eye, nose, left_mouth, right_mouth = template.landmarks("five").tolist()
    assert left_eye[0] < nose[0] < right_eye[0]
    assert left_mouth[0] < nose[0] < right_mouth[0]
    assert left_eye[1] < nose[1] < left_mouth[1]


def test_an_unknown_landmark_set_names_the_known_ones(template):
    with pytest.raises(UnknownNameError, match="multipie68"):
        template.landmarks("ibug")


def test_the_shipped_template_is_what_the_sources_make(tmp_path):
    pytest.importorskip("igl", reason="building the template needs the training extra")
    from pifr.training.geometry_assets.template import build_template

    sources = ASSETS / "sources"
    out = tmp_path / "template.npz"
    build_template(sources / "template.ply", ASSETS / "face_model.npz", sources / "links.json", out)
    shipped, rebuilt = np.load(ASSETS / "template.npz"), np.load(out)
    assert set(shipped) == set(rebuilt)
    for key in ("triangles", "mirror"):
        assert np.array_equal(shipped[key], rebuilt[key])
    # Solvers differ in the last digits between processors, and a few nearest points with them.
    assert np.abs(shipped["vertices"] - rebuilt["vertices"]).max() < 0.05
    assert np.abs(shipped["uv"] - rebuilt["uv"]).max() < 1e-3
    assert np.abs(shipped["landmark_uv"] - rebuilt["landmark_uv"]).max() < 1e-3


def test_expression_modes_move_what_their_name_says():
    model = load_face_model()
    jaw = model.expression[model.expression_names.index("jawOpen")]
    chin, nose_bridge = model.landmarks68[8], model.landmarks68[27]
    assert jaw[chin, 1] < -10
    assert np.abs(jaw[nose_bridge]).max() < 0.5


def test_model_mean_and_template_mean_agree():
    model = load_face_model()
    apart = (model.position_map(model.mean, 64) - model.template.position_map(64)).norm(dim=0)
    assert apart.mean() < 0.1


def test_identity_maps_are_linear_in_the_mesh():
    model = load_face_model()
    coefficients = np.random.default_rng(0).normal(size=(2, 10)).astype(np.float32)
    through_mesh = model.position_map(model.vertices(coefficients), 32)
    through_maps = model.position_map(model.mean, 32) + torch.einsum(
        "bk,kcij->bcij", torch.from_numpy(coefficients), model.identity_maps(10, 32)
    )
    assert torch.allclose(through_mesh, through_maps, atol=1e-3)


def test_asking_for_too_many_modes_says_how_many_there_are():
    with pytest.raises(ValueError, match="50"):
        load_face_model().identity_maps(51, 32)


def test_a_face_model_file_with_wrong_shapes_is_refused_by_name(tmp_path):
    arrays = dict(np.load(ASSETS / "face_model.npz"))
    arrays["identity"] = arrays["identity"][:, :-1]
    path = tmp_path / "broken.npz"
    np.savez(path, **arrays)
    with pytest.raises(ValueError, match=r"broken\.npz.*identity has shape"):
        read_face_model(path, load_template())


def test_head_mesh_is_large_enough_to_cover_the_template():
    model: FaceModel = load_face_model()
    assert model.template.head_inside.sum() > 5000
    links = json.loads((ASSETS / "sources" / "links.json").read_text())
    assert len(links["facemesh"]) == len(set(links["facemesh"])) > 300
    assert max(links["head_vertex"]) < model.face_end
