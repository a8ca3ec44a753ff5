"""How batches of faces are indexed."""

import numpy as np
import pytest
import torch

from pifr.faces import FaceCrops
from pifr.support.rows import in_batches, positions_of


@pytest.mark.parametrize(
    ("index", "rows"),
    [
        (slice(1, None), [1, 2, 3]),
        ([2, 0], [2, 0]),
        ([-1], [3]),
        ([], []),
        ([True, False, False, True], [0, 3]),
        (np.array([False] * 4), []),
        (torch.tensor([3, 3]), [3, 3]),
    ],
)
def test_slices_masks_and_lists_choose_rows(index, rows):
    assert positions_of(index, 4, "Faces") == rows


@pytest.mark.parametrize(
    ("index", "error"), [(1, TypeError), ([0.9], TypeError), ([True], IndexError), ([4], IndexError)]
)
def test_what_is_no_choice_of_rows_is_refused(index, error):
    with pytest.raises(error):
        positions_of(index, 4, "Faces")


def test_batches_hold_all_faces_in_order_and_nothing_is_copied_where_one_is_enough():
    faces = FaceCrops.failed(tuple("abcde"))
    assert [batch.reason for batch in in_batches(faces, 2)] == [("a", "b"), ("c", "d"), ("e",)]
    (whole,) = in_batches(faces, 5)
    assert whole is faces
    assert list(in_batches(faces[:0], 5)) == []
