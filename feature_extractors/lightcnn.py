"""LightCNN (Wu, He, Sun, Tan: A Light CNN for Deep Face Representation with Noisy Labels, IEEE TIFS 2018).

Layer names are those of the authors' code (github.com/AlfredXiangWu/LightCNN), so that its checkpoints load.
"""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from feature_extractors.base import ModuleRecognizer, Precision, RecognizerConfig
from feature_extractors.checkpoints import recognizer_of
from feature_extractors.registry import register
from pifr.geometry.alignment import ARCFACE_112, LIGHTCNN_128
from pifr.zoo import ZOO, UserFile


class MaxFeatureMap(nn.Module):
    """A convolution to twice the channels, of which the element-wise maximum of the two halves is kept (Eq. 3)."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__()
        self.filter = nn.Conv2d(inputs, 2 * outputs, kernel, padding=kernel // 2)

    def forward(self, x: Tensor) -> Tensor:
        return torch.maximum(*self.filter(x).chunk(2, dim=1))


class ResidualBlock(nn.Module):
    """Two 3 x 3 layers beside the identity, no batch normalisation (Fig. 3)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = MaxFeatureMap(channels, channels, 3)
        self.conv2 = MaxFeatureMap(channels, channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(self.conv1(x))


class Group(nn.Module):
    """A 1 x 1 layer, then a 3 x 3 layer."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv_a = MaxFeatureMap(inputs, inputs, 1)
        self.conv = MaxFeatureMap(inputs, outputs, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.conv_a(x))


def _residual_blocks(channels: int, count: int) -> nn.Sequential:
    return nn.Sequential(*(ResidualBlock(channels) for _ in range(count)))


def _pool(x: Tensor) -> Tensor:
    return functional.max_pool2d(x, 2) + functional.avg_pool2d(x, 2)


class LightCNN29v2(nn.Module):
    """LightCNN-29 v2 without its classifier: B x 1 x 128 x 128 grey in [0, 1] -> B x 256."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = MaxFeatureMap(1, 48, 5)
        self.block1, self.group1 = _residual_blocks(48, 1), Group(48, 96)
        self.block2, self.group2 = _residual_blocks(96, 2), Group(96, 192)
        self.block3, self.group3 = _residual_blocks(192, 3), Group(192, 128)
        self.block4, self.group4 = _residual_blocks(128, 4), Group(128, 128)
        self.fc = nn.Linear(8 * 8 * 128, 256)

    def forward(self, x: Tensor) -> Tensor:
        x = _pool(self.conv1(x))
        x = _pool(self.group1(self.block1(x)))
        x = _pool(self.group2(self.block2(x)))
        x = self.group4(self.block4(self.group3(self.block3(x))))
        return self.fc(_pool(x).flatten(1))


class LightCNNv4(nn.Module):
    """LightCNN-V4: colour, and plain 3 x 3 layers in place of the groups; B x 3 x 128 x 128 in [0, 1] -> B x 256."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.block1 = MaxFeatureMap(3, 48, 3), _residual_blocks(48, 1)
        self.conv2, self.block2 = MaxFeatureMap(48, 96, 3), _residual_blocks(96, 2)
        self.conv3, self.block3 = MaxFeatureMap(96, 192, 3), _residual_blocks(192, 3)
        self.conv4, self.block4 = MaxFeatureMap(192, 128, 3), _residual_blocks(128, 4)
        self.conv5 = MaxFeatureMap(128, 128, 3)
        self.fc = nn.Linear(8 * 8 * 128, 256)

    def forward(self, x: Tensor) -> Tensor:
        x = self.block1(_pool(self.conv1(x)))
        x = self.block2(_pool(self.conv2(x)))
        x = self.block3(_pool(self.conv3(x)))
        x = self.conv5(self.block4(self.conv4(x)))
        return self.fc(_pool(x).flatten(1))


LIGHTCNN_V4 = RecognizerConfig(
    name="lightcnn-v4",
    input_size=128,
    alignment=ARCFACE_112,
    embedding_size=256,
    parameters=10_345_600,
    licence=ZOO["lightcnn-v4"].licence,
    origin="Wu et al., TIFS 2018, and github.com/AlfredXiangWu/LightCNN (light_cnn_v4.py)",
    weights=ZOO["lightcnn-v4"],
)

LIGHTCNN_29V2 = RecognizerConfig(
    name="lightcnn-29v2",
    input_size=128,
    alignment=LIGHTCNN_128,
    embedding_size=256,
    channels="grey",
    parameters=10_475_872,
    licence="MIT",
    origin="Wu et al., TIFS 2018, and github.com/AlfredXiangWu/LightCNN (LightCNN_29Layers_V2)",
    weights=UserFile(
        "lightcnn-29v2",
        (".pth.tar", ".pth", ".safetensors"),
        "LightCNN_29Layers_V2_checkpoint.pth.tar, linked from github.com/AlfredXiangWu/LightCNN",
        "MIT",
    ),
)


@register(LIGHTCNN_V4)
def load_lightcnn_v4(
    config: RecognizerConfig, file: Path, device: str | torch.device, precision: Precision
) -> ModuleRecognizer:
    return recognizer_of(_channels_last(LightCNNv4()), config, file, device, precision, ignored=("fc2.",))


@register(LIGHTCNN_29V2)
def load_lightcnn_29v2(
    config: RecognizerConfig, file: Path, device: str | torch.device, precision: Precision
) -> ModuleRecognizer:
    return recognizer_of(_channels_last(LightCNN29v2()), config, file, device, precision, ignored=("fc2.",))


def _channels_last(network: nn.Module) -> nn.Module:
    return network.to(memory_format=torch.channels_last)  # a third faster on CPUs
