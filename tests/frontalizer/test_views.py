"""What recognizers are shown, and how much it counts."""

import shutil
from dataclasses import replace

import pytest
import torch

from pifr.errors import ConfigError, UnknownNameError, WeightsError
from pifr.faces import ARCFACE_112, FaceCrops, align
from pifr.frontal_views import AlignViews, Renderings, SrtcViews, ViewWeights, load_align, load_srtc
from pifr.frontalizer import Frontalizer, FrontalizerConfig
from pifr.locator import LocatorConfig
from pifr.networks.pretrained import Pretrained
from pifr.networks.weights import load_network, save_network
from pifr.views import load_view_maker

from .conftest import painted_faces

YAW = torch.linspace(-100, 100, 201)


def test_weights_sum_to_one_at_every_yaw():
    torch.testing.assert_close(ViewWeights().aligned(YAW).sum(1), torch.ones(201))


def test_turning_does_not_depend_on_the_side():
    torch.testing.assert_close(ViewWeights().frontalized(YAW), ViewWeights().frontalized(-YAW))


def test_turning_fades_in_without_a_step():
    share = ViewWeights().frontalized(YAW)
    assert share.diff().abs().max() < 0.06
    assert share.max() == ViewWeights().frontal_share


def test_near_frontal_faces_are_aligned_but_not_turned():
    near = torch.tensor([0.0, 10.0, -10.0])
    weights = ViewWeights(crop=1, crop_mirror=0, realigned=2, realigned_mirror=1)
    assert weights.aligned(near).tolist() == [[0.25, 0, 0.5, 0.25]] * 3
    assert weights.frontalized(near).tolist() == [0] * 3


def test_unknown_faces_are_left_to_their_crop():
    unknown = torch.tensor([torch.nan])
    assert ViewWeights().aligned(unknown).tolist() == [[1, 0, 0, 0]]
    assert ViewWeights().frontalized(unknown).tolist() == [0]


def test_crops_in_which_the_face_lies_on_its_side_do_not_count():
    yaw, tilt = torch.tensor([0.0, 0.0, 60.0, torch.nan]), torch.tensor([44.0, -46.0, 180.0, 90.0])
    weights = ViewWeights(crop=1, crop_mirror=0, realigned=2, realigned_mirror=1).aligned(yaw, tilt)
    lying = [0, 0, 2 / 3, 1 / 3]
    torch.testing.assert_close(weights, torch.tensor([[0.25, 0, 0.5, 0.25], lying, lying, [1, 0, 0, 0]]))
    # Where nothing else is shown, they do.
    alone = ViewWeights(crop=1, crop_mirror=1, realigned=0, realigned_mirror=0).aligned(yaw[:2], tilt[:2])
    assert alone.tolist() == [[0.5, 0.5, 0, 0]] * 2


@pytest.mark.parametrize("tilt, counts", [(30.0, True), (-100.0, False)])
@pytest.mark.parametrize("name", ["align", "srtc"])
def test_a_detector_that_takes_a_lying_head_for_an_upright_one_does_not_spoil_its_template(
    locator, frontalizer, name, tilt, counts
):
    # What the detector takes for the five landmarks of the head, which is upright, is rolled about their middle.
    faces = painted_faces([0.0, 80.0])
    landmarks = locator(faces).landmarks("five")
    turn = torch.deg2rad(torch.tensor(tilt))
    rolled = torch.tensor([[turn.cos(), turn.sin()], [-turn.sin(), turn.cos()]])
    middle = landmarks.mean(1, keepdim=True)
    faces = replace(faces, landmarks=(landmarks - middle) @ rolled + middle)
    makers = {
        "align": AlignViews(locator, ViewWeights()),
        "srtc": SrtcViews(frontalizer, ViewWeights(), Renderings(painted=True)),
    }
    views = makers[name](faces, ARCFACE_112, 64)
    assert ((views.weights[:, :2] > 0) == counts).all()
    torch.testing.assert_close(views.weights.sum(1), torch.ones(2))


@pytest.mark.parametrize("roll, counts", [(10.0, True), (90.0, False)])
def test_a_crop_without_landmarks_counts_unless_the_face_lies_in_it(locator, roll, counts):
    faces = painted_faces([0.0], roll=roll)
    assert faces.landmarks.isnan().all()
    weights = AlignViews(locator, ViewWeights())(faces, ARCFACE_112, 64).weights
    assert ((weights[:, :2] > 0) == counts).all()


def test_turned_faces_are_realigned_at_the_scale_of_their_frontal_photo(locator):
    yaw = torch.tensor([0.0, 40.0, 85.0])
    faces = painted_faces(yaw.tolist())
    views = AlignViews(locator, ViewWeights())(faces, ARCFACE_112, 256)
    rows = (views.images[:, 2].amax(1) > 0.05).any(2)
    heights = rows.sum(1)
    assert (heights - heights[0]).abs().max() < 4


def test_align_shows_the_crop_first_and_mirrors_second(locator):
    faces = painted_faces([0.0, 80.0])
    views = AlignViews(locator, ViewWeights())(faces, ARCFACE_112, 64)
    assert views.images.shape == (2, 4, 3, 64, 64)
    torch.testing.assert_close(views.images[:, 0], align(faces.pixels, faces.landmarks, ARCFACE_112, 64))
    torch.testing.assert_close(views.images[:, 1], views.images[:, 0].flip(-1))
    torch.testing.assert_close(views.images[:, 3], views.images[:, 2].flip(-1))
    assert (views.weights > 0).all()


def test_srtc_adds_renderings_to_what_align_shows(frontalizer):
    faces = painted_faces([0.0, -80.0])
    aligned = AlignViews(frontalizer.locator, ViewWeights())(faces, ARCFACE_112, 112)
    renderings = Renderings(render_yaw=(0.0, 40.0), render_mirror=True, painted=True)
    maker = SrtcViews(frontalizer, ViewWeights(), renderings)
    views = maker(faces, ARCFACE_112, 112)
    torch.testing.assert_close(views.images[:, :4], aligned.images)
    assert views.names[4:] == ("frontal", "frontal mirror", "turned 40", "turned 40 mirror")
    yaw = views.yaw[:, None]
    torch.testing.assert_close(views.shown_yaw[:, :4], yaw.expand(-1, 4))
    assert (views.shown_yaw[:, 4:6] == 0).all()
    torch.testing.assert_close(
        views.shown_yaw[:, 6:], torch.cat([yaw[:1] * 0.75, torch.tensor([[-40.0]])]).expand(-1, 2)
    )
    torch.testing.assert_close(views.images[1, 4], frontalizer(faces).frontal[1])
    assert (views.images[0, 4:] == 0).all()  # it weighs nothing: nobody looks at it
    torch.testing.assert_close(views.weights.sum(1), torch.ones(2))
    torch.testing.assert_close(views.weights[1, 4:].sum(), torch.tensor(ViewWeights().frontal_share))


def test_nothing_is_painted_unless_asked_for(frontalizer, monkeypatch):
    faces = painted_faces([-80.0])
    views = [SrtcViews(frontalizer, ViewWeights(), Renderings(render_yaw=(0.0,), painted=p)) for p in (False, True)]
    plain, painted = (maker(faces, ARCFACE_112, 112).images[:, 4] for maker in views)
    assert (plain - painted).abs().amax(1).gt(0.1).float().mean() > 0.1  # half of the face
    monkeypatch.setattr(frontalizer, "complete", lambda texture, visibility: torch.rand_like(texture))
    torch.testing.assert_close(views[0](faces, ARCFACE_112, 112).images[:, 4], plain)


def test_a_texture_that_is_not_painted_cannot_be_shown(frontalizer):
    frontalizer.config = frontalizer.config.model_copy(update={"surround": "black"})
    with pytest.raises(ConfigError, match="painted=true"):
        SrtcViews(frontalizer, ViewWeights(), Renderings())


@pytest.mark.parametrize("pitch", [0.0, 16.0, -16.0])
def test_an_intermediate_rendering_is_turned_to_the_side_of_the_photo(frontalizer, pitch):
    faces = painted_faces([-80.0], pitch=pitch)
    maker = SrtcViews(frontalizer, ViewWeights(), Renderings(render_yaw=(60.0,)))
    less = painted_faces([-60.0], pitch=pitch * 60 / 80)  # both angles shrink alike
    turned = frontalizer.locator(less)
    views = maker(faces, ARCFACE_112, 112)
    realigned = AlignViews(frontalizer.locator, ViewWeights())(less, ARCFACE_112, 112).images[0, 2]
    both = (views.images[0, 4].amax(0) > 0.05) & (realigned.amax(0) > 0.05)
    assert turned.yaw[0] < 0
    assert (views.images[0, 4] - realigned).abs()[:, both].median() < 0.05


def test_a_face_below_the_largest_yaw_is_turned_by_a_share(frontalizer):
    faces = painted_faces([-50.0])
    maker = SrtcViews(frontalizer, ViewWeights(), Renderings(render_share=0.5))
    views, located = maker(faces, ARCFACE_112, 112), frontalizer.locator(faces)
    torch.testing.assert_close(views.shown_yaw[:, 4:], (located.yaw / 2)[:, None].expand(-1, 2))
    shape, half = frontalizer.shape(faces.pixels, located), located.yaw.abs().item() / 2
    turned = frontalizer.turn(faces, located, shape, None, ARCFACE_112, 112, half)
    torch.testing.assert_close(views.images[:, 4], turned, atol=1e-3, rtol=0)


def test_autocast_around_it_changes_nothing_and_views_are_ordinary_tensors(frontalizer):
    faces = painted_faces([-80.0])
    for maker in (SrtcViews(frontalizer, ViewWeights(), Renderings()), AlignViews(frontalizer.locator, ViewWeights())):
        views = maker(faces, ARCFACE_112, 112)
        with torch.autocast("cpu", torch.bfloat16):
            torch.testing.assert_close(maker(faces, ARCFACE_112, 112).images, views.images)
        views.images.mul_(0.5)


def test_a_face_without_a_usable_frontalization_is_left_to_its_crop(frontalizer):
    faces = FaceCrops.concatenate([FaceCrops.failed(["no_face"]), painted_faces([130.0]), painted_faces([70.0])])
    views = SrtcViews(frontalizer, ViewWeights(), Renderings())(faces, ARCFACE_112, 112)
    assert views.weights[:2].tolist() == [[1, 0, 0, 0, 0, 0]] * 2
    assert (views.weights[2, 4:] > 0).all()
    assert views.status == ("failed", "fallback", "ok")
    assert views.yaw.isnan().tolist() == [True, True, False]


def test_an_empty_batch_has_no_views(frontalizer):
    views = SrtcViews(frontalizer, ViewWeights(), Renderings())(FaceCrops.failed(()), ARCFACE_112, 112)
    assert len(views) == 0


def test_options_come_from_the_name(random_weights):
    options = "painted=true,completion=mirror,frontal_share=0.3,render_yaw=0/30,render_mirror=false,passes=2"
    maker = load_srtc("cpu", f"{random_weights},{options}")
    assert maker.frontalizer.config.completion == "mirror"
    assert maker.frontalizer.locator.config.passes == 2
    assert maker.weights.frontal_share == 0.3
    assert maker.renderings.names == ("frontal", "turned 30")


def test_settings_that_change_views_change_the_fingerprint(random_weights):
    arguments = ["", ",frontal_share=0.45", ",painted=true,completion=smooth", ",passes=2", ",render_yaw=30"]
    prints = {load_srtc("cpu", f"{random_weights}{argument}").fingerprint for argument in arguments}
    assert len(prints) == len(arguments)
    aligns = {load_align("cpu", f"{random_weights}{argument}").fingerprint for argument in ("", ",passes=2", ",crop=2")}
    assert len(aligns) == 3


@pytest.mark.parametrize("option", ["painted=true", "render_yaw=30", "frontal_share=0.2", "completion=smooth"])
def test_options_of_renderings_are_nothing_to_align(option, random_weights):
    with pytest.raises(UnknownNameError, match="no option"):
        load_align("cpu", f"{random_weights},{option}")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("none:x", "takes no options, got 'x'"),
        ("mirror:crop=1", "takes no options"),
        ("srtc:render_yaw=-30", r"render_yaw\.0: .* greater than or equal to 0"),
        ("none:", "nothing follows the colon"),
        ("srtc:", "nothing follows the colon"),
    ],
)
def test_options_without_a_meaning_are_refused(name, words):
    with pytest.raises(ConfigError, match=words):
        load_view_maker(name)


def test_a_folder_called_paper_does_not_stand_for_the_packaged_configuration(tmp_path, monkeypatch):
    (tmp_path / "paper").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WeightsError, match="of the configuration 'paper'"):
        load_view_maker("srtc:paper")


def test_an_unknown_option_lists_the_known_ones():
    with pytest.raises(UnknownNameError, match=r"'zzz'.*completion.*frontal_share.*mirrored_pass.*render_yaw"):
        load_srtc("cpu", "zzz=1")
    with pytest.raises(UnknownNameError, match="Did you mean 'render_yaw'"):
        load_srtc("cpu", "render_yw=30")


def test_blanks_between_options_do_not_matter(random_weights):
    spaced = load_srtc("cpu", f" {random_weights} , render_yaw = 30/45 ,frontal_share=0.7")
    assert spaced.renderings.render_yaw == (30.0, 45.0)
    assert spaced.weights.frontal_share == 0.7


def test_of_a_list_with_a_wrong_entry_only_the_entry_is_wrong():
    with pytest.raises(ConfigError, match=r"frontalizer: render_yaw\.0: [^;]*$"):
        load_srtc("cpu", "render_yaw=abc")


def test_a_completion_that_nobody_would_see_is_refused(random_weights):
    with pytest.raises(ConfigError, match="painted=true"):
        load_srtc("cpu", f"{random_weights},completion=smooth")


def test_fine_detail_that_nobody_would_see_is_refused(random_weights):
    with pytest.raises(ConfigError, match="fine=true would not be seen"):
        load_srtc("cpu", f"{random_weights},shape=snet,fine=true")


@pytest.mark.parametrize("option", ["completion=magic", "frontal_from=nan", "crop=inf", "render_yaw=nan"])
def test_a_wrong_value_names_its_option(option):
    with pytest.raises(ConfigError, match=option.partition("=")[0]):
        load_srtc("cpu", option)


def test_weights_of_nothing_are_refused():
    with pytest.raises(ConfigError, match="at least one aligned view"):
        load_srtc("cpu", "crop=0,crop_mirror=0,realigned=0,realigned_mirror=0")


def test_a_network_without_weights_says_how_to_get_them(tmp_path):
    with pytest.raises(WeightsError, match=r"pifr train segmentation --config lite "):
        load_view_maker(f"srtc:{tmp_path}")


def test_a_configuration_that_is_not_packaged_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr("pifr.networks.pretrained.packaged_weights", dict)
    with pytest.raises(WeightsError, match=r"pifr train segmentation --config paper"):
        load_view_maker("align:paper")


def test_only_what_is_asked_for_is_loaded(random_weights, tmp_path):
    for network in ("segmentation", "pncc"):
        (tmp_path / network).symlink_to(random_weights / network)
    load_view_maker(f"align:{tmp_path}")
    load_view_maker(f"srtc:{tmp_path},painted=true,completion=smooth,shape=fit")
    with pytest.raises(WeightsError, match="inpainting"):
        load_view_maker(f"srtc:{tmp_path},painted=true,completion=inet")


def test_mirrored_pass_sees_a_face_and_its_mirror_image_alike(random_weights):
    locator = load_align("cpu", f"{random_weights},precision=float32,mirrored_pass=true").locator
    assert locator.config == LocatorConfig(precision="float32", mirrored_pass=True)
    pixels = torch.rand(2, 3, 256, 256, generator=torch.Generator().manual_seed(0))
    frame = torch.tensor([[1.5, 0.0, 127.5 - 1.5 * 63.5], [0.0, 1.5, 127.5 - 1.5 * 63.5]]).repeat(2, 1, 1)
    whole = torch.eye(2, 3).repeat(2, 1, 1)
    mask = torch.ones(2, 1, 256, 256)
    with torch.inference_mode():
        pncc, refined = locator.predict_pncc(pixels, mask, whole, frame)
        other, other_refined = locator.predict_pncc(pixels.flip(3), mask, whole, frame)
    mirrored = torch.cat([1 - other[:, :1], other[:, 1:]], 1).flip(3)
    torch.testing.assert_close(mirrored, pncc, atol=2e-4, rtol=0)
    torch.testing.assert_close(other_refined.flip(3), refined, atol=2e-4, rtol=0)


def test_every_network_of_the_default_runs(random_weights):
    frontalizer = Frontalizer.from_pretrained(weights=random_weights, config=FrontalizerConfig(fine=True))
    assert isinstance(frontalizer.pretrained, Pretrained)
    result = frontalizer(painted_faces([0.0, 60.0]))
    assert result.displacement.shape[-1] == result.position_map.shape[-1] == 128
    assert result.displacement.abs().max() > 0
    assert result.frontal.isfinite().all()


def test_the_mirror_of_a_rendering_is_its_mirror_image(frontalizer):
    maker = SrtcViews(frontalizer, ViewWeights(), Renderings(render_yaw=(0.0, 40.0)))
    views = maker(painted_faces([-80.0]), ARCFACE_112, 64)
    for plain in (4, 6):
        torch.testing.assert_close(views.images[:, plain + 1], views.images[:, plain].flip(-1), rtol=0, atol=0)
        assert (views.images[:, plain + 1] - views.images[:, plain]).abs().mean() > 0.01


def test_renderings_share_alike(frontalizer):
    views = SrtcViews(frontalizer, ViewWeights(), Renderings())(painted_faces([-80.0]), ARCFACE_112, 64)
    torch.testing.assert_close(views.weights, torch.tensor([[1, 1, 2, 2, 3, 3]]) / 12)


def test_defaults_are_those_of_the_readme():
    weights = ViewWeights()
    shares = weights.frontalized(torch.tensor([35.0, -35.0, 65.0, -65.0, 50.0]))
    assert shares.tolist() == pytest.approx([0, 0, 0.5, 0.5, 0.25])
    assert weights.frontalized(torch.tensor([38.0])).item() < 0.025  # a line would be at 0.05
    torch.testing.assert_close(weights.aligned(torch.zeros(1)), torch.tensor([[1, 1, 2, 2]]) / 6)
    (shown,) = Renderings().shown_yaw(torch.tensor([90.0, -60.0]))
    assert shown.tolist() == [60.0, -45.0]


def test_all_weights_of_the_argument_count(random_weights):
    asked = {"crop": 3, "crop_mirror": 0, "realigned": 1, "realigned_mirror": 0}
    asked |= {"frontal_from": 10, "frontal_full": 20, "frontal_share": 1}
    argument = ",".join(f"{key}={value}" for key, value in asked.items())
    assert load_srtc("cpu", f"{random_weights},{argument}").weights == ViewWeights(**asked)


def test_srtc_weighs_aligned_views_as_asked(frontalizer):
    weights = ViewWeights(crop=0, crop_mirror=0, realigned_mirror=0)
    views = SrtcViews(frontalizer, weights, Renderings())(painted_faces([0.0]), ARCFACE_112, 64)
    assert views.weights.tolist() == [[0, 0, 1, 0, 0, 0]]


def test_the_shape_that_is_asked_for_is_turned(frontalizer, monkeypatch):
    shown = []
    monkeypatch.setattr(frontalizer, "shape", lambda pixels, located: located.fitted + 1)
    monkeypatch.setattr(frontalizer, "turn", lambda *given: shown.append(given[2]) or torch.zeros(1, 3, 64, 64))
    faces = painted_faces([-80.0])
    SrtcViews(frontalizer, ViewWeights(), Renderings())(faces, ARCFACE_112, 64)
    torch.testing.assert_close(shown[0], frontalizer.locator(faces).fitted + 1)


def test_weights_that_were_trained_on_are_loaded_anew(random_weights, tmp_path):
    shutil.copytree(random_weights, tmp_path / "weights")
    before = load_align("cpu", str(tmp_path / "weights"))
    weights = tmp_path / "weights" / "pncc" / "weights.safetensors"
    network = load_network(weights)
    next(network.parameters()).data.add_(1)
    save_network(network, weights, {})
    assert load_align("cpu", str(tmp_path / "weights")).fingerprint != before.fingerprint
