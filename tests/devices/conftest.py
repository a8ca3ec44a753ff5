import os
from collections.abc import Iterator
from contextlib import suppress
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pifr import completion
from pifr.geometry import compiled, correspondence, render
from pifr.support.devices import usable_device

from ..frontalizer.conftest import random_weights
from . import foreign

__all__ = ["random_weights"]


REAL = os.environ.get("PIFR_TEST_DEVICE")
"""A device of this machine ("cuda") that the tests of this folder run on, instead of the one without hardware."""

TOLERANCE = {"rtol": 1e-3, "atol": 2e-3}
"""Other devices add up in another order: an H200 strayed by up to 5e-4 (brightness, NCC, relative length). So does the
device without hardware, for which torch composes products of matrices otherwise: by up to 1e-4 on an AMD EPYC, where
MKL rounds otherwise than torch's own loops do, and by nothing on an Intel Xeon."""


def pytest_collection_finish() -> None:
    """Before any test runs: torch counts the devices that gradients may lie on when it first computes one."""
    if REAL:
        return
    with suppress(pytest.skip.Exception):  # the `device` fixture says so
        foreign.register()


def small_network() -> nn.Module:
    """A recognizer's network, always the same: images of any size to 72 numbers."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 5, stride=4), nn.ReLU(), nn.AdaptiveAvgPool2d(3), nn.Flatten())


@pytest.fixture(scope="session")
def made_correspondence() -> correspondence.Correspondence:
    return correspondence.Correspondence()


@pytest.fixture
def quick_correspondence(made_correspondence: correspondence.Correspondence, monkeypatch: pytest.MonkeyPatch) -> None:
    """Locators get copies: a new one takes a second to make."""
    monkeypatch.setattr("pifr.locator.Correspondence", lambda: deepcopy(made_correspondence))


@pytest.fixture(scope="session")
def device() -> Iterator[torch.device]:
    if not REAL:
        yield foreign.register()
        return
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        yield usable_device(REAL)


@pytest.fixture
def without_loops(monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU computes as other devices do: by torch's operations instead of compiled loops."""
    compilable, draw_compiled = compiled.compilable, render._draw_compiled

    def only_elsewhere(*tensors: Tensor) -> bool:
        return tensors[0].device.type != "cpu" and compilable(*tensors)

    def draw(x: Tensor, *grids: Any) -> tuple[Tensor, Tensor]:
        return (render._draw_scattered if x.device.type == "cpu" else draw_compiled)(x, *grids)

    for module in (completion, correspondence, render):
        monkeypatch.setattr(module, "compilable", only_elsewhere)
    monkeypatch.setattr(render, "_draw_compiled", draw)
