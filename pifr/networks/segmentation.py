"""Segmentation subnetwork of C-Net (paper, section 3.2.2)."""

from torch import Tensor, nn
from torch.nn import functional

from pifr.networks.config import SegmentationConfig
from pifr.networks.unet import build_unet


class SegmentationNetwork(nn.Module):
    """Which pixels of a face crop show the face that the template covers.

    Args:
        config: see `SegmentationConfig`.
    """

    def __init__(self, config: SegmentationConfig) -> None:
        super().__init__()
        self.config = config
        self.unet = build_unet(config.unet, inputs=3, outputs=1)

    def forward(self, pixels: Tensor) -> Tensor:
        """Predicts the mask.

        Args:
            pixels: B x 3 x S x S float in [0, 1], the crop of `FaceCrops` (side 2.0 x the detector's box); resized to
                the network's input size N (by averaging where S is a multiple of it).

        Returns:
            Logits, B x 1 x N x N float32; the mask is where they are positive.
        """
        size, target = pixels.shape[-1], self.config.input_size
        if size != target:
            pixels = (
                functional.avg_pool2d(pixels, size // target)
                if size % target == 0
                else functional.interpolate(pixels, (target, target), mode="bilinear", antialias=True)
            )
        return self.unet(2 * pixels - 1)
