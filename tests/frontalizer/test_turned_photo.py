"""What a turned photo keeps of the photo, and what it takes from the texture."""

from dataclasses import replace

import pytest
import torch

from pifr.completion import mirrored
from pifr.faces import ARCFACE_112, FaceCrops, align
from pifr.frontalizer import Frontalizer, FrontalizerConfig
from pifr.geometry.warp import pixel_grid

from .conftest import painted_faces, photo_edges

YAW = [-70.0, 20.0, 50.0]


@pytest.fixture(scope="module")
def faces() -> FaceCrops:
    """Painted faces before a background that is nowhere the same."""
    painted = painted_faces(YAW)
    x, y = pixel_grid(256, 256) / 255
    background = torch.stack([0.2 + 0.3 * x, 0.2 + 0.3 * y, 0.5 - 0.2 * x * y])
    empty = painted.pixels.amax(1, keepdim=True) < 0.02
    return replace(painted, pixels=torch.where(empty, background, painted.pixels))


@pytest.fixture
def located(locator, faces):
    return locator(painted_faces(YAW))


def turn(frontalizer, faces, located, largest_yaw, texture=None):
    texture = torch.full_like(located.uv_partial, 0.9) if texture is None else texture
    return frontalizer.turn(faces, located, located.fitted, texture, ARCFACE_112, 112, largest_yaw)


def test_a_face_that_is_not_turned_is_the_realigned_photo(frontalizer, faces, located):
    kept = turn(frontalizer, faces, located, 90.0)
    realigned = align(faces.pixels, located.landmarks("five"), ARCFACE_112, 112)
    difference = (kept - realigned).abs().mean(1)
    assert difference.flatten(1).quantile(0.8, dim=1).max() < 0.03
    corners = difference[:, [2, 2, -3, -3], [2, -3, 2, -3]]
    assert corners.max() < 0.1  # hair and background come along


def test_what_the_photo_hides_is_painted_from_the_texture(frontalizer, faces, located):
    turned = turn(frontalizer, faces, located, 0.0)
    paint = (turned > 0.85).all(1).float()  # no pixel of the photo is this bright
    left, right = paint[:, :, :56].mean((1, 2)), paint[:, :, 56:].mean((1, 2))
    assert right[0] < 0.06 < left[2] + right[2]  # turned to the left, its right side is seen
    assert left[0] > 0.15
    assert left[1] + right[1] < 0.2 < left[2] + right[2]  # of a face at 20 degrees, only the far rim is uncertain


def test_inet_paints_further_into_the_photo(frontalizer, faces, located):
    frontalizers = [
        Frontalizer(frontalizer.locator, frontalizer.pretrained, FrontalizerConfig(completion=completion))
        for completion in ("mirror", "inet")
    ]
    narrow, wide = ((turn(f, faces, located, 0.0) > 0.85).all(1) for f in frontalizers)
    assert wide[narrow].float().mean() > 0.95
    assert wide[0].sum() > narrow[0].sum() + 100  # of 112 x 112: a strip two pixels wide along the midline of a profile


def test_without_a_texture_nothing_is_painted(frontalizer, faces, located):
    plain = frontalizer.turn(faces, located, located.fitted, None, ARCFACE_112, 112, 0.0)
    bright, dark = (
        turn(frontalizer, faces, located, 0.0, torch.full_like(located.uv_partial, value)) for value in (0.9, 0.0)
    )
    unpainted = ((bright - dark).abs().amax(1, keepdim=True) == 0).expand_as(plain)[..., 30:80, 40:72]  # of the face
    torch.testing.assert_close(plain[..., 30:80, 40:72][unpainted], bright[..., 30:80, 40:72][unpainted])
    assert unpainted.float().mean() > 0.5
    assert plain.amax() <= faces.pixels.amax()


def test_what_lies_beyond_the_photo_is_black(frontalizer, faces, located):
    cut = replace(faces, edges=photo_edges(60.0, 60.0, 195.0, 195.0, len(YAW)))
    turned = turn(frontalizer, cut, located, 45.0)
    assert (turned[:, :, :3, :].amax((1, 2, 3)) == 0).all()
    whole = turn(frontalizer, faces, located, 45.0)
    middle = (slice(None), slice(None), slice(45, 80), slice(40, 72))
    torch.testing.assert_close(turned[middle], whole[middle])


def test_turning_stops_at_the_largest_yaw(frontalizer, faces, located):
    views = [turn(frontalizer, faces, located, yaw) for yaw in (60.0, 75.0, 90.0)]
    assert (views[0][0] - views[1][0]).abs().mean() > 0.01  # 70 degrees is turned to 60
    for row in (1, 2):  # 20 and 50 degrees are left as they are
        torch.testing.assert_close(views[0][row], views[2][row])


def test_each_face_can_be_turned_to_a_yaw_of_its_own(frontalizer, faces, located):
    arguments = (faces, located, located.fitted, None, ARCFACE_112, 112)
    halved = frontalizer.turn(*arguments, located.yaw.abs() / 2)
    for row, yaw in enumerate(located.yaw.abs().tolist()):
        torch.testing.assert_close(halved[row], frontalizer.turn(*arguments, yaw / 2)[row], atol=1e-3, rtol=0)
    left = frontalizer.turn(*arguments, torch.full_like(located.yaw, torch.nan))
    torch.testing.assert_close(left, frontalizer.turn(*arguments, 180.0))


# --- the mirrored completion ----------------------------------------------------------------------------------------


def test_each_side_is_completed_by_the_other_one():
    texture = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    visibility = torch.zeros(1, 1, 32, 32)
    visibility[..., :16] = 1
    complete = mirrored(texture, visibility)
    torch.testing.assert_close(complete[..., :16], texture[..., :16])
    torch.testing.assert_close(complete[..., 16:], texture[..., :16].flip(3))


def test_weak_evidence_is_believed_where_there_is_no_better():
    texture, visibility = torch.zeros(1, 3, 32, 32), torch.zeros(1, 1, 32, 32)
    texture[..., :16] = torch.rand(1, 3, 32, 16, generator=torch.Generator().manual_seed(2))
    visibility[..., :16] = 0.2
    complete = mirrored(texture, visibility)
    torch.testing.assert_close(complete, torch.maximum(texture, texture.flip(3)), atol=0.02, rtol=0)


def test_what_neither_side_shows_is_carried_on_smoothly():
    texture = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    visibility = torch.ones(1, 1, 32, 32)
    visibility[..., 12:20, 12:20] = 0
    texture = torch.where(visibility > 0, 0.3 + 0.1 * texture, torch.ones(()))
    hole = mirrored(texture, visibility)[..., 12:20, 12:20]
    assert hole.min() >= 0.3
    assert hole.max() <= 0.4


def test_the_face_beyond_the_photo_is_painted(frontalizer, locator):
    faces = painted_faces([20.0])
    located = locator(faces)
    cut = replace(faces, edges=photo_edges(0.0, 0.0, 255.0, 140.0, 1))
    paint = torch.full_like(located.uv_partial, 0.9)
    turned = frontalizer.turn(cut, located, located.fitted, paint, ARCFACE_112, 112, 20.0)
    assert turned[0, :, 84:90, 50:62].min() > 0.8


def test_paint_is_as_bright_at_the_outline_as_elsewhere(frontalizer, locator):
    faces = painted_faces([-70.0])
    located = locator(faces)
    white = replace(faces, pixels=torch.full_like(faces.pixels, 0.9))
    turned = frontalizer.turn(
        white, located, located.fitted, torch.full_like(located.uv_partial, 0.9), ARCFACE_112, 112
    )
    torch.testing.assert_close(turned, torch.full_like(turned, 0.9), atol=1e-3, rtol=0)
