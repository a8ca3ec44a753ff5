"""Generator of I-Net (paper, section 3.3.2)."""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from pifr.completion import mirrored
from pifr.networks.config import InpaintingConfig


class NoisyConvolution(nn.Module):
    """Convolution, then a Gaussian noise map with one learned scale a channel (Karras et al. 2019), norm, ReLU.

    The noise is drawn while training only: a trained generator is a function of its input.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1, dilation: int = 1) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(
            inputs, outputs, kernel, stride, dilation * (kernel // 2), dilation=dilation, bias=False
        )
        self.noise_scale = nn.Parameter(torch.zeros(1, outputs, 1, 1))
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.convolution(x)
        if self.training:
            noise = torch.randn(x.shape[0], 1, *x.shape[2:], device=x.device, dtype=x.dtype)
            x = x + noise * self.noise_scale.to(x.dtype)
        return functional.relu(self.norm(x))


class DilatedBlock(nn.Module):
    """Two noisy convolutions, the first one dilated, around an identity."""

    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.first = NoisyConvolution(width, width, dilation=dilation)
        self.second = NoisyConvolution(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(self.first(x))


class InpaintingNetwork(nn.Module):
    """Completes a UV texture of which a part was seen.

    Layers of the paper configuration, for 84 x 84 textures (channels x side). As the paper has it, Johnson et al. 2016
    with six-channel input, skips, dilations and noise maps. Ours: residual branches end in a ReLU, so blocks only add;
    upsampling and a convolution in place of transposed ones; a skip from the stem, too; no noise after the head, whose
    output is linear.

    ===================== ===================================================
    stem                  9 x 9: 6 x 84 -> 32 x 84
    encoder               3 x 3, stride 2: 64 x 42; 128 x 21
    middle                five residual blocks of 128 x 21, dilations 1 2 4 8 1
    decoder               upsampled, the encoder's map concatenated, 3 x 3: 64 x 42; 32 x 84
    head                  9 x 9: 3 x 84
    ===================== ===================================================

    Args:
        config: see `InpaintingConfig`; `resolution` must be a multiple of 2^(len(widths) - 1) * stem_stride.
    """

    def __init__(self, config: InpaintingConfig) -> None:
        super().__init__()
        self.config = config
        widths = config.widths
        inputs = 8 if config.sees_visibility else 6
        self.stem = NoisyConvolution(inputs, widths[0], config.kernel_size, config.stem_stride)
        self.encoder = nn.ModuleList(NoisyConvolution(source, width, stride=2) for source, width in pairwise(widths))
        self.middle = nn.Sequential(*(DilatedBlock(widths[-1], dilation) for dilation in config.dilations))
        self.decoder = nn.ModuleList(NoisyConvolution(source + width, width) for width, source in pairwise(widths))
        self.head = nn.Conv2d(widths[0], 3, config.kernel_size, padding=config.kernel_size // 2)
        if config.corrects_mirrored:
            nn.init.zeros_(self.head.weight)
            nn.init.zeros_(self.head.bias)

    def forward(self, texture: Tensor, visibility: Tensor) -> Tensor:
        """Completes textures.

        Args:
            texture: B x 3 x N x N float in [0, 1], N = `config.resolution`; unseen pixels count for nothing.
            visibility: B x 1 x N x N float in [0, 1].

        Returns:
            T_G, B x 3 x N x N float32, [0, 1] up to small excursions: complete also where the texture was seen.
        """
        seen = (2 * texture - 1) * visibility
        maps = [seen, seen.flip(3)]
        if self.config.sees_visibility:
            maps += [visibility, visibility.flip(3)]
        x = self.stem(torch.cat(maps, 1))
        skips = []
        for level in self.encoder:
            skips.append(x)
            x = level(x)
        x = self.middle(x)
        for level, skip in zip(reversed(self.decoder), reversed(skips), strict=True):
            x = level(torch.cat([functional.interpolate(x, scale_factor=2.0, mode="nearest"), skip], 1))
        with torch.autocast(x.device.type, enabled=False):
            x = self.head(x.float())
            if self.config.stem_stride > 1:
                x = functional.interpolate(
                    x, scale_factor=float(self.config.stem_stride), mode="bilinear", align_corners=False
                )
            if not self.config.corrects_mirrored:
                return x + 0.5
            return x + mirrored(texture.float(), visibility.float())
