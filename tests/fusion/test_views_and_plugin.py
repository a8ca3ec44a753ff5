"""View makers, and the plugin that goes through one."""

import pickle
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import EntryPoint
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from feature_extractors.base import RecognizerConfig
from pifr import views as views_module
from pifr.errors import ConfigError, UnknownNameError
from pifr.faces import ARCFACE_112, AlignmentTemplate, FaceCrops, FaceFinder, cut
from pifr.geometry import warp
from pifr.geometry.camera import camera_from_angles
from pifr.geometry.five_landmarks import nominal_landmarks
from pifr.geometry.template import load_template
from pifr.plugin import FrontalizedRecognizer, embed_views, failed_without_direction, similarities
from pifr.views import Mirror, PlainCrop, ViewMaker, Views, list_view_makers, load_view_maker


def faces(*status: str) -> FaceCrops:
    generator = torch.Generator().manual_seed(0)
    count = len(status)
    return FaceCrops(
        pixels=torch.rand(count, 3, 256, 256, generator=generator),
        crop_to_image=torch.eye(2, 3).repeat(count, 1, 1),
        landmarks=nominal_landmarks().repeat(count, 1, 1),
        status=status,
        reason=tuple("" if state == "ok" else "no_face" for state in status),
    )


class Recording:
    """A recognizer that answers with the mean colour, and remembers what it was asked."""

    def __init__(self, *, uses_yaw: bool = False) -> None:
        self.config = RecognizerConfig(
            name="recording",
            input_size=16,
            alignment=ARCFACE_112,
            embedding_size=3,
            licence="none",
            origin="made here",
            uses_yaw=uses_yaw,
        )
        self.asked: list[tuple[Tensor, Tensor | None]] = []

    def embed(self, batch: Tensor, yaw: Tensor | None = None) -> Tensor:
        self.asked.append((batch, yaw))
        return batch.mean((2, 3))


def test_none_is_the_aligned_crop_and_mirror_adds_its_mirror_image() -> None:
    one, two = (maker(faces("ok", "ok"), ARCFACE_112, 64) for maker in (PlainCrop(), Mirror()))
    assert one.images.shape == (2, 1, 3, 64, 64)
    torch.testing.assert_close(two.images[:, 0], one.images[:, 0], rtol=0, atol=0)
    torch.testing.assert_close(two.images[:, 1], one.images[:, 0].flip(-1), rtol=0, atol=0)
    assert two.weights.tolist() == [[0.5, 0.5]] * 2
    assert two.names == ("crop", "crop mirror")


@pytest.mark.parametrize("maker", [PlainCrop(), Mirror()])
def test_autocast_around_a_maker_changes_no_view(maker: ViewMaker) -> None:
    expected = maker(faces("ok"), ARCFACE_112, 64)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(maker(faces("ok"), ARCFACE_112, 64).images, expected.images, rtol=0, atol=0)


def test_failed_faces_keep_their_row_and_reason() -> None:
    views = Mirror()(faces("ok", "failed", "fallback"), ARCFACE_112, 32)
    assert views.status == ("ok", "failed", "fallback")
    assert views.reason == ("", "no_face", "no_face")


@pytest.mark.parametrize("maker", [PlainCrop(), Mirror()])
def test_built_in_makers_are_view_makers(maker: object) -> None:
    assert isinstance(maker, ViewMaker)


def views_of(**changes: object) -> Views:
    fields = {
        "images": torch.zeros(2, 3, 3, 8, 8),
        "weights": torch.full((2, 3), 1 / 3),
        "names": ("a", "b", "c"),
        "yaw": torch.zeros(2),
        "status": ("ok", "ok"),
        "reason": ("", ""),
    }
    return Views(**(fields | changes))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": torch.zeros(2, 2, 3, 8, 8)}, "Views.images"),
        ({"images": torch.zeros(2, 3, 3, 8, 8, dtype=torch.float64)}, "Views.images"),
        ({"weights": torch.ones(2, 3)}, "sum to 1"),
        ({"weights": torch.tensor([[1.5, -0.5, 0.0]] * 2)}, "not be negative"),
        ({"yaw": torch.zeros(3)}, "Views.yaw"),
        ({"reason": ("",)}, "Views.reason"),
    ],
)
def test_views_that_do_not_fit_together_name_the_field(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        views_of(**change)


def test_an_unknown_frontalizer_says_what_is_close() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'mirror'"):
        load_view_maker("miror")


def test_a_package_can_add_a_frontalizer(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = EntryPoint("theirs", "their_package:load", views_module.ENTRY_POINT_GROUP)
    asked = []

    def load(device: str, argument: str) -> PlainCrop:
        asked.append((device, argument))
        return PlainCrop()

    monkeypatch.setattr(EntryPoint, "load", lambda self: load)
    monkeypatch.setattr(
        views_module,
        "entry_points",
        lambda group, name="theirs": [entry] if (group, name) == (entry.group, "theirs") else [],
    )
    assert "theirs" in list_view_makers()
    assert isinstance(load_view_maker("theirs:fast", "cuda"), PlainCrop)
    assert asked == [("cuda", "fast")]


def test_plugin_gives_unit_templates_and_nan_for_failures() -> None:
    plugin = FrontalizedRecognizer(Recording(), Mirror(), finder=lambda images: faces(*images))
    templates = plugin.embed_images(["ok", "failed", "ok"])
    torch.testing.assert_close(templates[[0, 2]].norm(dim=1), torch.ones(2))
    assert templates[1].isnan().all()


def test_plugin_takes_photos_in_batches() -> None:
    asked, batches = [], []

    def photos() -> Iterator[str]:
        for status in ["ok"] * 4 + ["failed"]:
            asked.append(status)
            yield status

    def finder(images: list[str]) -> FaceCrops:
        batches.append((len(images), len(asked)))
        return faces(*images)

    plugin = FrontalizedRecognizer(Recording(), Mirror(), finder=finder)
    templates = plugin.embed_images(photos(), batch_size=2)
    assert batches == [(2, 2), (2, 4), (1, 5)]  # no photo is asked for before its batch
    assert templates.isnan().any(1).tolist() == [False] * 4 + [True]
    templates[templates.isnan()] = 0  # an ordinary tensor
    for one in ("photo.jpg", b"photo"):
        with pytest.raises(TypeError, match="put it into a list"):
            plugin.embed_images(one)


def test_plugin_numbers_what_is_no_photo_through_all_batches() -> None:
    plugin = FrontalizedRecognizer(Recording(), Mirror(), finder=lambda images: faces(*images))
    with pytest.raises(TypeError, match="image 4: a NoneType is no photo"):
        plugin.embed_images(["ok", "ok", "ok", "ok", None, "ok"], batch_size=2)


def test_plugin_takes_faces_in_batches() -> None:
    recognizer = Recording()
    plugin = FrontalizedRecognizer(recognizer, PlainCrop())
    many = faces("ok", "failed", "ok", "fallback", "ok")
    whole = plugin.templates(many)
    recognizer.asked.clear()
    parts = plugin.templates(many, batch_size=2)
    assert [len(batch) for batch, _ in recognizer.asked] == [2, 2, 1]
    assert (parts.status, parts.reason) == (whole.status, whole.reason)
    torch.testing.assert_close(parts.features, whole.features, equal_nan=True)
    torch.testing.assert_close(plugin.embed_faces(many, batch_size=2), whole.features, equal_nan=True)
    assert parts.yaw.shape == (5,)


@pytest.mark.parametrize("batch_size", [0, -1, 2.5])
def test_a_batch_holds_one_or_more(batch_size: int) -> None:
    plugin = FrontalizedRecognizer(Recording(), Mirror(), finder=lambda images: faces(*images))
    with pytest.raises(ValueError, match="batch_size"):
        plugin.embed_images(["ok"], batch_size)
    with pytest.raises(ValueError, match="batch_size"):
        plugin.embed_faces(faces("ok"), batch_size)


def test_a_view_maker_is_no_name() -> None:
    with pytest.raises(TypeError, match=r"load_view_maker\('srtc'\)"):
        FrontalizedRecognizer(Recording(), "srtc")


def test_what_else_turns_faces_is_no_view_maker() -> None:
    class Frontalizer:
        def __call__(self, faces: FaceCrops) -> None: ...

    with pytest.raises(TypeError, match=r"view_maker is .*Frontalizer.*: load_view_maker"):
        FrontalizedRecognizer(Recording(), Frontalizer())  # type: ignore[arg-type]

    with pytest.raises(TypeError, match=r"view_maker is .*Mirror.*: load_view_maker"):
        FrontalizedRecognizer(Recording(), Mirror)  # type: ignore[arg-type]


@pytest.mark.parametrize("finder", ["yunet", 3, FaceFinder])
def test_a_finder_is_no_name_and_no_class(finder: object) -> None:
    with pytest.raises(TypeError, match=r"FaceFinder\('yunet'\) makes one"):
        FrontalizedRecognizer(Recording(), Mirror(), finder=finder)  # type: ignore[arg-type]


@pytest.mark.parametrize("count", [1, 3])
def test_features_are_ordinary_tensors_however_many_batches_they_come_from(count: int) -> None:
    plugin = FrontalizedRecognizer(Recording(), Mirror(), finder=lambda images: faces(*images))
    with torch.inference_mode():
        features = [plugin.embed_images(["ok"] * count, 2), plugin.embed_faces(faces(*["ok"] * count), 2)]
    assert not any(found.is_inference() for found in features)


def test_what_the_config_of_a_recognizer_lacks_is_named() -> None:
    recognizer = Recording()
    recognizer.config = SimpleNamespace(alignment=ARCFACE_112, input_size=16)  # type: ignore[assignment]
    with pytest.raises(TypeError, match=r"the config of a Recording lacks uses_yaw: alignment, input_size, uses_yaw"):
        FrontalizedRecognizer(recognizer, Mirror())


def test_plugin_follows_the_view_makers_fusion_unless_told_otherwise() -> None:
    shapes = [
        FrontalizedRecognizer(Recording(), Mirror(), fusion, finder=lambda images: faces(*images))
        .embed_images(["ok"])
        .shape[1]
        for fusion in (None, "concatenation")
    ]
    assert shapes == [3, 6]
    with pytest.raises(UnknownNameError, match="no fusion 'sum'"):
        FrontalizedRecognizer(Recording(), Mirror(), "sum", finder=lambda images: faces(*images))


def test_a_recognizer_that_asks_for_yaw_gets_what_each_view_shows() -> None:
    recognizer = Recording(uses_yaw=True)
    shown = torch.tensor([[70.0, 45.0, 0.0], [-30.0, -22.5, 0.0]])
    views = views_of(images=torch.rand(2, 3, 3, 16, 16), yaw=torch.tensor([70.0, -30.0]), shown_yaw=shown)
    embed_views(recognizer, faces("ok", "ok"), views)
    assert [yaw.tolist() for _, yaw in recognizer.asked] == shown.T.tolist()


def test_a_view_shows_the_photos_yaw_unless_it_says_otherwise() -> None:
    yaw = torch.tensor([70.0, -30.0])
    assert views_of(images=torch.rand(2, 3, 3, 16, 16), yaw=yaw).shown_yaw.tolist() == [[70.0] * 3, [-30.0] * 3]
    with pytest.raises(ValueError, match="shown_yaw"):
        views_of(images=torch.rand(2, 3, 3, 16, 16), yaw=yaw, shown_yaw=torch.zeros(2, 4))


@pytest.mark.parametrize("uses_yaw", [False, True])
def test_a_view_is_embedded_for_the_faces_that_use_it(uses_yaw: bool) -> None:
    recognizer = Recording(uses_yaw=uses_yaw)
    weights = torch.tensor([[1.0, 0.0, 0.0], [0.5, 0.0, 0.5]])
    views = views_of(images=torch.rand(2, 3, 3, 16, 16), weights=weights)
    features = embed_views(recognizer, faces("ok", "ok"), views)
    assert [len(batch) for batch, _ in recognizer.asked] == [2, 1]
    torch.testing.assert_close(features[weights > 0], views.images.mean((3, 4))[weights > 0])


def test_a_view_that_two_frontalizers_share_is_embedded_once() -> None:
    recognizer, seen = Recording(), []
    views = views_of(images=torch.rand(2, 3, 3, 16, 16), weights=torch.tensor([[1.0, 0.0, 0.0], [0.5, 0.5, 0.0]]))
    embed_views(recognizer, faces("ok", "ok"), views, seen)
    more = replace(views, weights=torch.tensor([[1.0, 0.0, 0.0], [0.2, 0.6, 0.2]]))
    embed_views(recognizer, faces("ok", "ok"), more, seen)
    assert [len(batch) for batch, _ in recognizer.asked] == [2, 1, 1]
    all_of_them = replace(views, weights=torch.tensor([[0.5, 0.5, 0.0]] * 2))
    again = embed_views(recognizer, faces("ok", "ok"), all_of_them, seen)
    torch.testing.assert_close(again[:, 1], views.images[:, 1].mean((2, 3)))


def test_yaw_that_the_frontalizer_does_not_know_comes_from_the_landmarks() -> None:
    recognizer = Recording(uses_yaw=True)
    views = PlainCrop()(faces("ok"), ARCFACE_112, 16)
    assert views.yaw.isnan().all()
    embed_views(recognizer, faces("ok"), views)
    assert abs(recognizer.asked[0][1].item()) < 20  # the average landmarks are those of a frontal face


def test_templates_say_what_became_of_each_face() -> None:
    found = FrontalizedRecognizer(Recording(), Mirror()).templates(faces("ok", "failed", "fallback"))
    assert found.status == ("ok", "failed", "fallback")
    assert found.reason == ("", "no_face", "no_face")
    assert found.features.isnan().all(1).tolist() == [False, True, False]
    assert found.yaw.isnan().all()


def test_features_of_half_precision_are_fused_in_whole_precision() -> None:
    class Half(Recording):
        def embed(self, batch: Tensor, yaw: Tensor | None = None) -> Tensor:
            return super().embed(batch, yaw).half()

    class OneOfTwo(Mirror):
        def __call__(self, faces: FaceCrops, alignment: AlignmentTemplate, size: int) -> Views:
            return replace(super().__call__(faces, alignment, size), weights=torch.tensor([[1.0, 0.0]] * len(faces)))

    templates = FrontalizedRecognizer(Half(), OneOfTwo()).templates(faces("ok", "ok"))
    assert templates.features.dtype == torch.float32
    torch.testing.assert_close(templates.features.norm(dim=1), torch.ones(2))


@pytest.mark.parametrize(
    ("features", "words"),
    [
        ([[0.0] * 4] * 2, "gave list for 2 images: a tensor B x D is needed"),
        (np.zeros((3, 4)), r"gave a tensor of \(3, 4\)"),
        ((torch.zeros(2, 4), None), "gave tuple"),
        (torch.zeros(4), r"gave a tensor of \(4,\)"),
    ],
)
def test_what_is_no_batch_of_features_is_named(features: object, words: str) -> None:
    class Wrong(Recording):
        def embed(self, batch: Tensor, yaw: Tensor | None = None) -> Tensor:
            return features  # type: ignore[return-value]

    with pytest.raises(TypeError, match=rf"Wrong\.embed {words}"):
        FrontalizedRecognizer(Wrong(), PlainCrop()).templates(faces("ok", "ok"))


def test_templates_are_chosen_and_counted_row_by_row() -> None:
    found = FrontalizedRecognizer(Recording(), PlainCrop()).templates(faces("failed", "ok", "ok"))
    assert len(found) == 3
    assert found[[0]].reason == ("no_face",)
    assert torch.equal(found[[1, 2]].features, found.features[1:])


def test_a_view_maker_that_lacks_something_is_told_what() -> None:
    def maker(*_: object) -> None: ...

    with pytest.raises(TypeError, match="lacks name and fingerprint and default_fusion"):
        FrontalizedRecognizer(Recording(), maker)


def test_features_may_be_a_numpy_array() -> None:
    class InNumpy(Recording):
        def embed(self, batch: Tensor, yaw: Tensor | None = None) -> np.ndarray:  # type: ignore[override]
            features = super().embed(batch, yaw).double().numpy()
            features.flags.writeable = False
            return features

    expected = FrontalizedRecognizer(Recording(), Mirror()).embed_faces(faces("ok", "failed"))
    found = FrontalizedRecognizer(InNumpy(), Mirror()).embed_faces(faces("ok", "failed"))
    torch.testing.assert_close(found, expected, equal_nan=True)


def test_a_recognizer_is_no_name() -> None:
    with pytest.raises(TypeError, match=r"load_recognizer\('sface'\)"):
        FrontalizedRecognizer("sface", Mirror())  # type: ignore[arg-type]


def test_its_text_says_what_it_is_made_of() -> None:
    assert repr(FrontalizedRecognizer(Recording(), Mirror())) == (
        f"FrontalizedRecognizer('recording', 'mirror', fusion={Mirror().default_fusion!r})"
    )


def test_a_photo_without_a_face_is_nobodys_nearest_neighbour() -> None:
    gallery = torch.tensor([[0.0, 1.0], [torch.nan, torch.nan], [0.6, 0.8]])
    probes = torch.tensor([[1.0, 0.0], [torch.nan, torch.nan]])
    found = similarities(gallery, probes)
    none = -torch.inf
    torch.testing.assert_close(found, torch.tensor([[0.0, none], [none, none], [0.6, none]]))
    assert found[:, 0].argmax() == 2


def test_similarities_take_arrays_and_say_what_they_need() -> None:
    found = similarities(np.eye(3, dtype=np.float16), np.array([[1.0, 0.0, np.nan]]))
    assert found.tolist() == [[-np.inf]] * 3
    with pytest.raises(ValueError, match=r"templates\[None\]"):
        similarities(torch.eye(3), torch.ones(3))


def test_a_forked_model_is_refused_where_it_would_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    model = FrontalizedRecognizer(Recording(), PlainCrop())
    monkeypatch.setattr("os.getpid", lambda: -1)
    monkeypatch.setattr("torch.get_num_threads", lambda: 2)
    with pytest.raises(RuntimeError, match="start workers by spawn"):
        model.templates(faces("ok"))
    assert pickle.loads(pickle.dumps(model)).templates(faces("ok")).status == ("ok",)


def test_a_bare_network_is_no_recognizer() -> None:
    with pytest.raises(TypeError, match=r"a Linear is no recognizer: ModuleRecognizer"):
        FrontalizedRecognizer(torch.nn.Linear(2, 2), PlainCrop())  # type: ignore[arg-type]


def test_a_face_whose_features_are_not_finite_failed() -> None:
    class Broken(Recording):
        def embed(self, batch: Tensor, yaw: Tensor | None = None) -> Tensor:
            features = super().embed(batch, yaw)
            features[0] = torch.nan
            return features

    templates = FrontalizedRecognizer(Broken(), Mirror()).templates(faces("ok", "ok"))
    assert templates.status == ("failed", "ok")
    assert templates.reason == ("features_not_finite", "")
    assert templates.features.isnan().all(1).tolist() == [True, False]


@pytest.mark.parametrize(("value", "reason"), [(0.0, "features_zero"), (1e25, "features_not_finite")])
def test_a_face_whose_features_have_no_direction_failed(value: float, reason: str) -> None:
    class Broken(Recording):
        def embed(self, batch: Tensor, yaw: Tensor | None = None) -> Tensor:
            return torch.full_like(super().embed(batch, yaw), value)

    templates = FrontalizedRecognizer(Broken(), Mirror()).templates(faces("ok"))
    assert (templates.status, templates.reason) == (("failed",), (reason,))
    assert templates.features.isnan().all()


@pytest.mark.parametrize("maker", [PlainCrop(), Mirror()])
def test_no_faces_have_no_templates(maker: ViewMaker) -> None:
    """What `FaceFinder.every_face` gives of a photo without a face."""
    assert FrontalizedRecognizer(Recording(), maker).embed_faces(FaceCrops.failed(())).shape == (0, 3)
    assert FaceCrops.failed(()).usable.dtype == torch.bool


def test_a_failed_face_keeps_its_reason() -> None:
    views = Views(
        torch.zeros(1, 1, 3, 4, 4), torch.ones(1, 1), ("crop",), torch.tensor([torch.nan]), ("failed",), ("no_face",)
    )
    assert failed_without_direction(views, torch.full((1, 1, 2), torch.nan)).reason == ("no_face",)


def test_features_of_a_view_that_does_not_count_may_be_anything() -> None:
    views = Views(
        torch.zeros(1, 2, 3, 4, 4), torch.tensor([[0.0, 1.0]]), ("crop", "other"), torch.zeros(1), ("ok",), ("",)
    )
    assert failed_without_direction(views, torch.tensor([[[torch.nan], [1.0]]])).status == ("ok",)
    assert failed_without_direction(views, torch.tensor([[[1.0], [torch.nan]]])).status == ("failed",)


def test_weights_that_sum_to_less_than_1_are_refused() -> None:
    with pytest.raises(ValueError, match="sum to 1"):
        Views(torch.zeros(1, 1, 3, 4, 4), torch.full((1, 1), 0.5), ("crop",), torch.zeros(1), ("ok",), ("",))


@pytest.mark.parametrize("name", ["none", "mirror"])
def test_what_lies_beyond_the_photo_is_black_in_every_view(name: str) -> None:
    faces = cut(np.full((100, 100, 3), 255, np.uint8), np.array([-30.0, -30, 130, 130]))
    views = load_view_maker(name)(faces, ARCFACE_112, 112)
    assert (views.images[..., 0, :] == 0).all()
    assert (views.images[..., 56, 56] > 0.99).all()


def test_an_argument_may_hold_a_colon() -> None:
    with pytest.raises(ConfigError, match="'a:b'"):
        load_view_maker("mirror:a:b")


class Knows(Mirror):
    """Knows the faces' yaw; its second view is another picture."""

    def __init__(self, yaw: list[float]) -> None:
        self.yaw = yaw

    def __call__(self, faces: FaceCrops, alignment: AlignmentTemplate, size: int) -> Views:
        views = super().__call__(faces, alignment, size)
        images = views.images.clone()
        images[:, 1, 0] = 0
        known, self.yaw = self.yaw[: len(faces)], self.yaw[len(faces) :]
        return replace(views, images=images, yaw=torch.tensor(known), shown_yaw=None)


def test_where_no_view_maker_knows_the_yaw_it_is_read_off_the_landmarks() -> None:
    template = load_template()
    points = warp.points_at(template.position_map(128)[None], template.landmarks("five"))
    camera = camera_from_angles(torch.tensor([40.0, -25.0]), 5.0, 15.0, 0.8, torch.full((2, 2), 127.5))
    recognizer = Recording(uses_yaw=True)
    seen = replace(faces("ok", "ok"), landmarks=camera.project(points.expand(2, -1, -1)).transpose(1, 2))
    embed_views(recognizer, seen, PlainCrop()(seen, ARCFACE_112, 16))
    assert recognizer.asked[0][1].tolist() == pytest.approx([40.0, -25.0], abs=5)


def test_a_recognizer_is_told_the_yaw_of_the_faces_that_use_a_view() -> None:
    recognizer = Recording(uses_yaw=True)
    weights = torch.tensor([[1.0, 0, 0], [0.5, 0.5, 0]])
    views = views_of(images=torch.rand(2, 3, 3, 16, 16), weights=weights, yaw=torch.tensor([10.0, 60.0]))
    embed_views(recognizer, faces("ok", "ok"), views)
    assert [yaw.tolist() for _, yaw in recognizer.asked] == [[10.0, 60.0], [60.0]]


def test_fusion_by_yaw_sees_the_view_makers_yaw() -> None:
    two = faces("ok", "ok")[[0, 0]]
    gated = FrontalizedRecognizer(Recording(), Knows([0.0, 90.0]), "yaw").templates(two)
    cosine = (gated.features * FrontalizedRecognizer(Recording(), PlainCrop()).embed_faces(two)).sum(1)
    assert cosine[0] > 0.999 > 0.98 > cosine[1]
    assert gated.yaw.tolist() == [0.0, 90.0]


def test_yaws_of_batches_stay_in_order() -> None:
    model = FrontalizedRecognizer(Recording(), Knows([10.0, 20.0, 30.0]))
    assert model.templates(faces("ok", "ok", "ok"), batch_size=2).yaw.tolist() == [10.0, 20.0, 30.0]


def test_photos_are_embedded_in_batches_of_the_size_that_is_asked_for() -> None:
    model = FrontalizedRecognizer(Recording(), PlainCrop(), finder=lambda photos: faces(*["ok"] * (2 * len(photos))))
    model.embed_images([np.zeros((8, 8, 3), np.uint8)] * 2, batch_size=2)  # four faces of two photos
    assert [len(images) for images, _ in model.recognizer.asked] == [2, 2]


def test_one_view_without_direction_is_enough_to_fail() -> None:
    features = torch.ones(2, 3, 4)
    features[0, 1], features[1, 0] = 0, torch.inf
    judged = failed_without_direction(views_of(weights=torch.tensor([[0.5, 0.5, 0.0]] * 2)), features)
    assert judged.reason == ("features_zero", "features_not_finite")
