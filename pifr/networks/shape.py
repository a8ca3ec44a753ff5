"""S-Net: coarse position maps and fine displacements (paper, section 3.5)."""

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pifr.geometry.warp import resized
from pifr.networks.config import CoarseShapeConfig, FineShapeConfig
from pifr.networks.unet import build_unet

INPUT_SIZE = 128
"""Side of what the coarse-shape network sees."""

EVIDENCE_CHANNELS = 13
"""Of `Correspondence.evidence`."""


class _Step(NamedTuple):
    kernel: int
    stride: int
    padding: int


_KEEP = _Step(3, 1, 1)
_DOUBLE = _Step(4, 2, 1)
# Ten transposed convolutions from 1 x 1 to each resolution; the paper names only their number and the last size.
_DECODERS = {
    # 1 2 4 8 8 16 16 32 32 64 64
    64: (_DOUBLE, _DOUBLE, _DOUBLE, _KEEP, _DOUBLE, _KEEP, _DOUBLE, _KEEP, _DOUBLE, _KEEP),
    # 1 3 5 10 10 21 21 42 42 84 84
    84: (_Step(3, 1, 0), _Step(3, 1, 0), _DOUBLE, _KEEP, _Step(5, 2, 1), _KEEP, _DOUBLE, _KEEP, _DOUBLE, _KEEP),
    # 1 4 8 16 16 32 32 64 64 128 128
    128: (_Step(4, 1, 0), _DOUBLE, _DOUBLE, _KEEP, _DOUBLE, _KEEP, _DOUBLE, _KEEP, _DOUBLE, _KEEP),
}


class CoarseShapeNetwork(nn.Module):
    """Pose-free position map of the face in a 128 x 128 crop, or from 128 x 128 UV maps of evidence.

    Layers of the paper configuration (channels x side):

    ======== ==================================================================================
    encoder  4 x 4, stride 2: 64 x 64; then six of LeakyReLU, 4 x 4 stride 2, BN: 128 x 32, 256 x 16, 512 x 8, 512 x 4,
             512 x 2, 512 x 1
    decoder  ten of ReLU, transposed convolution, BN: 512 x 3, 512 x 5, 512 x 10, 256 x 10, 256 x 21, 128 x 21,
             128 x 42, 64 x 42, 64 x 84, 3 x 84 (no BN after the last)
    ======== ==================================================================================

    Args:
        config: see `CoarseShapeConfig`.
        mean: 3 x N x N float32, the mean position map (mm), N = `config.resolution`; a buffer of the network, so that
            weights files carry it. None: zeros, to be overwritten by a state dict.

    Raises:
        ValueError: if the mean has another size.
    """

    def __init__(self, config: CoarseShapeConfig, mean: Tensor | None = None) -> None:
        super().__init__()
        size = config.resolution
        if mean is not None and mean.shape != (3, size, size):
            raise ValueError(f"mean must be 3 x {size} x {size}, got {tuple(mean.shape)}")
        self.config = config
        widths = config.encoder_widths
        self.encoder = nn.Sequential(
            nn.Conv2d(EVIDENCE_CHANNELS if config.corrects_fit else 3, widths[0], 4, 2, 1),
            *(
                nn.Sequential(
                    nn.LeakyReLU(0.2), nn.Conv2d(inputs, outputs, 4, 2, 1, bias=False), nn.BatchNorm2d(outputs)
                )
                for inputs, outputs in pairwise(widths)
            ),
        )
        channels = (widths[-1], *config.decoder_widths, 3)
        self.decoder = nn.Sequential(
            *(
                nn.Sequential(
                    nn.ReLU(),
                    nn.ConvTranspose2d(inputs, outputs, *step, bias=last),
                    nn.Identity() if last else nn.BatchNorm2d(outputs),
                )
                for (inputs, outputs), step, last in zip(
                    pairwise(channels), _DECODERS[size], [False] * 9 + [True], strict=True
                )
            )
        )
        self.register_buffer("mean", torch.zeros(3, size, size) if mean is None else mean.detach().clone().float())

    def photo(self, pixels: Tensor, mask: Tensor) -> Tensor:
        """What a network that does not correct a fit is given of photos.

        Args:
            pixels: B x 3 x 128 x 128 float in [0, 1].
            mask: B x 1 x 128 x 128 float in [0, 1]; used only with `segmented_input`.
        """
        return pixels * mask if self.config.segmented_input else pixels

    def forward(self, seen: Tensor, fitted: Tensor | None = None) -> Tensor:
        """Position maps B x 3 x N x N float32 in mm, model frame.

        Args:
            seen: B x 3 x 128 x 128 in [0, 1], the PNCC subnetwork's crop; of networks that correct the fit, the
                evidence, B x `EVIDENCE_CHANNELS` x 128 x 128.
            fitted: B x 3 x M x M mm, the face model fitted to the same PNCC; only networks that correct it want it.
        """
        if not self.config.corrects_fit:
            return self.mean + self.config.scale * self.decoder(self.encoder(2 * seen - 1)).float()
        fitted = resized(fitted, self.config.resolution)
        return fitted + self.config.scale * self.decoder(self.encoder(seen)).float()


class FineShapeNetwork(nn.Module):
    """Displacement of the position map along z from the complete texture.

    Args:
        config: see `FineShapeConfig`.
    """

    def __init__(self, config: FineShapeConfig) -> None:
        super().__init__()
        self.config = config
        self.unet = build_unet(config.unet, inputs=3, outputs=1)
        # The shading is best explained by a few hundredths of a millimetre: random detail would be worse than none.
        for parameter in self.unet.last.parameters():
            nn.init.zeros_(parameter)

    def forward(self, texture: Tensor) -> Tensor:
        """B x 3 x N x N complete textures in [0, 1] -> B x 1 x N x N float32 displacement in mm, to be added to z."""
        output = self.config.scale * self.unet(2 * resized(texture, self.config.working_size) - 1)
        return resized(output, texture.shape[-1])
