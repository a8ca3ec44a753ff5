"""What the caller has set torch's defaults to changes no result."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import numpy as np
import pytest
import torch
from torch import Tensor

from feature_extractors.base import RecognizerConfig
from pifr.faces import ARCFACE_112, FaceFinder
from pifr.frontalizer import Frontalizer, FrontalizerConfig
from pifr.locator import LocatorConfig
from pifr.person_shape import PersonShapeReader
from pifr.plugin import FrontalizedRecognizer
from pifr.views import load_view_maker
from protocols.synthetic.people import expression, sample_person
from protocols.synthetic.photography import photograph
from protocols.synthetic.scene import Scene, View


class Thumbnail:
    """A recognizer without a network."""

    config = RecognizerConfig(
        name="thumbnail",
        input_size=64,
        alignment=ARCFACE_112,
        embedding_size=192,
        licence="none",
        origin="made here",
        uses_yaw=True,
    )

    def embed(self, batch: Tensor, yaw: Tensor | None = None) -> Tensor:
        return torch.nn.functional.avg_pool2d(batch, 8).flatten(1) * yaw.deg2rad().cos()[:, None]


@contextmanager
def float64_default() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.fixture(scope="module")
def photos() -> list[np.ndarray | bytes]:
    """Two drawn people, aligned more or less, and a file that is no photo."""
    rng = np.random.default_rng(0)
    scenes = (Scene(sample_person(7, index), expression("neutral", 0.5, rng)) for index in range(2))
    views = (View(yaw, 0.0, 0.0, 0.5, (56.0, 60.0), 112, 112) for yaw in (-80.0, 30.0))
    return [*(photograph(scene, view, rng) for scene, view in zip(scenes, views, strict=True)), b"no photo"]


def everything(photos: list[np.ndarray | bytes]) -> list[Tensor]:
    """From photos to templates, with the shipped weights."""
    finder = FaceFinder("aligned")
    faces = finder(photos)
    frontalizer = Frontalizer.from_pretrained(
        config=FrontalizerConfig(completion="inet", shape="snet", fine=True, surround="black"),
        location=LocatorConfig(precision="float32", passes=2),
    )
    result = frontalizer(faces)
    assert result.status == ("ok", "ok", "failed")
    results = [faces.pixels, faces.boxes, result.surface, result.uv_texture, result.frontal, result.yaw]
    results += [result.landmarks(frame="image"), result[[0, 2]].mask, PersonShapeReader(frontalizer.locator)(faces)[0]]
    makers = [load_view_maker(name) for name in ("none", "mirror", "align:precision=float32", "srtc:precision=float32")]
    for maker in makers:
        recognizer = FrontalizedRecognizer(Thumbnail(), maker, finder=finder)
        results.append(recognizer.embed_images(photos))
    return results


@pytest.fixture(scope="module")
def expected(photos: list[np.ndarray | bytes]) -> list[Tensor]:
    return everything(photos)


@pytest.mark.parametrize("default", [float64_default(), torch.device("meta")], ids=["dtype", "device"])
def test_defaults_of_torch_change_nothing(
    photos: list[np.ndarray | bytes], expected: list[Tensor], default: AbstractContextManager
) -> None:
    with default:
        results = everything(photos)
    for result, wanted in zip(results, expected, strict=True):
        torch.testing.assert_close(result, wanted, rtol=0, atol=0, equal_nan=True)


def test_loading_a_view_maker_draws_no_random_numbers() -> None:
    before = torch.get_rng_state()
    load_view_maker("srtc:painted=true,completion=inet,shape=snet")
    assert torch.equal(torch.get_rng_state(), before)
