"""In which precision networks run."""

from pathlib import Path

import pytest
import torch

from pifr.networks.pretrained import Pretrained


@pytest.mark.parametrize(
    "capabilities, expected",
    [
        ({"amx_bf16": True, "avx512_bf16": True}, torch.bfloat16),
        ({"amx_bf16": False, "avx512_bf16": True}, torch.bfloat16),  # AMD from Zen 4 on
        ({"avx512_f": True}, torch.float32),
        ({}, torch.float32),
    ],
)
def test_bfloat16_is_chosen_where_the_processor_multiplies_it(
    random_weights: Path, monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, bool], expected: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    with Pretrained(("segmentation",), weights=random_weights).autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == expected
