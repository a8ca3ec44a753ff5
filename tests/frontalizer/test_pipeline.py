"""From painted faces at known poses to known textures, landmarks and frontal renderings."""

import weakref
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn import functional

from pifr import frontalizer as frontalizer_module
from pifr.errors import UnknownNameError
from pifr.faces import ARCFACE_112, FaceCrops
from pifr.frontal_views import AlignViews, Renderings, SrtcViews, ViewWeights
from pifr.frontalized import POOR, FrontalizedFaces
from pifr.frontalizer import Frontalizer, FrontalizerConfig
from pifr.geometry import warp
from pifr.geometry.camera import camera_from_angles
from pifr.geometry.framing import resized_to
from pifr.geometry.template import load_template
from pifr.geometry.warp import pixel_grid
from pifr.locator import FaceLocator
from pifr.networks.pncc import PnccPrediction
from pifr.networks.pretrained import Pretrained
from pifr.person_shape import PersonShapeReader
from pifr.views import LocatingViewMaker

from .conftest import SCALE, PaintReader, faces_of, painted_faces, photo_edges

YAW = [-80.0, -60.0, -30.0, 0.0, 45.0, 75.0]


@pytest.fixture(scope="module")
def faces() -> FaceCrops:
    return painted_faces(YAW)


def test_the_pose_of_a_painted_face_is_found(locator, faces):
    located = locator(faces)
    assert located.status == ("ok",) * len(YAW)
    torch.testing.assert_close(located.yaw, torch.tensor(YAW), atol=2.5, rtol=0)
    torch.testing.assert_close(located.camera.scale, torch.full((len(YAW),), SCALE), atol=0.02, rtol=0)


def test_visible_texture_is_the_paint(locator, faces):
    located = locator(faces)
    error = (located.uv_partial - load_template().ncc_map(128)).abs().amax(1, keepdim=True)
    assert error[located.visibility > 0.7].quantile(0.95) < 0.04


def test_nothing_is_visible_beyond_the_photo(locator, faces):
    whole = locator(faces)
    cut = locator(replace(faces, edges=photo_edges(0.0, 100.0, 255.0, 255.0, len(YAW))))
    beyond = cut.image_map[:, 1:] < 99
    assert (cut.visibility[beyond] == 0).all()
    assert (whole.visibility[beyond] > 0.5).float().mean() > 0.1
    inside = cut.image_map[:, 1:] > 101
    torch.testing.assert_close(cut.visibility[inside], whole.visibility[inside])


def test_less_is_visible_of_a_face_that_is_turned_further(locator):
    fraction = locator(painted_faces([0.0, 30.0, 60.0, 85.0])).visible_fraction
    assert (fraction.diff() < -0.02).all()
    assert fraction[0] > 0.6
    assert 0.3 < fraction[3] < 0.55


def test_hidden_landmarks_lie_where_the_hidden_points_project(locator, faces):
    template = load_template()
    points = warp.points_at(template.position_map(128)[None], template.landmarks("multipie68"))
    camera = camera_from_angles(torch.tensor(YAW), 0.0, 0.0, SCALE, torch.full((len(YAW), 2), 127.5))
    expected = camera.project(points.expand(len(YAW), -1, -1)).transpose(1, 2)
    error = (locator(faces).landmarks("multipie68") - expected).norm(dim=2)
    assert error.mean() < 1.5
    assert error.max() < 6


def test_landmarks_in_image_pixels_follow_the_crop(locator, faces):
    moved = torch.tensor([[2.0, 0.0, 30.0], [0.0, 2.0, -7.0]]).repeat(len(YAW), 1, 1)
    located = locator(replace(faces, crop_to_image=moved))
    expected = 2 * located.landmarks("five") + torch.tensor([30.0, -7.0])
    torch.testing.assert_close(located.landmarks("five", "image"), expected)


def test_a_second_pass_finds_the_same_pose(locator, faces):
    once = locator(faces).yaw
    locator.config = locator.config.model_copy(update={"passes": 2})
    torch.testing.assert_close(locator(painted_faces(YAW)).yaw, once, atol=1.0, rtol=0)


def test_the_frontal_rendering_has_its_landmarks_on_the_template(frontalizer, faces):
    result = frontalizer(faces, ARCFACE_112, 112)
    template = load_template()
    paint = template.to_ncc(
        warp.points_at(template.position_map(128)[None], template.landmarks("five"))[0].t()
    )  # 5 x 3: what colour each landmark has
    places = ARCFACE_112.scaled(112).float().t().reshape(1, 2, 1, 5).expand(len(YAW), -1, -1, -1)
    found = warp.sample(result.frontal, places)[:, :, 0].transpose(1, 2)
    seen = torch.tensor(YAW).abs() < 40  # the far eye lies near the outline of a face turned further
    assert (found[seen] - paint).abs().max() < 0.06


def test_position_maps_are_the_mean_face_that_was_drawn(frontalizer, faces):
    error = (frontalizer(faces).surface - load_template().position_map(64)).norm(dim=1)
    assert error.mean() < 2.0  # mm


def test_a_rendered_texture_shows_nothing_beside_the_face(frontalizer, faces):
    frontalizer.config = frontalizer.config.model_copy(update={"surround": "black"})
    frontal = frontalizer(faces).frontal
    assert (frontal[:, :, 2, 2] == 0).all()
    assert (frontal[:, :, 50:62, 50:62].sum(1) > 0.1).all()


def test_a_mirrored_completion_shows_the_seen_side_twice(frontalizer):
    frontalizer.config = frontalizer.config.model_copy(update={"completion": "mirror"})
    result = frontalizer(painted_faces([75.0]))
    seen = (result.visibility > 0.9) & (result.visibility.flip(3) < 0.1)
    hidden = seen.flip(3).expand(-1, 3, -1, -1)
    expected = result.uv_partial.flip(3)[hidden]
    assert ((result.uv_texture[hidden] - expected).abs().median()) < 0.15


# --- failures -------------------------------------------------------------------------------------------------------


def test_no_face_keeps_its_row(frontalizer):
    faces = FaceCrops.concatenate([painted_faces([10.0]), FaceCrops.failed(["no_face"]), painted_faces([-50.0])])
    result = frontalizer(faces)
    assert result.status == ("ok", "failed", "ok")
    assert result.reason == ("", "no_face", "")
    assert result.yaw.isnan().tolist() == [False, True, False]
    assert result.visible_fraction[1] == 0
    assert result.landmarks()[1].isnan().all()


def test_other_rows_do_not_change_a_face(frontalizer):
    mixed = FaceCrops.concatenate(
        [FaceCrops.failed(["unreadable"]), painted_faces([-50.0]), faces_of(torch.rand(1, 3, 256, 256))]
    )
    alone, among = frontalizer(painted_faces([-50.0])), frontalizer(mixed)
    torch.testing.assert_close(among.frontal[1:2], alone.frontal, atol=1e-3, rtol=0)  # a quarter of a grey level
    torch.testing.assert_close(among.yaw[1:2], alone.yaw, atol=1e-3, rtol=0)


def test_a_batch_of_failures_only_gives_only_failures(frontalizer):
    result = frontalizer(FaceCrops.failed(["no_face", "unreadable"]))
    assert result.status == ("failed", "failed")
    assert not result.reliable.any()
    assert result.frontal.isfinite().all()


def test_an_empty_batch_gives_an_empty_result(frontalizer):
    result = frontalizer(FaceCrops.failed(()))
    assert len(result) == 0
    assert result.frontal.shape == (0, 3, 112, 112)


@pytest.mark.parametrize("faces", [painted_faces([0.0]), FaceCrops.failed(())], ids=len)
def test_a_rendering_has_one_pixel_or_more(frontalizer, faces):
    assert frontalizer(faces, size=1).frontal.shape == (len(faces), 3, 1, 1)
    for size in (0, -5):
        with pytest.raises(ValueError, match=f"size is {size}"):
            frontalizer(faces, size=size)


def test_an_empty_mask_is_a_fallback(frontalizer):
    result = frontalizer(faces_of(torch.zeros(1, 3, 256, 256)))
    assert (result.status, result.reason) == (("fallback",), ("no_mask",))


def test_paint_that_no_pose_explains_is_a_fallback(frontalizer):
    pixels = painted_faces([0.0]).pixels
    noise = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    mask = (pixels.amax(1, keepdim=True) > 0.03).float()
    result = frontalizer(faces_of(functional.interpolate(noise, 256) * mask))
    assert result.status == ("fallback",)
    assert result.reason[0] in POOR


def test_a_face_turned_beyond_profile_is_a_fallback(frontalizer):
    result = frontalizer(painted_faces([130.0]))
    assert (result.status, result.reason) == (("fallback",), ("beyond_profile",))


def undecided(pncc, logits):
    return PnccPrediction(pncc, torch.where(logits > 0, logits, -0.5))


def wavy(pncc, logits):
    x, y = pixel_grid(128, 128)
    return PnccPrediction(pncc + 0.08 * torch.stack([(y / 3).sin(), (x / 3).sin(), 0 * x]), logits)


@pytest.mark.parametrize(("spoilt", "reason"), [(undecided, "uncertain_mask"), (wavy, "inconsistent_pncc")])
def test_what_c_net_cannot_have_meant_is_a_fallback(frontalizer, spoilt, reason):
    network = frontalizer.locator.pretrained["pncc"]
    read = network.forward
    network.forward = lambda pixels, mask: spoilt(*read(pixels, mask))
    result = frontalizer(painted_faces([20.0]))
    assert (result.status, result.reason) == (("fallback",), (reason,))


def test_a_face_that_is_explained_well_may_leave_a_third_more_doubt(locator):
    mask = torch.zeros(2, 1, 64, 64)
    mask[..., 10:20, 10:20] = 1.0
    mask[..., 10:17, 10:20] = 0.7  # undecided at 0.7 of the face
    camera = camera_from_angles(torch.zeros(2), 0.0, 0.0, SCALE, torch.zeros(2, 2))
    found, residual = torch.ones(2, dtype=torch.bool), torch.tensor([1.0, 2.0])
    judged = locator._judged(painted_faces([0.0, 0.0]), found, mask, camera, residual, torch.ones(2, 1, 64, 64))
    assert judged == (("ok", "fallback"), ("", "uncertain_mask"))


def test_codes_end_where_the_template_does(locator):
    network = locator.pretrained["pncc"]
    read = network.forward
    network.forward = lambda pixels, mask: PnccPrediction(3 * pixels - 1, read(pixels, mask).mask_logits)
    pncc = locator(painted_faces([20.0])).pncc
    assert (pncc.min(), pncc.max()) == (0, 1)


def test_a_failed_face_has_no_mask_whatever_the_networks_see_in_black(locator):
    everywhere = torch.full((1, 1, 128, 128), 10.0)
    locator.pretrained["segmentation"].forward = lambda pixels: everywhere
    locator.pretrained["pncc"].forward = lambda pixels, mask: PnccPrediction(pixels, everywhere)
    assert locator(faces_of(torch.zeros(1, 3, 256, 256))).mask.all()
    assert not locator(FaceCrops.failed(["no_face"])).mask.any()


def test_a_photo_that_shows_little_of_the_face_is_a_fallback(frontalizer):
    faces = replace(painted_faces([20.0]), edges=photo_edges(0.0, 0.0, 255.0, 90.0, 1))
    result = frontalizer(faces)
    assert (result.status, result.reason) == (("fallback",), ("low_visibility",))


def test_a_grey_image_is_a_fallback_with_finite_results(frontalizer):
    result = frontalizer(faces_of(torch.full((1, 3, 256, 256), 0.5)))
    assert result.status == ("fallback",)
    assert result.frontal.isfinite().all()


def test_nan_in_a_crop_is_a_fallback_and_leaves_other_rows_alone(locator):
    faces = painted_faces([0.0, 40.0])
    pixels, expected = faces.pixels.clone(), locator(faces)
    pixels[0] = torch.nan
    located = locator(replace(faces, pixels=pixels))
    assert (located.status, located.reason) == (("fallback", "ok"), ("no_mask", ""))
    for name in ("mask", "pncc", "uv_partial", "visibility", "image_map", "fitted"):
        assert getattr(located, name).isfinite().all()
        assert torch.equal(getattr(located, name)[1], getattr(expected, name)[1])


def test_a_face_of_twenty_pixels_keeps_its_row(frontalizer):
    sharp = painted_faces([40.0])
    tiny = functional.interpolate(sharp.pixels, 40, mode="area")  # the face fills half of the crop
    blurred = functional.interpolate(tiny, 256, mode="bilinear")
    result = frontalizer(faces_of(blurred))
    assert result.frontal.isfinite().all()


def test_an_occluder_takes_evidence_only_where_it_is(frontalizer):
    faces = painted_faces([0.0])
    covered = faces.pixels.clone()
    covered[:, :, :, :118] = 0  # most of the image-left half of the face
    whole, half = frontalizer(faces), frontalizer(faces_of(covered))
    assert half.status == ("ok",)
    assert half.visibility[..., :40].mean() < 0.1 * whole.visibility[..., :40].mean()
    assert half.visibility[..., 80:].mean() > 0.8 * whole.visibility[..., 80:].mean()


def test_a_declared_substitute_stays_declared(frontalizer):
    faces = replace(painted_faces([20.0]), status=("fallback",), reason=("no_face",))
    result = frontalizer(faces)
    assert (result.status, result.reason) == (("fallback",), ("no_face",))
    assert result.reliable.all()


# --- as a component -------------------------------------------------------------------------------------------------


def test_view_makers_use_what_they_are_given_of_located_faces(locator, frontalizer, faces):
    makers = (AlignViews(locator, ViewWeights()), SrtcViews(frontalizer, ViewWeights(), Renderings()))
    located = locator(faces)
    expected = [maker(faces, ARCFACE_112, 64) for maker in makers]
    calls = locator.pretrained["segmentation"].calls
    for maker, views in zip(makers, expected, strict=True):
        assert isinstance(maker, LocatingViewMaker)
        given = maker.views_of(faces, located, ARCFACE_112, 64)
        assert torch.equal(given.images, views.images)
        assert torch.equal(given.weights, views.weights)
    assert locator.pretrained["segmentation"].calls == calls


def test_what_is_done_to_a_result_changes_no_other(frontalizer):
    faces = painted_faces([30.0])
    frontalizer.config = frontalizer.config.model_copy(update={"shape": "mean"})
    expected, mean = frontalizer(faces)[:], frontalizer.locator.correspondence.mean.clone()
    spoilt, at = frontalizer(faces), faces.crop_to_image.clone()
    for value in (spoilt.visibility, spoilt.camera.scale, spoilt.crop_to_image, spoilt.position_map):
        value.zero_()
    spoilt.uv_partial.requires_grad_()
    again = frontalizer(faces)
    for name in ("visibility", "crop_to_image", "position_map", "frontal", "uv_partial"):
        assert torch.equal(getattr(again, name), getattr(expected, name))
    assert torch.equal(again.camera.scale, expected.camera.scale)
    assert not frontalizer(faces).uv_partial.requires_grad
    assert torch.equal(faces.crop_to_image, at)
    assert torch.equal(frontalizer.locator.correspondence.mean, mean)


def test_results_in_inference_mode_are_ordinary_tensors(locator):
    with torch.inference_mode():
        faces = painted_faces([30.0])
        found = locator(faces)
    found.visibility.zero_()
    assert not found.visibility.is_inference()


def test_every_step_gives_tensors_without_gradients(locator, random_weights):
    config = FrontalizerConfig(completion="inet", shape="snet", fine=True)
    networks = Pretrained(config.networks, weights=random_weights, precision="float32")
    frontalizer = Frontalizer(locator, networks, config)
    faces = painted_faces([30.0])
    located = locator(faces)
    shape = frontalizer.shape(faces.pixels, located)
    texture = frontalizer.complete(located.uv_partial, located.visibility)
    detail = frontalizer.detail(texture, shape)
    frontal = frontalizer.turn(faces, located, shape, texture, ARCFACE_112, 112)
    assert not any(tensor.requires_grad for tensor in (shape, texture, detail, frontal))


def test_a_stream_is_as_large_as_asked_for(frontalizer):
    (found,) = frontalizer.stream([b"0"], finder=lambda images: painted_faces([0.0]), size=64)
    assert found.frontal.shape[-1] == 64


def test_a_stream_yields_one_result_a_frame_and_keeps_none(frontalizer):
    frames = [b"0", b"1", b"2"]
    taken = []

    def camera():
        for frame in frames:
            taken.append(frame)
            yield frame

    stream = frontalizer.stream(camera(), finder=lambda images: painted_faces([20.0 * int(image) for image in images]))
    first = next(stream)
    assert taken == [b"0"]
    kept = weakref.ref(first.frontal)
    del first
    later = list(stream)
    assert [len(result) for result in later] == [1, 1]
    assert kept() is None
    with pytest.raises(TypeError, match="image 1: a int is no photo"):
        list(frontalizer.stream([b"0", 3], finder=lambda images: painted_faces([0.0])))


def test_a_frame_that_a_camera_lost_fails_and_the_stream_goes_on(frontalizer):
    frames = [None, np.zeros((0, 0, 3), np.uint8), b"0"]
    found = list(frontalizer.stream(iter(frames), finder=lambda images: painted_faces([0.0] * len(images))))
    assert [result.status[0] for result in found] == ["failed", "failed", "ok"]
    assert [result.reason[0] for result in found] == ["unreadable", "unreadable", ""]


def test_a_configuration_of_the_locator_is_no_dictionary():
    with pytest.raises(TypeError, match="give a LocatorConfig"):
        Frontalizer.from_pretrained(location={"mirrored_pass": True})


def test_a_landmark_set_that_does_not_exist_is_named(locator):
    with pytest.raises(UnknownNameError, match=r"no landmark set 'multipie86'\. Did you mean 'multipie68'"):
        locator(painted_faces([0.0])).landmarks("multipie86")


def test_a_configuration_is_no_word():
    with pytest.raises(
        TypeError, match=r"config is 'inet': give a FrontalizerConfig such as FrontalizerConfig\(completion='inet'\)"
    ):
        Frontalizer.from_pretrained(config="inet")


def test_results_are_indexed_and_joined_row_by_row(frontalizer, faces):
    result = frontalizer(faces)
    joined = FrontalizedFaces.concatenate([result[:2], result[[2]], result[torch.arange(len(YAW)) > 2]])
    torch.testing.assert_close(joined.frontal, result.frontal)
    torch.testing.assert_close(joined.camera.scale, result.camera.scale)
    assert joined.status == result.status


def test_a_field_of_the_wrong_shape_is_named(frontalizer, faces):
    result = frontalizer(faces)
    with pytest.raises(ValueError, match=r"FrontalizedFaces\.uv_texture is .*\(6, 3, 5, 5\)"):
        replace(result, uv_texture=torch.zeros(len(YAW), 3, 5, 5))


def test_one_shape_rests_on_all_reliable_pictures_of_a_person(locator):
    faces = FaceCrops.concatenate([painted_faces(YAW), FaceCrops.failed(["no_face"]), painted_faces([140.0])])
    shape, used = PersonShapeReader(locator)(faces, batch_size=3)
    assert used.tolist() == [True] * len(YAW) + [False, False]
    mean = locator.correspondence.mean[0]
    assert (shape - mean).norm(dim=0).mean() < 1.0  # mm: everybody painted here is the mean face
    alone, _ = PersonShapeReader(locator)(faces[: len(YAW)])
    torch.testing.assert_close(shape, alone, atol=1e-2, rtol=0)


def test_a_person_without_a_reliable_picture_has_no_shape(locator):
    reader = PersonShapeReader(locator)
    for faces in (FaceCrops.failed(["no_face"]), FaceCrops.failed(())):
        shape, used = reader(faces)
        assert shape.isnan().all()
        assert not used.any()


def test_another_template_changes_the_fingerprint(locator, monkeypatch):
    monkeypatch.setattr("pifr.locator.file_sha256", lambda path: f"another {path.name}")
    assert FaceLocator(locator.pretrained, locator.config).fingerprint != locator.fingerprint


def test_other_weights_change_the_fingerprint(locator):
    one, other = PaintReader(), PaintReader()
    other.fingerprint = "other paint"
    config = FrontalizerConfig()
    assert Frontalizer(locator, one, config).fingerprint != Frontalizer(locator, other, config).fingerprint


def _looks(locator, monkeypatch, residuals, reliable=(True,) * 4):
    """The locator's four looks at a face, with residuals of our own; what it chose is told by the residual."""
    faces = painted_faces([20.0])
    seen = locator(faces)
    looks = iter(
        [
            replace(
                seen,
                residual=torch.tensor([r]),
                status=("ok" if ok else "fallback",),
                reason=("" if ok else "no_mask",),
            )
            for r, ok in zip(residuals, reliable, strict=True)
        ]
    )
    with monkeypatch.context() as patch:
        patch.setattr(locator, "_locate_once", lambda faces: next(looks))
        return locator._locate(faces).residual.item()


def test_a_face_that_can_be_used_is_turned_only_if_much_is_gained(locator, monkeypatch):
    assert _looks(locator, monkeypatch, [2.0, 1.45, 2.5, 2.5]) == 2.0
    assert _looks(locator, monkeypatch, [2.0, 1.35, 2.5, 2.5]) == pytest.approx(1.35)


def test_a_face_that_cannot_be_used_is_turned_only_if_that_explains_it_well(locator, monkeypatch):
    assert _looks(locator, monkeypatch, [9.0, 2.0, 2.5, 2.5], (False, True, True, True)) == 9.0


def test_an_unreliable_look_is_never_taken(locator, monkeypatch):
    assert _looks(locator, monkeypatch, [2.0, 1.3, 0.1, 2.5], (True, True, False, True)) == pytest.approx(1.3)


def test_errors_of_the_evidence_do_not_bend_the_photo(frontalizer, locator):
    faces = painted_faces([50.0])
    located = locator(faces)
    noise = 3 * torch.randn(located.image_map.shape, generator=torch.Generator().manual_seed(0))
    noisy = replace(located, image_map=located.image_map + noise)
    turned = [frontalizer.turn(faces, each, each.fitted, None, ARCFACE_112, 112) for each in (located, noisy)]
    torch.testing.assert_close(turned[1], turned[0])


def test_pitch_shrinks_as_yaw_does(frontalizer, locator, monkeypatch):
    asked, real = [], frontalizer_module.frontal_camera
    monkeypatch.setattr(frontalizer_module, "frontal_camera", lambda *a: asked.append(a[3:]) or real(*a))
    faces = painted_faces([60.0], pitch=15.0)
    located = locator(faces)
    frontalizer.turn(faces, located, located.fitted, None, ARCFACE_112, 112, 30.0)
    (yaw, pitch), angles = asked[0], located.camera.angles()[0]
    assert (yaw.item(), pitch.item()) == pytest.approx((30.0, angles[1].item() * 30 / angles[0].item()), abs=1e-3)
    assert pitch.item() > 5


def test_a_second_pass_looks_again_around_what_the_first_one_found(locator, monkeypatch):
    frames, predict = [], locator.predict_pncc
    monkeypatch.setattr(locator, "predict_pncc", lambda *given: frames.append(given[3]) or predict(*given))
    for passes in (1, 2):
        frames.clear()
        monkeypatch.setattr(locator, "config", locator.config.model_copy(update={"passes": passes}))
        locator(painted_faces([30.0]))
        assert len(frames) == passes
    assert not torch.equal(*frames)


def test_the_tight_crop_is_the_square_of_the_mask_times_the_crop_factor(locator):
    mask = torch.zeros(1, 1, 128, 128)
    mask[..., 40:80, 40:80] = 1
    frame, _ = locator.tight_crop(mask, resized_to(1, 128, 256, mask.device))
    factor = locator.pretrained["pncc"].config.crop_factor
    assert frame[0, :, 0].norm().item() * 128 == pytest.approx(40 * 2 * factor, rel=0.03)


@pytest.mark.parametrize(("yaw", "used"), [(105.0, True), (115.0, False), (-105.0, True), (-115.0, False)])
def test_faces_beyond_110_degrees_are_not_used(locator, monkeypatch, yaw, used):
    monkeypatch.setattr("pifr.geometry.camera.Camera.angles", lambda camera: torch.tensor([[yaw, 0.0, 0.0]]))
    assert ("beyond_profile" not in locator(painted_faces([60.0])).reason) == used


def test_the_mean_shape_is_the_mean(frontalizer, locator):
    config = frontalizer.config.model_copy(update={"shape": "mean"})
    result = Frontalizer(locator, PaintReader(), config)(painted_faces([20.0, -50.0]))
    assert torch.equal(result.position_map, locator.correspondence.mean.repeat(2, 1, 1, 1))
    assert not torch.equal(result.position_map, result.fitted)


def test_the_surface_holds_the_fine_detail(frontalizer):
    result = frontalizer(painted_faces([20.0]))
    moved = replace(result, displacement=torch.rand_like(result.displacement))
    torch.testing.assert_close(moved.surface[:, 2:], result.position_map[:, 2:] + moved.displacement)
    torch.testing.assert_close(moved.surface[:, :2], result.position_map[:, :2])


def test_inet_keeps_what_the_photo_shows_and_is_not_shown_the_rest(locator):
    class Filler(torch.nn.Module):
        config = SimpleNamespace(resolution=128)

        def forward(self, texture, visibility):
            self.shown = visibility
            return torch.full_like(texture, 0.9)

    networks, filler = PaintReader(), Filler()
    networks["inpainting"] = filler
    texture = torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(0)) / 2
    visibility = torch.ones(1, 1, 128, 128)
    visibility[..., 64:] = 0
    complete = Frontalizer(locator, networks, FrontalizerConfig(completion="inet")).complete(texture, visibility)
    torch.testing.assert_close(complete[..., :50], texture[..., :50])
    assert not filler.shown[..., 63:].any()  # the last column that is seen may be stained


def test_a_persons_shape_trusts_the_pncc_as_the_locator_is_told(locator, monkeypatch):
    moved = []
    for deviation in (1.0, 50.0):
        monkeypatch.setattr(locator, "config", locator.config.model_copy(update={"pncc_deviation": deviation}))
        shape, _ = PersonShapeReader(locator)(painted_faces(YAW))
        moved.append((shape - locator.correspondence.mean[0]).norm(dim=0).mean())
    assert moved[1] < 0.5 * moved[0]
