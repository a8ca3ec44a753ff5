"""The weights that are shipped, on drawn people who do not exist."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from pifr.faces import FaceCrops, cut
from pifr.locator import FaceLocator
from protocols.synthetic.people import expression, sample_person
from protocols.synthetic.photography import photograph
from protocols.synthetic.scene import Scene, View

YAW = (-80.0, -45.0, 0.0, 60.0) * 3


@pytest.fixture(scope="module")
def locator() -> FaceLocator:
    return FaceLocator.from_pretrained()


@pytest.fixture(scope="module")
def faces() -> FaceCrops:
    crops = []
    for index, yaw in enumerate(YAW):
        rng = np.random.default_rng(index)
        scene = Scene(sample_person(7, index), expression("neutral", 0.5, rng))
        view = View(yaw, 0.0, 0.0, 1.0, (160.0, 160.0), 320, 320)
        crops.append(cut(photograph(scene, view, rng), np.array([80.0, 70.0, 240.0, 250.0])))
    return FaceCrops.concatenate(crops)


def test_drawn_people_are_located(locator: FaceLocator, faces: FaceCrops) -> None:
    located = locator(faces)
    assert located.status == ("ok",) * len(YAW)
    assert (located.yaw - torch.tensor(YAW)).abs().max() < 12


@pytest.mark.parametrize(
    "spoil",
    [
        lambda pixels: pixels.flip(2),
        lambda pixels: pixels.rot90(1, (2, 3)),
        lambda pixels: pixels.roll(128, 3),
        lambda pixels: torch.rand(pixels.shape, generator=torch.Generator().manual_seed(0)),
    ],
    ids=["upside down", "lying", "beside the face", "noise"],
)
def test_most_of_what_is_no_upright_face_falls_back(
    locator: FaceLocator, faces: FaceCrops, spoil: Callable[[Tensor], Tensor]
) -> None:
    located = locator(replace(faces, pixels=spoil(faces.pixels)))
    assert located.status.count("fallback") > 0.6 * len(YAW)
