"""dlib's network and its own file format. With the published file it gave what dlib 20.0.1 gives, up to 5e-7."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from feature_extractors import load_recognizer
from feature_extractors.dlib import DlibResNet, ResidualBlock, read_dlib
from pifr.errors import CheckpointError


def whole(number: int) -> bytes:
    """dlib's form of a whole number: how many bytes, and these."""
    digits = number.to_bytes(max(1, (number.bit_length() + 7) // 8), "little")
    return bytes([len(digits)]) + digits


def array(*values: Tensor) -> bytes:
    """Version, four sizes, numbers."""
    flat = np.concatenate([value.detach().numpy().ravel() for value in values])
    return whole(2) + whole(flat.size) + 3 * whole(1) + flat.astype("<f4").tobytes()


def dlib_file(path: Path, network: DlibResNet) -> Path:
    """The network as dlib writes it, each normalisation doubling what its convolution gives, and adding one."""
    content = b"\x01\x01\x0dloss_metric_2 and whatever"
    for layer in (module for module in network.modules() if isinstance(module, torch.nn.Conv2d)):
        content += b"\x05con_4" + array(layer.weight, layer.bias) + b"more"
        one = torch.ones_like(layer.bias)
        content += b"\x07affine_" + array(2 * one, one) + b"\x08relu_110"
    head = network.fc.weight.detach().T
    content += b"\x04fc_2" + whole(128) + whole(256) + whole(2) + whole(256) + whole(128) + 2 * whole(1)
    path.write_bytes(content + head.numpy().astype("<f4").tobytes() + b"the end")
    return path


@pytest.fixture(scope="module")
def network() -> DlibResNet:
    torch.manual_seed(0)
    return DlibResNet().eval()


@pytest.fixture(scope="module")
def file(network: DlibResNet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return dlib_file(tmp_path_factory.mktemp("dlib") / "mine.dat", network)


def test_a_file_of_dlib_is_read_with_its_normalisations(network: DlibResNet, file: Path) -> None:
    state = read_dlib(file)
    assert state.keys() == network.state_dict().keys()
    for name, value in network.state_dict().items():
        wanted = 2 * value + 1 if name.endswith("bias") else 2 * value if name != "fc.weight" else value
        torch.testing.assert_close(state[name], wanted)


def test_it_is_a_recognizer(file: Path) -> None:
    recognizer = load_recognizer(f"dlib:{file}")
    faces = torch.rand(2, 3, 150, 150, generator=torch.Generator().manual_seed(1))
    embedded = recognizer.embed(faces)
    assert embedded.shape == (2, 128)
    network = DlibResNet().eval()
    network.load_state_dict(read_dlib(file))
    pixels = 255 * faces - torch.tensor([122.782, 117.001, 104.298]).view(3, 1, 1)
    with torch.inference_mode():
        torch.testing.assert_close(embedded, network(pixels / 256))


@pytest.mark.parametrize("kept", [0, 20, 5_000, 20_000_000, -3_000])
def test_a_part_of_a_file_is_refused(kept: int, file: Path, tmp_path: Path) -> None:
    part = tmp_path / "part.dat"
    part.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(CheckpointError, match=r"part\.dat"):
        read_dlib(part)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"none\.dat"):
        read_dlib(tmp_path / "none.dat")


def test_a_halving_block_fills_up_with_zeros() -> None:
    block = ResidualBlock(1, 2, halves=True)
    with torch.no_grad():
        for layer in (block.first, block.second):
            layer.weight.zero_()
            layer.bias.zero_()
        block.second.bias.copy_(torch.tensor([10.0, 20.0]))
    x = torch.arange(16.0).view(1, 1, 4, 4)
    # The convolutions give one pixel, the means of 2 x 2 four; the second channel has convolutions only.
    first, second = block(x)[0]
    torch.testing.assert_close(first, torch.tensor([[2.5 + 10, 4.5], [10.5, 12.5]]))
    torch.testing.assert_close(second, torch.tensor([[20.0, 0.0], [0.0, 0.0]]))
