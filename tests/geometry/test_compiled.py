"""Compiled loops run wherever the package is installed."""

import numpy as np
import pytest
from numba.core.caching import CacheImpl

from pifr.geometry.compiled import compiled


def doubled(values):
    return 2 * values


@pytest.mark.parametrize("options", [{}, {"nogil": True}])
def test_loops_run_where_nothing_can_be_kept(monkeypatch: pytest.MonkeyPatch, options: dict[str, bool]) -> None:
    monkeypatch.setattr(CacheImpl, "_locator_classes", [])  # as numba finds it in a read-only image without a home
    loop = compiled(**options)(doubled) if options else compiled(doubled)
    assert loop(np.ones(3)).tolist() == [2.0, 2.0, 2.0]
    assert loop.targetoptions.get("nogil", False) == bool(options)
