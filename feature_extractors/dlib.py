"""dlib's ResNet (King, dlib 19.3, 2017), the network of the package `face_recognition`, read from its own file."""

import re
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from feature_extractors.base import ModuleRecognizer, Precision, RecognizerConfig
from feature_extractors.checkpoints import recognizer_of
from feature_extractors.registry import register
from pifr.errors import CheckpointError
from pifr.geometry.alignment import DLIB_150
from pifr.zoo import UserFile


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions beside the identity; dlib's batch normalisation is a part of them.

    With `halves`, the first one has stride 2 and no padding, and the mean of 2 x 2 pixels takes the identity's place.
    Where the two sides differ in channels or size, dlib fills the smaller one up with zeros.
    """

    def __init__(self, inputs: int, outputs: int, halves: bool) -> None:
        super().__init__()
        self.halves = halves
        self.first = nn.Conv2d(inputs, outputs, 3, *((2, 0) if halves else (1, 1)))
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.second(functional.relu(self.first(x)))
        if self.halves:
            x = functional.avg_pool2d(x, 2)
        shape = [max(sides) for sides in zip(x.shape[1:], y.shape[1:], strict=True)]
        return functional.relu(_filled(x, shape) + _filled(y, shape))


def _filled(x: Tensor, shape: list[int]) -> Tensor:
    missing = [wanted - found for wanted, found in zip(shape, x.shape[1:], strict=True)]
    return functional.pad(x, [0, missing[2], 0, missing[1], 0, missing[0]])


class DlibResNet(nn.Module):
    """dlib's network of 29 convolutions: B x 3 x 150 x 150 RGB -> B x 128."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 7, 2)
        blocks, inputs = [], 32
        for width, count in ((32, 3), (64, 4), (128, 3), (256, 3), (256, 1)):
            for i in range(count):
                blocks.append(ResidualBlock(inputs, width, halves=i == 0 and bool(blocks)))
                inputs = width
        self.blocks = nn.Sequential(*blocks)
        self.fc = nn.Linear(256, 128, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.max_pool2d(functional.relu(self.stem(x)), 3, 2)
        return self.fc(self.blocks(x).mean((2, 3)))


_LAYER = re.compile(rb"\x05(con)_4\x01\x02|\x07(affine)_\x01\x02|\x04(fc)_2\x01\x80\x02\x00\x01\x01\x02")
"""A layer's name with its length before it, of `fc` its two sizes, and the version of the array that follows."""


def read_dlib(file: Path) -> dict[str, Tensor]:
    """The parameters of `DlibResNet` in the file that dlib publishes, in which they lie as plain numbers.

    Each convolution (weights, then biases) is followed by a normalisation (factors, then summands), which becomes a
    part of it.

    Raises:
        CheckpointError: the file cannot be read, or is not such a file.
    """
    arrays: dict[str, list[Tensor]] = {"con": [], "affine": [], "fc": []}
    try:
        content, place = file.read_bytes(), 0
        while (layer := _LAYER.search(content, place)) is not None:
            array, place = _array(content, layer.end())
            arrays[next(filter(None, layer.groups())).decode()].append(array)
    except (OSError, ValueError, IndexError) as error:  # the last two where the file ends within an array
        raise CheckpointError(f"checkpoint '{file}' cannot be read: {error}") from error
    state = DlibResNet().state_dict()
    biases = {name.removesuffix(".bias"): value for name, value in state.items() if name.endswith(".bias")}
    wanted = {
        "con": [state[f"{name}.weight"].numel() + len(bias) for name, bias in biases.items()],
        "affine": [2 * len(bias) for bias in biases.values()],
        "fc": [state["fc.weight"].numel()],
    }
    if {kind: list(map(len, found)) for kind, found in arrays.items()} != wanted:
        raise CheckpointError(
            f"checkpoint '{file}' is damaged, or not dlib_face_recognition_resnet_model_v1.dat: it does not hold the "
            f"{len(biases)} convolutions and normalisations of that network"
        )
    read = {"fc.weight": arrays["fc"][0].reshape(256, 128).T}
    for name, values, normalisation in zip(biases, arrays["con"], arrays["affine"], strict=True):
        shape = state[f"{name}.weight"].shape
        factor, summand = normalisation.chunk(2)
        read[f"{name}.weight"] = values[: -shape[0]].reshape(shape) * factor[:, None, None, None]
        read[f"{name}.bias"] = values[-shape[0] :] * factor + summand
    return read


def _array(content: bytes, place: int) -> tuple[Tensor, int]:
    """The array whose four sizes begin at `place`, flat, and where it ends. A size is a number of bytes, then these."""
    count = 1
    for _ in range(4):
        start, place = place + 1, place + 1 + content[place]
        count *= int.from_bytes(content[start:place], "little")
    return torch.from_numpy(np.frombuffer(content, "<f4", count, place).copy()), place + 4 * count


DLIB = RecognizerConfig(
    name="dlib",
    input_size=150,
    alignment=DLIB_150,
    embedding_size=128,
    value_range=(0.0, 255.0),
    mean=(122.782, 117.001, 104.298),
    std=(256.0,),
    parameters=5_607_488,
    licence="CC0-1.0",
    origin="King: dlib 19.3 (2017), dnn_face_recognition_ex.cpp; compared by the cosine here, by distance there",
    weights=UserFile(
        "dlib",
        (".dat",),
        "dlib_face_recognition_resnet_model_v1.dat of dlib.net/files, or of the package face_recognition_models",
        "CC0-1.0",
    ),
)


@register(DLIB)
def load_dlib(
    config: RecognizerConfig, file: Path, device: str | torch.device, precision: Precision
) -> ModuleRecognizer:
    return recognizer_of(DlibResNet(), config, file, device, precision, state=read_dlib(file))
