"""Residual recognizers whose checkpoints users bring: ArcFace's IR-50, and ResNet-50 with the DREAM block."""

from pathlib import Path

import torch
from torch import Tensor, nn

from feature_extractors.base import ModuleRecognizer, Precision, Recognizer, RecognizerConfig
from feature_extractors.checkpoints import read_checkpoint, recognizer_of
from feature_extractors.onnx import load_onnx_as
from feature_extractors.registry import register
from pifr.fusion import yaw_gate
from pifr.geometry.alignment import ARCFACE_112, DREAM_224
from pifr.zoo import UserFile


class ImprovedBlock(nn.Module):
    """BN-conv-BN-PReLU-conv-BN beside the identity (Deng et al.: ArcFace, CVPR 2019, section 3.1)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.prelu = nn.PReLU(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, stride, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample = _shortcut(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(self.bn1(x))
        y = self.bn3(self.conv2(self.prelu(self.bn2(y))))
        return y + (x if self.downsample is None else self.downsample(x))


class IR50(nn.Module):
    """IR-50, layer names as in insightface's arcface_torch (iresnet50): B x 3 x 112 x 112 in [-1, 1] -> B x 512."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.prelu = nn.PReLU(64)
        self.layer1 = _stage(ImprovedBlock, 64, 64, 3)
        self.layer2 = _stage(ImprovedBlock, 64, 128, 4)
        self.layer3 = _stage(ImprovedBlock, 128, 256, 14)
        self.layer4 = _stage(ImprovedBlock, 256, 512, 3)
        self.bn2 = nn.BatchNorm2d(512)
        self.fc = nn.Linear(512 * 7 * 7, 512)
        self.features = nn.BatchNorm1d(512)

    def forward(self, x: Tensor) -> Tensor:
        x = self.prelu(self.bn1(self.conv1(x)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.features(self.fc(self.bn2(x).flatten(1)))


class Bottleneck(nn.Module):
    """1 x 1, 3 x 3, 1 x 1 beside the identity (He et al., CVPR 2016), the stride at the 3 x 3."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        planes = outputs // 4
        self.conv1 = nn.Conv2d(inputs, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample = _shortcut(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn1(self.conv1(x)).relu()
        y = self.bn2(self.conv2(y)).relu()
        return (self.bn3(self.conv3(y)) + (x if self.downsample is None else self.downsample(x))).relu()


class DreamResNet50(nn.Module):
    """ResNet-50 with the DREAM block: B x 3 x 224 x 224 in [0, 1], B degrees of yaw -> B x 256.

    Cao, Rong, Li, Tang, Loy: Pose-Robust Face Recognition via Deep Residual Equivariant Mapping, CVPR 2018; layer names
    as in the authors' code (github.com/penincillin/DREAM, end2end).

    Args:
        gated: False for the authors' "naive" checkpoints, which have no DREAM block and for which yaw does nothing.
    """

    def __init__(self, gated: bool = True) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = _stage(Bottleneck, 64, 256, 3, stride=1)
        self.layer2 = _stage(Bottleneck, 256, 512, 4)
        self.layer3 = _stage(Bottleneck, 512, 1024, 6)
        self.layer4 = _stage(Bottleneck, 1024, 2048, 3)
        self.feature = nn.Linear(2048, 256)
        self.gated = gated
        if gated:
            self.fc1 = nn.Linear(256, 256)
            self.fc2 = nn.Linear(256, 256)

    def forward(self, x: Tensor, yaw: Tensor) -> Tensor:
        x = self.maxpool(self.bn1(self.conv1(x)).relu())
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        feature = self.feature(x.mean((2, 3)))
        if not self.gated:
            return feature
        residual = self.fc2(self.fc1(feature).relu()).relu()
        return feature + yaw_gate(yaw)[:, None] * residual


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Sequential | None:
    if stride == 1 and inputs == outputs:
        return None
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))


def _stage(
    block: type[ImprovedBlock] | type[Bottleneck], inputs: int, outputs: int, count: int, stride: int = 2
) -> nn.Sequential:
    return nn.Sequential(
        *(block(outputs if i else inputs, outputs, 1 if i else stride) for i in range(count)),
    )


RESNET50 = RecognizerConfig(
    name="resnet50",
    input_size=112,
    alignment=ARCFACE_112,
    embedding_size=512,
    mean=(0.5,),
    std=(0.5,),
    parameters=43_590_848,
    licence="research only (InsightFace)",
    origin="Deng et al.: ArcFace, CVPR 2019; insightface's arcface_torch (iresnet50)",
    weights=UserFile(
        "resnet50",
        (".pth", ".pt", ".safetensors", ".onnx"),
        "an r50 backbone of insightface's arcface_torch, or an ONNX file of its model zoo such as w600k_r50.onnx",
        "research only",
    ),
)

RESNET50_DREAM = RecognizerConfig(
    name="resnet50-dream",
    input_size=224,
    alignment=DREAM_224,
    embedding_size=256,
    parameters=24_164_160,
    licence="not stated",
    origin="Cao et al., CVPR 2018; github.com/penincillin/DREAM",
    weights=UserFile(
        "resnet50-dream",
        (".pth.tar", ".pth", ".safetensors"),
        "cfp_res50_end2end.pth.tar, linked from github.com/penincillin/DREAM",
        "not stated",
    ),
    uses_yaw=True,
)


@register(RESNET50)
def load_resnet50(config: RecognizerConfig, file: Path, device: str | torch.device, precision: Precision) -> Recognizer:
    if file.suffix == ".onnx":
        return load_onnx_as(config, file, device)
    return recognizer_of(IR50(), config, file, device, precision)


@register(RESNET50_DREAM)
def load_resnet50_dream(
    config: RecognizerConfig, file: Path, device: str | torch.device, precision: Precision
) -> ModuleRecognizer:
    state = read_checkpoint(file)
    network = DreamResNet50(gated=any(name.startswith("fc1.") for name in state))
    return recognizer_of(network, config, file, device, precision, ignored=("fc.",), state=state)
