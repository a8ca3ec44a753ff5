"""Batches that are trained on more than once."""

from itertools import islice

import numpy as np
import pytest
import torch

from pifr.training.echo import Echoing, seen_anew

SIZE = 64


@pytest.fixture
def batch() -> dict[str, torch.Tensor]:
    """Discs whose codes are the pixels' coordinates, (x, y, 1/2) / (SIZE - 1); the image shows them, grey around."""
    y, x = np.mgrid[:SIZE, :SIZE].astype(np.float32)
    inside = (x - 31.5) ** 2 + (y - 31.5) ** 2 < 18**2
    codes = np.stack([x / (SIZE - 1), y / (SIZE - 1), np.full_like(x, 0.5)], -1)
    image = np.where(inside[..., None], np.rint(255 * codes), 128).astype(np.uint8)
    return {
        "image": torch.from_numpy(image).expand(16, -1, -1, -1),
        "pncc": torch.from_numpy(codes * inside[..., None]).half().expand(16, -1, -1, -1),
        "mask": torch.from_numpy(inside.astype(np.uint8)).expand(16, -1, -1),
        "yaw": torch.full((16,), 40.0),
        "position": torch.zeros(16, 3, 4, 4),
    }


def turn(codes: torch.Tensor, mask: torch.Tensor) -> float:
    """Degrees by which the lines of equal y codes are turned; of a mirrored disc, the other way round."""
    rows, columns = np.nonzero(mask.numpy())
    places = np.column_stack([columns, rows, np.ones(len(rows))])
    slope = np.linalg.lstsq(places, codes.double().numpy()[rows, columns, 1], rcond=None)[0]
    return np.degrees(np.arctan2(slope[0], slope[1]))


def test_each_batch_comes_as_often_as_asked_and_goes_on_where_it_stopped() -> None:
    batches = [{"number": torch.tensor(number)} for number in range(3)]
    numbers = [int(batch["number"]) for batch in Echoing(batches, 3)]
    assert numbers == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    for done in range(9):
        first, skipped = divmod(done, 3)
        again = Echoing(batches[first:], 3, skipped)
        assert [int(batch["number"]) for batch in islice(again, 9)] == numbers[done:]


def test_a_batch_seen_anew_keeps_shapes_types_and_what_it_can_keep(batch) -> None:
    torch.manual_seed(0)
    anew = seen_anew(batch)
    assert set(anew) == {"image", "pncc", "mask", "yaw"}
    for name, value in anew.items():
        assert (value.shape, value.dtype) == (batch[name].shape, batch[name].dtype)
    assert set(anew["yaw"].tolist()) == {40.0, -40.0}
    assert (anew["pncc"][anew["mask"] == 0] == 0).all()
    assert not torch.equal(anew["image"][0], anew["image"][1])


def test_codes_stay_with_their_pixels_and_mirrored_faces_have_mirrored_codes(batch) -> None:
    torch.manual_seed(0)
    anew = seen_anew(batch)
    for image, codes, mask, yaw in zip(anew["image"], anew["pncc"], anew["mask"], anew["yaw"], strict=True):
        shown, codes = image[mask > 0].double() / 255, codes[mask > 0].double()
        if yaw < 0:
            codes[:, 0] = 1 - codes[:, 0]
        for channel in (0, 1):  # up to gain and offset, the image still shows the codes, the rim excepted
            seen = (shown[:, channel] > 0.02) & (shown[:, channel] < 0.98)
            pair = torch.stack([shown[seen, channel], codes[seen, channel]])
            assert torch.corrcoef(pair)[0, 1] > 0.99


def test_a_batch_seen_anew_is_moved_only_a_little(batch) -> None:
    torch.manual_seed(1)
    anew = seen_anew(batch)
    share = anew["mask"].float().mean((1, 2)) / batch["mask"].float().mean()
    assert share.min() > 0.8
    assert share.max() < 1.25
    centre = (anew["mask"].float().sum(1) * torch.arange(SIZE)).sum(1) / anew["mask"].sum((1, 2))
    assert (centre - (SIZE - 1) / 2).abs().max() < 0.06 * SIZE
    assert centre.std() > 0.2
    turns = [turn(codes, mask) for codes, mask in zip(anew["pncc"], anew["mask"], strict=True)]
    assert 4 < np.std(turns) < 11
    assert np.abs(turns).max() < 30


def test_predicted_masks_move_with_the_mask(batch) -> None:
    torch.manual_seed(2)
    anew = seen_anew(batch | {"predicted_mask": 255 * batch["mask"]})
    assert ((anew["predicted_mask"] >= 128) == (anew["mask"] > 0)).float().mean() > 0.999
