"""Faces painted with their own NCC: networks that read the paint are perfect, so what remains is the pipeline."""

from contextlib import AbstractContextManager, nullcontext
from copy import copy
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from pifr.faces import FaceCrops
from pifr.frontalizer import Frontalizer, FrontalizerConfig
from pifr.geometry.camera import camera_from_angles
from pifr.geometry.render import render
from pifr.geometry.template import load_template
from pifr.locator import FaceLocator, LocatorConfig
from pifr.networks.pncc import PnccPrediction
from pifr.networks.weights import build_network, save_network
from pifr.training.config import load_training_config

NETWORKS = ("segmentation", "pncc", "inpainting", "shape-coarse", "shape-fine")

SCALE = 0.68  # pixels per mm: the face fills half of the crop


class ReadsMask(nn.Module):
    calls = 0

    def forward(self, pixels: Tensor) -> Tensor:
        self.calls += 1
        return functional.avg_pool2d((pixels.amax(1, keepdim=True) > 0.03).float(), 2) * 20 - 10


class ReadsPncc(nn.Module):
    config = SimpleNamespace(crop_factor=1.38, input_size=128)

    def forward(self, pixels: Tensor, mask: Tensor) -> PnccPrediction:
        # Where the face ends, interpolation has mixed its paint with black.
        outside = (pixels.amax(1, keepdim=True) < 0.03).float()
        return PnccPrediction(pixels, 10 - 20 * functional.max_pool2d(outside, 3, 1, 1))


class PaintReader(dict):
    """Stands for `Pretrained`."""

    device = torch.device("cpu")
    fingerprint = "paint"

    def __init__(self) -> None:
        super().__init__({"segmentation": ReadsMask(), "pncc": ReadsPncc()})

    def autocast(self) -> AbstractContextManager[None]:
        return nullcontext()


def painted_faces(yaw: list[float], scale: float = SCALE, roll: float = 0.0, pitch: float = 0.0) -> FaceCrops:
    """The mean face at several yaw angles, painted with its NCC."""
    template, count = load_template(), len(yaw)
    camera = camera_from_angles(torch.tensor(yaw), pitch, roll, scale, torch.full((count, 2), 127.5))
    drawn = render(template.position_map(128)[None], template.ncc_map(128)[None], camera, 256)
    return faces_of(drawn.attributes)


def faces_of(pixels: Tensor) -> FaceCrops:
    count = len(pixels)
    landmarks = torch.full((count, 5, 2), torch.nan)
    return FaceCrops(pixels, torch.eye(2, 3).repeat(count, 1, 1), landmarks, ("ok",) * count, ("",) * count)


def photo_edges(left: float, top: float, right: float, bottom: float, count: int) -> Tensor:
    """`FaceCrops.edges` of crops whose photo ends at these columns and rows."""
    lines = torch.tensor([[1, 0, -left], [0, 1, -top], [-1, 0, right], [0, -1, bottom]])
    return lines.repeat(count, 1, 1)


@pytest.fixture(scope="session")
def fresh_locator() -> FaceLocator:
    # A mirror image of the paint would not be the mirrored face's paint.
    return FaceLocator(PaintReader(), LocatorConfig(mirrored_pass=False, pncc_deviation=2.5))


@pytest.fixture
def locator(fresh_locator: FaceLocator) -> FaceLocator:
    changeable = copy(fresh_locator)
    changeable.pretrained = PaintReader()
    return changeable


@pytest.fixture
def frontalizer(locator: FaceLocator) -> Frontalizer:
    return Frontalizer(locator, PaintReader(), FrontalizerConfig(completion="smooth", shape="fit"))


@pytest.fixture(scope="session")
def random_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of untrained `lite` networks, as `pifr train` writes it."""
    folder = tmp_path_factory.mktemp("weights")
    config = load_training_config("lite")
    for name in NETWORKS:
        torch.manual_seed(0)
        network = build_network(config.task(name).network)
        if name == "shape-fine":  # as it begins, it displaces nothing
            nn.init.normal_(network.unet.last.weight)
        save_network(network, folder / name / "weights.safetensors", {})
    return folder
