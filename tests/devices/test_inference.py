"""Everything that finds, turns and recognizes faces gives on another device what it gives on the CPU."""

from copy import deepcopy
from dataclasses import fields, is_dataclass, replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from feature_extractors.base import ModuleRecognizer, RecognizerConfig
from feature_extractors.lightcnn import LightCNN29v2, LightCNNv4
from feature_extractors.resnet import DreamResNet50
from pifr.cli.main import main
from pifr.export.mesh import write_mesh
from pifr.export.panels import panels
from pifr.faces import ARCFACE_112, FaceCrops, FaceFinder
from pifr.frontal_views import AlignViews, Renderings, SrtcViews, ViewWeights
from pifr.frontalized import FrontalizedFaces
from pifr.frontalizer import Frontalizer, FrontalizerConfig
from pifr.fusion import FUSIONS, fuse
from pifr.geometry.camera import camera_from_angles
from pifr.geometry.render import rasterize, render, render_frontal
from pifr.geometry.template import load_template
from pifr.geometry.warp import points_at
from pifr.locator import FaceLocator, LocatorConfig
from pifr.networks.pretrained import Pretrained
from pifr.person_shape import PersonShapeReader
from pifr.plugin import FrontalizedRecognizer
from pifr.training.landmark_sources import CNetSource
from pifr.views import Mirror, PlainCrop, ViewMaker
from protocols.extraction import FeatureTable, Image, System, extract
from protocols.store import FeatureStore

from ..frontalizer.conftest import PaintReader, faces_of, painted_faces, photo_edges
from .conftest import TOLERANCE, small_network

pytestmark = pytest.mark.usefixtures("without_loops", "quick_correspondence")


def tensors_of(result: Any) -> dict[str, Tensor]:
    """All tensors of a result, by where they lie in it."""
    if isinstance(result, Tensor):
        return {"": result}
    if is_dataclass(result):
        parts = {field.name: getattr(result, field.name) for field in fields(result)}
    elif hasattr(result, "_asdict"):
        parts = result._asdict()
    elif isinstance(result, list | tuple):
        parts = dict(enumerate(result))
    else:
        return {}
    return {f"{name}.{place}": tensor for name, part in parts.items() for place, tensor in tensors_of(part).items()}


def assert_alike(elsewhere: Any, here: Any, device: torch.device) -> None:
    """Every tensor of a result lies on the device, and is the CPU's."""
    found, expected = tensors_of(elsewhere), tensors_of(here)
    assert found
    assert found.keys() == expected.keys()
    assert {place for place, tensor in found.items() if tensor.device.type != device.type} == set()
    for place, tensor in found.items():
        torch.testing.assert_close(
            tensor.cpu(), expected[place], equal_nan=True, msg=lambda text, at=place: f"{at}: {text}", **TOLERANCE
        )


@pytest.fixture(scope="module")
def faces() -> FaceCrops:
    """A face that was not found, and located ones: turned, cut by the photo's edge, too far round, and none at all."""
    painted = painted_faces([-50.0, 20.0, 130.0])
    edges = torch.cat([painted.edges[:1], photo_edges(0.0, 100.0, 255.0, 255.0, 1), painted.edges[2:]])
    return FaceCrops.concatenate(
        [FaceCrops.failed(["no_face"]), replace(painted, edges=edges), faces_of(torch.full((1, 3, 256, 256), 0.5))]
    )


@cache
def locator_on(device: torch.device | str) -> FaceLocator:
    """With networks that read the paint; the same for all tests, so that a batch is located once."""
    reader = PaintReader()
    reader.device = torch.device(device)
    return FaceLocator(reader, LocatorConfig(mirrored_pass=False, pncc_deviation=2.5))


def frontalizer_on(device: torch.device | str, weights: Path, config: FrontalizerConfig) -> Frontalizer:
    """With networks that read the paint, and untrained ones for the rest."""
    networks = Pretrained(config.networks, weights=weights, device=device, precision="float32")
    return Frontalizer(locator_on(device), networks, config)


@pytest.mark.parametrize(
    "config",
    [
        FrontalizerConfig(),
        FrontalizerConfig(completion="inet", shape="snet", fine=True, surround="black"),
        FrontalizerConfig(completion="smooth", shape="mean", surround="black"),
        FrontalizerConfig(completion="mirror", shape="mean"),
    ],
    ids=lambda config: f"{config.completion}-{config.shape}-{config.surround}",
)
def test_faces_are_frontalized_alike(device, faces, random_weights, config):
    elsewhere, here = (frontalizer_on(place, random_weights, config)(faces) for place in (device, "cpu"))
    assert_alike(elsewhere, here, device)
    assert elsewhere.status == here.status == ("failed", "ok", "ok", "fallback", "fallback")
    assert elsewhere.reason == here.reason


def test_what_is_read_off_frontalized_faces_is_alike(device, faces, tmp_path):
    elsewhere, here = (
        Frontalizer(locator_on(place), PaintReader(), FrontalizerConfig())(faces) for place in (device, "cpu")
    )
    for read in (
        lambda result: result.landmarks("multipie68", "image"),
        lambda result: (result.reliable, result.yaw, result.visible_fraction, result.surface),
        lambda result: (result[[1, 3]], result[result.reliable], result[1:3]),
        lambda result: FrontalizedFaces.concatenate([result[:1], result[1:]]),
    ):
        assert_alike(read(elsewhere), read(here), device)
    assert_alike(elsewhere.to("cpu"), here, torch.device("cpu"))
    for shown, expected in zip(panels(faces[1:2], elsewhere[1:2]), panels(faces[1:2], here[1:2]), strict=True):
        for name, picture in shown.items():
            np.testing.assert_allclose(picture.astype(int), expected[name], atol=1)
    assert write_mesh(elsewhere, 1, tmp_path / "face.glb")[0].is_file()


def test_c_net_locates_faces_alike(device, faces, random_weights):
    config = LocatorConfig(precision="float32", mirrored_pass=True, passes=2)
    elsewhere, here = (
        FaceLocator.from_pretrained(weights=random_weights, device=place, config=config)(faces[1:3])
        for place in (device, "cpu")
    )
    assert_alike(elsewhere, here, device)


def test_an_empty_batch_stays_on_its_device(device):
    located = locator_on(device)(FaceCrops.failed(()))
    assert located.mask.shape[0] == 0
    assert located.mask.device.type == device.type


def test_a_person_has_the_same_shape(device, faces):
    elsewhere, here = (PersonShapeReader(locator_on(place))(faces[:3], batch_size=2) for place in (device, "cpu"))
    assert_alike(elsewhere, here, device)


def test_landmarks_for_registration_are_alike(device, faces):
    elsewhere, here = (CNetSource(locator_on(place))(np.zeros(0), faces[2:3]) for place in (device, "cpu"))
    np.testing.assert_allclose(elsewhere.points, here.points, rtol=1e-5, atol=1e-3)


# --- what recognizers are shown, and what they see ------------------------------------------------------------------


def view_makers_on(device: torch.device | str) -> list[ViewMaker]:
    locator = locator_on(device)
    frontalizer = Frontalizer(locator, PaintReader(), FrontalizerConfig())
    return [
        AlignViews(locator, ViewWeights()),
        SrtcViews(frontalizer, ViewWeights(), Renderings()),
        SrtcViews(frontalizer, ViewWeights(), Renderings(render_yaw=(0.0, 30.0), painted=True)),
    ]


def test_views_are_alike(device, faces):
    for elsewhere, here in zip(view_makers_on(device), view_makers_on("cpu"), strict=True):
        assert_alike(elsewhere(faces, ARCFACE_112, 64), here(faces, ARCFACE_112, 64), device)
    for maker in (PlainCrop(), Mirror()):
        assert_alike(maker(faces.to(device), ARCFACE_112, 64), maker(faces, ARCFACE_112, 64), device)


FINDER = FaceFinder("aligned")  # needs no weights


def recognizer_on(device: torch.device | str, *, uses_yaw: bool = False) -> ModuleRecognizer:
    network = small_network()

    class Turned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.plain = network

        def forward(self, images: Tensor, yaw: Tensor) -> Tensor:
            return self.plain(images) * yaw.cos()[:, None]

    config = RecognizerConfig(
        name="small",
        input_size=64,
        alignment=ARCFACE_112,
        embedding_size=72,
        licence="none",
        origin="made here",
        channels="BGR",
        uses_yaw=uses_yaw,
    )
    return ModuleRecognizer(Turned() if uses_yaw else network, config, device=device)


@pytest.mark.parametrize("uses_yaw", [False, True])
@pytest.mark.parametrize("views_elsewhere, recognizer_elsewhere", [(True, True), (True, False), (False, True)])
def test_templates_are_alike(device, faces, views_elsewhere, recognizer_elsewhere, uses_yaw):
    recognizer = recognizer_on(device if recognizer_elsewhere else "cpu", uses_yaw=uses_yaw)
    place = device if views_elsewhere else torch.device("cpu")
    _, maker, _ = view_makers_on(place)
    _, here, _ = view_makers_on("cpu")
    # Faces come from the CPU, as a finder gives them.
    found = FrontalizedRecognizer(recognizer, maker, finder=FINDER).templates(faces)
    expected = FrontalizedRecognizer(recognizer_on("cpu", uses_yaw=uses_yaw), here, finder=FINDER).templates(faces)
    assert_alike(found, expected, place)


def test_a_recognizer_may_answer_on_the_cpu(device, faces):
    class Answering:
        config = SimpleNamespace(alignment=ARCFACE_112, input_size=32, uses_yaw=False)

        def embed(self, batch: Tensor) -> Tensor:
            return batch.cpu().mean((2, 3))

    found = FrontalizedRecognizer(Answering(), AlignViews(locator_on(device), ViewWeights())).templates(faces)
    assert found.features.device.type == device.type


def test_faces_may_lie_on_another_device_than_the_view_maker(device, faces):
    _, maker, _ = view_makers_on("cpu")
    assert_alike(maker(faces.to(device), ARCFACE_112, 64), maker(faces, ARCFACE_112, 64), torch.device("cpu"))


@pytest.mark.parametrize("fusion", FUSIONS)
def test_views_are_fused_alike(device, fusion):
    features = torch.rand(3, 4, 8, generator=torch.Generator().manual_seed(0))
    seen = features, torch.tensor([[0.4, 0.3, 0.2, 0.1]] * 2 + [[1, 0, 0, 0]]), torch.tensor([0.0, 70.0, torch.nan])
    assert_alike(fuse(*(each.to(device) for each in seen), fusion), fuse(*seen, fusion), device)


@pytest.mark.parametrize(
    "network, channels, size, length",
    [(LightCNNv4, "RGB", 128, 256), (LightCNN29v2, "grey", 128, 256), (DreamResNet50, "RGB", 224, 256)],
)
def test_recognizers_embed_alike(device, network, channels, size, length):
    torch.manual_seed(0)
    made, turned = network(), network is DreamResNet50
    config = RecognizerConfig(
        name="made",
        input_size=size,
        alignment=ARCFACE_112,
        embedding_size=length,
        licence="none",
        origin="made here",
        channels=channels,
        uses_yaw=turned,
    )
    batch, yaw = torch.rand(1, 3, size, size), torch.tensor([torch.nan])
    here = ModuleRecognizer(made, config).embed(batch, yaw)
    elsewhere = ModuleRecognizer(made, config, device=device).embed(batch.to(device), yaw.to(device))
    assert_alike(elsewhere, here, device)


# --- geometry -------------------------------------------------------------------------------------------------------


def test_renderings_and_their_gradients_are_alike(device):
    template = load_template()
    texture = torch.rand(1, 3, 40, 70, generator=torch.Generator().manual_seed(0))

    def drawn(place: torch.device | str) -> tuple[Any, ...]:
        positions = template.position_map(48)[None].to(place)
        colours = texture.to(place).requires_grad_()
        yaw = torch.tensor([-70.0, 0.0, 30.0], device=place)
        camera = camera_from_angles(yaw, 5.0, 3.0, 0.26, torch.full((3, 2), 31.5, device=place))
        plain, frontal = (
            render(positions, colours, camera, 64, supersampling=2),
            render_frontal(positions, colours, points_at(positions, template.landmarks("five")), ARCFACE_112, 64),
        )
        (plain.attributes.square().sum() + frontal.attributes.sum()).backward()
        beside = camera[:1].mapped(torch.tensor([[[1.0, 0.0, 900.0], [0.0, 1.0, 0.0]]], device=place))
        return rasterize(positions, camera, 64), plain, frontal, colours.grad, rasterize(positions, beside, 64)

    assert_alike(drawn(device), drawn("cpu"), device)


def test_correspondence_is_alike(device, made_correspondence):
    template = load_template()
    camera = camera_from_angles(torch.tensor([-60.0, 15.0]), 0.0, 0.0, 0.5, torch.full((2, 2), 63.5))
    raster = rasterize(template.position_map(64)[None], camera, 128)
    pncc = raster.sample(template.ncc_map(128)[None])

    def unwrapped(place: torch.device | str) -> tuple[Any, ...]:
        correspondence = deepcopy(made_correspondence).to(place)
        codes, mask = pncc.to(place), raster.mask.to(place)
        seen = correspondence.unwrap(codes, codes, mask, 128)
        observed = correspondence.splat_to_uv(codes, mask)
        matrices, vectors = correspondence.identity_evidence(observed, seen.fit)
        evidence = correspondence.evidence(
            seen.fit.camera, seen.image_map, seen.positions, seen.visibility, seen.texture
        )
        return seen, evidence, correspondence.identity_from(matrices.sum(0), vectors.sum(0))

    assert_alike(unwrapped(device), unwrapped("cpu"), device)


# --- commands and protocols -----------------------------------------------------------------------------------------


def test_commands_write_the_same(device, random_weights, tmp_path, monkeypatch):
    monkeypatch.setattr("feature_extractors.load_recognizer", lambda name, device: recognizer_on(device), raising=False)
    for name in ("a", "b"):
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.full((200, 200, 3), 128, np.uint8))
    landmarks = tmp_path / "landmarks.csv"
    landmarks.write_text("path,x1,y1,x2,y2,x3,y3,x4,y4,x5,y5\na.png,80,80,120,80,100,100,85,130,115,130\n")
    images = [str(tmp_path / "a.png"), str(tmp_path / "b.png"), "--detector", f"file:{landmarks}"]
    written = {}
    for place in (str(device), "cpu"):
        out = tmp_path / place
        options = f"{random_weights},precision=float32"
        for arguments in (
            ["frontalize", "--out", str(out), "--all", "--size", "64", "--options", options],
            ["extract", "--out", str(out / "features.parquet"), "--frontalizer", f"srtc:{options}"],
        ):
            with pytest.raises(SystemExit) as end:
                main([*arguments, *images, "--device", place])
            assert end.value.code == 0
        written[place] = (out / "faces.csv").read_text(), pd.read_parquet(out / "features.parquet")
    (faces, features), (expected_faces, expected_features) = written.values()
    assert faces == expected_faces
    assert features["status"].tolist() == expected_features["status"].tolist() == ["fallback", "failed"]
    np.testing.assert_allclose(features["embedding"][0], expected_features["embedding"][0], atol=1e-5)


def test_protocols_see_the_same(device, tmp_path):
    picture = cv2.imencode(".png", np.random.default_rng(0).integers(0, 256, (112, 112, 3), np.uint8))[1].tobytes()
    images = [Image("a.png", lambda: picture), Image("broken.png", lambda: b"no picture")]

    def features(place: torch.device | str) -> FeatureTable:
        maker, _, _ = view_makers_on(place)
        system = System("small", recognizer_on(place), "align", maker)
        with FeatureStore(tmp_path / f"{place}.sqlite") as store:
            (table,) = extract(images, lambda: FINDER, [system], store, device=str(place))
        return table

    elsewhere, here = features(device), features("cpu")
    assert elsewhere.status.tolist() == here.status.tolist() == ["fallback", "failed"]
    for fusion in FUSIONS:
        torch.testing.assert_close(elsewhere.templates(fusion), here.templates(fusion), equal_nan=True)
