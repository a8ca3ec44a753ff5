"""Augmentation keeps images, codes and masks together."""

import cv2
import numpy as np
import pytest
import torch

from pifr.geometry.framing import bounding_squares
from pifr.training.augment import (
    Crop,
    Framing,
    _border,
    _bounding_square,
    _rotation,
    degrade,
    imprecise_mask,
    mirror_position_map,
    occlude,
    random_crop,
)

CANVAS = 192
PLAIN = Framing.plain(1.4)


def ellipse(width: float = 40, height: float = 50, centre: tuple[float, float] = (95.5, 95.5)) -> np.ndarray:
    """PNCC whose codes are the pixel coordinates, (x, y, 1/2) / 191."""
    y, x = np.mgrid[:CANVAS, :CANVAS].astype(float)
    inside = ((x - centre[0]) / width) ** 2 + ((y - centre[1]) / height) ** 2 < 1
    codes = np.stack([x / 191, y / 191, np.full_like(x, 0.5)], -1)
    return np.where(inside[..., None], np.rint(1 + 254 * codes), 0).astype(np.uint8)


def photo_of(pncc: np.ndarray) -> np.ndarray:
    """A photo whose red and green channels show the codes, over black."""
    return pncc.copy()


def test_plain_crop_is_centred_on_the_mask() -> None:
    pncc = ellipse(centre=(80.0, 110.0))
    crop = random_crop(photo_of(pncc), pncc, PLAIN, 128, np.random.default_rng(0))
    rows, columns = np.nonzero(crop.mask)
    assert (rows.min() + rows.max()) / 2 == pytest.approx(63.5, abs=1)
    assert (columns.min() + columns.max()) / 2 == pytest.approx(63.5, abs=1)
    assert np.ptp(rows) + 1 == pytest.approx(128 / 1.4, abs=2)


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_a_crop_is_laid_around_the_square_that_inference_finds(degrees: int) -> None:
    pncc = ellipse(centre=(80.0, 110.0))
    cv2.line(pncc, (30, 112), (80, 110), (9, 9, 9), 3)  # a tip of the nose, or what looks like one
    turn = _rotation(np.radians(degrees))
    centre, side = _bounding_square(pncc, turn)
    mask = torch.from_numpy(pncc[..., 0] > 0).float()[None, None]
    wanted, wanted_side, _ = bounding_squares(mask)
    assert side == pytest.approx(wanted_side.item(), abs=1)
    np.testing.assert_allclose(centre, turn @ wanted[0].double().numpy(), atol=1)


def test_a_predicted_mask_errs_a_little_and_is_right_on_average() -> None:
    mask = ellipse(centre=(80.0, 110.0))[..., 0] > 0
    drawn = [imprecise_mask(mask, np.random.default_rng(seed)) for seed in range(60)]
    both = [((seen > 127) & mask).sum() / ((seen > 127) | mask).sum() for seen in drawn]
    assert 0.8 < min(both) < 0.95
    assert 0.9 < np.mean(both) < 0.99
    assert np.mean([(seen > 127).mean() for seen in drawn]) == pytest.approx(mask.mean(), rel=0.05)
    assert all(((seen > 0) & (seen < 255)).any() for seen in drawn)


def test_codes_follow_the_pixels_through_every_jitter() -> None:
    pncc = ellipse()
    framing = Framing((1.1, 1.8), 0.1, cut=0.5)
    for seed in range(40):
        crop = random_crop(photo_of(pncc), pncc, framing, 128, np.random.default_rng(seed))
        # Away from the outline, what is painted on the face is its own code (of the face before it was mirrored).
        inner = crop.mask & (crop.image.min(2) > 0)
        inner[1:-1, 1:-1] &= crop.mask[2:, 1:-1] & crop.mask[:-2, 1:-1] & crop.mask[1:-1, 2:] & crop.mask[1:-1, :-2]
        painted = (crop.image[inner].astype(float) - 1) / 254
        codes = crop.pncc[inner].copy()
        if crop.mirrored:
            codes[:, 0] = 1 - codes[:, 0]
        # The last percent lies at the edge of a cut photo, where face and border are mixed.
        assert np.quantile(np.abs(painted - codes), 0.99) < 0.01


def test_mirrored_crop_of_a_symmetric_face_is_the_same_face() -> None:
    pncc = ellipse()
    photo = photo_of(pncc)
    photo[..., 0] = photo[..., 1]
    plain = random_crop(photo, pncc, PLAIN, 128, np.random.default_rng(0))
    mirrored = random_crop(photo, pncc, PLAIN._replace(mirror=1.0), 128, np.random.default_rng(0))
    assert mirrored.mirrored
    assert not plain.mirrored
    np.testing.assert_allclose(mirrored.pncc, plain.pncc, atol=0.02)


def test_codes_are_zero_outside_the_mask() -> None:
    pncc = ellipse()
    for seed in range(10):
        crop = random_crop(photo_of(pncc), pncc, Framing((1.1, 1.8), 0.1), 64, np.random.default_rng(seed))
        assert not crop.pncc[~crop.mask].any()
        crop = occlude(crop, photo_of(pncc), np.random.default_rng(seed))
        assert not crop.pncc[~crop.mask].any()
        assert crop.pncc.min() >= 0
        assert crop.pncc.max() <= 1


def test_a_cut_photo_shows_no_face_beyond_its_edge() -> None:
    pncc = ellipse()
    areas = [
        random_crop(photo_of(pncc), pncc, Framing((1.4, 1.4), 0.0, 0, 0, 0, cut, 0), 128, np.random.default_rng(seed))
        .mask.mean()
        for cut in (0.0, 1.0)
        for seed in range(20)
    ]  # fmt: skip
    assert np.ptp(areas[:20]) < 1e-6
    assert min(areas[20:]) > 0


def test_occluders_only_take_away() -> None:
    pncc = ellipse()
    crop = random_crop(photo_of(pncc), pncc, PLAIN, 128, np.random.default_rng(0))
    before = Crop(crop.image.copy(), crop.pncc.copy(), crop.mask.copy(), crop.mirrored)
    covered = []
    for seed in range(40):
        after = occlude(crop, photo_of(pncc), np.random.default_rng(seed))
        assert not (after.mask & ~crop.mask).any()
        covered.append(1 - after.mask.sum() / crop.mask.sum())
    assert max(covered) > 0.1
    np.testing.assert_array_equal(crop.image, before.image)
    np.testing.assert_array_equal(crop.mask, before.mask)


def test_crops_are_turned_by_as_many_degrees_as_asked() -> None:
    pncc, turns = ellipse(), []
    for seed in range(60):
        crop = random_crop(photo_of(pncc), pncc, PLAIN._replace(turn=9.0), 128, np.random.default_rng(seed))
        rows, columns = np.nonzero(crop.mask)
        places = np.column_stack([columns, rows, np.ones(len(rows))])
        slope = np.linalg.lstsq(places, crop.pncc[rows, columns, 1], rcond=None)[0]  # of the y codes
        turns.append(np.degrees(np.arctan2(slope[0], slope[1])))
    assert 6 < np.std(turns) < 12


def test_degrading_exchanges_no_colours() -> None:
    orange = np.full((96, 96, 3), (200, 120, 40), np.uint8)
    for seed in range(100):
        red, _, blue = degrade(orange, 70.0, np.random.default_rng(seed)).mean((0, 1))
        assert red >= blue - 3  # a grey photo's are alike, up to noise and compression


def test_faces_of_a_low_resolution_have_24_pixels_or_more(monkeypatch: pytest.MonkeyPatch) -> None:
    sides, resize = [], cv2.resize

    def noted(image: np.ndarray, size: tuple[int, int], **options: int) -> np.ndarray:
        sides.append(size[0])
        return resize(image, size, **options)

    monkeypatch.setattr(cv2, "resize", noted)
    for seed in range(200):
        degrade(np.zeros((96, 96, 3), np.uint8), 48.0, np.random.default_rng(seed))
    assert 47 <= min(sides) < 55  # the face is half the image


def test_degraded_images_keep_their_kind_and_their_seed() -> None:
    image = np.random.default_rng(0).integers(0, 256, (96, 96, 3)).astype(np.uint8)
    results = [degrade(image, 70.0, np.random.default_rng(seed)) for seed in range(60)]
    assert all(result.shape == image.shape and result.dtype == np.uint8 for result in results)
    np.testing.assert_array_equal(results[7], degrade(image, 70.0, np.random.default_rng(7)))
    grey = [np.ptp(result.astype(int), axis=2).max() <= 2 for result in results]
    assert 0 < sum(grey) < 20


def test_mirroring_a_position_map_twice_changes_nothing() -> None:
    position = np.random.default_rng(0).normal(size=(2, 8, 8, 3))
    mirrored = mirror_position_map(position)
    np.testing.assert_array_equal(mirror_position_map(mirrored), position)
    assert mirrored[0, 3, 0, 0] == -position[0, 3, 7, 0]
    assert mirrored[0, 3, 0, 2] == position[0, 3, 7, 2]


def test_a_turned_crop_is_centred_on_the_mask() -> None:
    y, x = np.mgrid[:192, :192].astype(float)
    inside = ((x - 70) / 40) ** 2 + ((y - 115) / 50) ** 2 < 1
    pncc = np.where(inside[..., None], 128, 0).astype(np.uint8).repeat(3, 2)
    framing = Framing.plain(1.4)._replace(turn=25.0)
    for seed in range(5):
        crop = random_crop(pncc, pncc, framing, 128, np.random.default_rng(seed))
        for places in np.nonzero(crop.mask):
            assert (places.min() + places.max()) / 2 == pytest.approx(63.5, abs=1)


def test_a_cut_photo_is_never_continued_by_a_reflection() -> None:
    modes = {_border(True, np.random.default_rng(seed))[0] for seed in range(40)}
    assert cv2.BORDER_REFLECT_101 not in modes
    assert len(modes) == 2
