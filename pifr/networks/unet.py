"""U-Nets: the paper's (pix2pix) and a residual one that trains and runs several times faster on CPUs."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from pifr.networks.config import Pix2PixConfig, ResidualConfig, UNetConfig


def build_unet(config: UNetConfig, inputs: int, outputs: int) -> nn.Module:
    """A network from B x inputs x S x S to B x outputs x S x S; S is a multiple of 2^len(widths)."""
    kinds = {"pix2pix": Pix2PixUNet, "residual": ResidualUNet}
    return kinds[config.kind](config, inputs, outputs)


class Pix2PixUNet(nn.Module):
    """4 x 4 convolutions of stride 2 down to the last width, transposed ones up, skips concatenated.

    Layers of the paper's PNCC subnetwork, for a 128 x 128 input (sizes after the layer, channels x side):

    ======= ================================= ==============================================
    level   down: [LeakyReLU] conv [BN]       up: ReLU, transposed conv, [BN] (+ skip)
    ======= ================================= ==============================================
    0       64 x 64 (neither LeakyReLU nor BN) outputs x 128 (no BN)
    1       128 x 32                          64 (+ 64) x 64
    2       256 x 16                          128 (+ 128) x 32
    3       512 x 8                           256 (+ 256) x 16
    4       512 x 4                           512 (+ 512) x 8
    5       512 x 2                           512 (+ 512) x 4
    6       512 x 1 (no BN)                   512 (+ 512) x 2
    ======= ================================= ==============================================

    The segmentation subnetwork has one more level of 512 channels, for 256 x 256.
    """

    def __init__(self, config: Pix2PixConfig, inputs: int, outputs: int) -> None:
        super().__init__()
        widths = config.widths
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        for level, width in enumerate(widths):
            first, innermost = level == 0, level == len(widths) - 1
            source = inputs if first else widths[level - 1]
            self.down.append(
                nn.Sequential(
                    nn.Identity() if first else nn.LeakyReLU(0.2),
                    nn.Conv2d(source, width, 4, 2, 1, bias=first or innermost),
                    nn.Identity() if first or innermost else nn.BatchNorm2d(width),
                )
            )
            target = outputs if first else widths[level - 1]
            self.up.append(
                nn.Sequential(
                    nn.ReLU(),
                    nn.ConvTranspose2d(width if innermost else 2 * width, target, 4, 2, 1, bias=first),
                    nn.Identity() if first else nn.BatchNorm2d(target),
                )
            )

    @property
    def last(self) -> nn.Module:
        """The layer that makes the output; it runs in float32 (see `ResidualUNet`)."""
        return self.up[0][1]

    def forward(self, x: Tensor) -> Tensor:
        levels = []
        for down in self.down:
            x = down(x)
            levels.append(x)
        levels.pop()
        for up in reversed(self.up[1:]):
            x = torch.cat([up(x), levels.pop()], 1)
        with torch.autocast(x.device.type, enabled=False):
            return self.up[0](x.float())


def _convolution(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions around an identity (He et al. 2016)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = _convolution(width, width)
        self.second = nn.Sequential(nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width))
        # Starting as the identity, a block cannot hurt before it has learned something.
        nn.init.zeros_(self.second[1].weight)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(x + self.second(self.first(x)), inplace=True)


class _Decoder(nn.Module):
    """1 x 1 convolution, nearest upsampling, added skip, 3 x 3 convolutions."""

    def __init__(self, inputs: int, width: int, blocks: int) -> None:
        super().__init__()
        self.project = nn.Conv2d(inputs, width, 1, bias=False)
        self.refine = nn.Sequential(*(_convolution(width, width) for _ in range(blocks)))

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return self.refine(functional.interpolate(self.project(x), scale_factor=2.0, mode="nearest") + skip)


class ResidualUNet(nn.Module):
    """A 5 x 5 stem of stride 2, residual levels, global context at the bottom, output upsampled bilinearly.

    Nothing runs at the input's full resolution, where a CPU is bound by memory. The last layer runs in float32 also
    under bfloat16 autocast: eight bits of mantissa would cost a tenth of a millimetre of PNCC, or two.
    """

    def __init__(self, config: ResidualConfig, inputs: int, outputs: int) -> None:
        super().__init__()
        widths = config.widths
        self.stem = _convolution(inputs, widths[0], kernel=5, stride=2)
        self.encoder = nn.ModuleList(
            nn.Sequential(_convolution(source, width, stride=2), *(ResidualBlock(width) for _ in range(blocks)))
            for source, width, blocks in zip(widths[:-1], widths[1:], config.encoder_blocks, strict=True)
        )
        bottom = widths[-1]
        self.context = nn.Sequential(nn.Linear(bottom, bottom), nn.ReLU(), nn.Linear(bottom, bottom))
        self.decoder = nn.ModuleList(
            _Decoder(source, width, blocks)
            for source, width, blocks in zip(widths[1:], widths[:-1], config.decoder_blocks, strict=True)
        )
        self.head = nn.Conv2d(widths[0], outputs, 1)

    @property
    def last(self) -> nn.Module:
        """The layer that makes the output."""
        return self.head

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        skips = []
        for level in self.encoder:
            skips.append(x)
            x = level(x)
        x = x + self.context(x.mean((2, 3)))[:, :, None, None]
        for decoder, skip in zip(reversed(self.decoder), reversed(skips), strict=True):
            x = decoder(x, skip)
        with torch.autocast(x.device.type, enabled=False):
            # Few channels upsample faster channel by channel.
            x = self.head(x.float()).contiguous()
            return functional.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
