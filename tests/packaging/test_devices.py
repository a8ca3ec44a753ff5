"""Devices that are asked for."""

import pytest
import torch

from feature_extractors import load_recognizer
from pifr.errors import ConfigError
from pifr.support.devices import usable_device


def test_a_device_that_works_is_given_back():
    assert usable_device("cpu") == usable_device(torch.device("cpu")) == torch.device("cpu")


@pytest.mark.parametrize("device", ["gpu", "cuda:99", ""])
def test_a_device_that_does_not_work_is_refused_with_the_reason(device):
    with pytest.raises(ConfigError, match="cannot be used here"):
        usable_device(device)
    with pytest.raises(ConfigError, match="cannot be used here"):
        load_recognizer("sface", device)
