"""The weights that are shipped, on drawn people who do not exist."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from pifr.faces import FaceCrops, cut
from pifr.geometry import warp
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


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_faces_that_lie_on_their_side_or_head_are_located_as_upright_ones(
    locator: FaceLocator, faces: FaceCrops, quarters: int
) -> None:
    upright, (lying, to_turned) = locator(faces), faces.turned(quarters)
    located = locator(lying)
    assert located.status.count("ok") >= len(YAW) - 1
    both = located.reliable
    expected = warp.transform_points(to_turned, upright.landmarks())
    off = (located.landmarks() - expected).norm(dim=-1).mean(1)
    assert off[both].median() < 1e-2  # most are only found by looking at them turned back, which is the same picture
    assert off[both].max() < 12
    torch.testing.assert_close(located.yaw[both], upright.yaw[both], rtol=0, atol=12)
    # In the photo, which was not turned, they lie where they lay.
    in_photo = (located.landmarks(frame="image") - upright.landmarks(frame="image")).norm(dim=-1).mean(1)[both]
    assert in_photo.median() < 1e-2 * faces.crop_to_image[0, :, 0].norm() + 1e-2


@pytest.mark.parametrize(
    "spoil",
    [
        lambda pixels: pixels.roll(128, 3),
        lambda pixels: torch.rand(pixels.shape, generator=torch.Generator().manual_seed(0)),
    ],
    ids=["beside the face", "noise"],
)
def test_most_of_what_is_no_face_falls_back(
    locator: FaceLocator, faces: FaceCrops, spoil: Callable[[Tensor], Tensor]
) -> None:
    located = locator(replace(faces, pixels=spoil(faces.pixels)))
    assert located.status.count("fallback") > 0.6 * len(YAW)
