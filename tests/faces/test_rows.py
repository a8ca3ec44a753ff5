"""How batches of faces are indexed."""

import numpy as np
import pytest
import torch

from pifr.rows import positions_of


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
