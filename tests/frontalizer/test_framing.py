"""Bounding squares against rectangles that are drawn here."""

import torch

from pifr.geometry.framing import bounding_squares, resized_to, square_to_image
from pifr.geometry.warp import affine_warp, transform_points


def drawn(left: int, top: int, right: int, bottom: int) -> torch.Tensor:
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., top : bottom + 1, left : right + 1] = 1
    return mask


def test_the_square_of_a_rectangle_has_its_longer_side():
    centre, side, found = bounding_squares(drawn(10, 20, 29, 49))
    assert centre.tolist() == [[19.5, 34.5]]
    assert side.tolist() == [30]
    assert found.all()


def test_specks_do_not_move_the_square():
    mask = drawn(10, 20, 29, 49)
    mask[..., 2, 60] = mask[..., 62, 3] = 1
    assert bounding_squares(mask)[0].tolist() == [[19.5, 34.5]]


def test_specks_alone_are_no_face():
    assert not bounding_squares(drawn(10, 10, 14, 12))[2].any()
    assert bounding_squares(drawn(10, 10, 14, 13))[2].all()  # 20 of 4096 pixels are more than 0.4 %


def test_an_empty_mask_is_not_found_and_frames_the_image():
    centre, side, found = bounding_squares(torch.zeros(2, 1, 64, 64))
    assert not found.any()
    assert centre.tolist() == [[31.5, 31.5]] * 2
    assert side.tolist() == [64, 64]


def test_the_crop_of_a_square_shows_it_and_nothing_else():
    mask = drawn(10, 20, 29, 39)
    centre, side, _ = bounding_squares(mask)
    crop = affine_warp(mask, square_to_image(centre, side, 40), 40, "zeros")
    assert crop[..., 1:-1, 1:-1].min() == 1
    wider = affine_warp(mask, square_to_image(centre, side * 2, 40), 40, "zeros")
    assert abs(wider.mean() - 0.25) < 0.01


def test_resizing_maps_corners_of_pixels_to_corners():
    corners = torch.tensor([[[-0.5, -0.5], [63.5, 63.5]]])
    moved = transform_points(resized_to(1, 64, 256, torch.device("cpu")), corners)
    assert moved.tolist() == [[[-0.5, -0.5], [255.5, 255.5]]]
