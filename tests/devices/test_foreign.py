"""The device without hardware refuses what CUDA refuses, and computes what the CPU computes."""

import io
import operator
from copy import deepcopy

import numpy as np
import pytest
import torch
from torch import nn

from .conftest import REAL

pytestmark = pytest.mark.skipif(bool(REAL), reason="says how the device without hardware behaves")


@pytest.mark.parametrize(
    "mixed",
    [
        lambda there, here: there + here,
        lambda there, here: here * there[0, 0],
        lambda there, here: here[0, 0].clone().add_(there[0, 0]),
        lambda there, here: there @ here.T,
        lambda there, here: torch.cat([there, here]),
        lambda there, here: torch.where(here > 0, there, 0.0),
        lambda there, here: torch.equal(there, here),
        lambda there, here: there.masked_fill(here > 0, 0.0),
        lambda there, here: there.gather(0, here.long()),
        lambda there, here: here[there > 0],
        lambda there, here: operator.setitem(there, there > 0, here.flatten()),
        lambda there, here: nn.Linear(3, 2)(there),
        lambda there, here: torch.randn(2, generator=torch.Generator(), device=there.device),
    ],
)
def test_tensors_of_two_devices_do_not_mix(device, mixed):
    here = torch.ones(2, 3)
    with pytest.raises(RuntimeError, match="device"):
        mixed(here.to(device), here)


def test_numpy_does_not_reach_the_device(device):
    there = torch.ones(2, device=device)
    for read in (np.asarray, lambda tensor: tensor.detach().contiguous().numpy()):
        with pytest.raises(TypeError, match="can't convert"):
            read(there)


@pytest.mark.parametrize(
    "allowed",
    [
        lambda there, here: there + here[0, 0],
        lambda there, here: torch.where(there > 1, there, torch.tensor(0.0)),
        lambda there, here: there[here > 1],
        lambda there, here: there[torch.tensor([1, 0])],
        lambda there, here: torch.tensor([[1.0, 2.0]], device=there.device),
        lambda there, here: torch.as_tensor(np.ones(2), device=there.device),
        lambda there, here: torch.arange(2, 9, 3, device=there.device) + torch.eye(3).to(there),
        lambda there, here: there.new_tensor([0.0, 1.0]),
        lambda there, here: torch.empty_like(there).copy_(here),
    ],
)
def test_what_cuda_allows_is_computed(device, allowed):
    here = torch.arange(6.0).view(2, 3)
    found = allowed(here.to(device), here)
    assert found.device.type == device.type
    torch.testing.assert_close(found.cpu(), allowed(here, here))


def test_numbers_are_read_from_the_device(device):
    there = torch.arange(6.0, device=device).view(2, 3)
    assert there.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert (there.sum().item(), float(there[1, 2]), bool((there < 6).all())) == (15, 5, True)
    assert torch.zeros(2).copy_(there[0, :2]).tolist() == [0, 1]


def test_changes_in_place_reach_what_shares_the_memory(device):
    there = torch.zeros(2, 3, device=device)
    row = there[1]
    row += 1
    there[:, 0].fill_(5)
    assert there.tolist() == [[5, 0, 0], [5, 1, 1]]


def test_a_network_learns_as_on_the_cpu_and_is_saved(device):
    torch.manual_seed(0)
    here = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Flatten())
    there = deepcopy(here).to(device)
    images = torch.rand(2, 3, 8, 8)
    for network in (here, there):
        optimizer = torch.optim.AdamW(network.parameters(), fused=True)
        network(images.to(network[0].weight.device)).square().mean().backward()
        nn.utils.clip_grad_norm_(network.parameters(), 0.1)
        optimizer.step()
    file = io.BytesIO()
    torch.save(there.state_dict(), file)
    file.seek(0)
    torch.testing.assert_close(torch.load(file, weights_only=True), dict(here.state_dict()))
