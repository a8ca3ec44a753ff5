"""PNCC subnetwork of C-Net (paper, section 3.2.3)."""

from typing import NamedTuple

from torch import Tensor, nn

from pifr.networks.config import PnccConfig
from pifr.networks.unet import build_unet


class PnccPrediction(NamedTuple):
    """What `PnccNetwork` returns.

    Attributes:
        pncc: B x 3 x N x N float32, the NCC of the surface point seen in each pixel: [0, 1] up to small excursions;
            meaningless outside the mask (it is not set to 0 there).
        mask_logits: B x 1 x N x N float32, the refined mask is where they are positive; None unless
            `predicts_mask`.
    """

    pncc: Tensor
    mask_logits: Tensor | None


class PnccNetwork(nn.Module):
    """Normalised coordinate code of every face pixel of a crop around the mask.

    Args:
        config: see `PnccConfig`.
    """

    def __init__(self, config: PnccConfig) -> None:
        super().__init__()
        self.config = config
        self.unet = build_unet(config.unet, inputs=3, outputs=4 if config.predicts_mask else 3)

    def forward(self, pixels: Tensor, mask: Tensor | None = None) -> PnccPrediction:
        """Predicts PNCC.

        Args:
            pixels: B x 3 x N x N float in [0, 1], N the network's input size: an upright square crop centred on the
                mask's bounding square, `crop_factor` times as wide.
            mask: B x 1 x N x N float in [0, 1]; needed by, and used only by, networks with `segmented_input`.

        Raises:
            ValueError: if a network with segmented input is given no mask.
        """
        if self.config.segmented_input:
            if mask is None:
                raise ValueError("this PNCC network sees segmented faces: give it the mask")
            pixels = pixels * mask
        output = self.unet(2 * pixels - 1)
        return PnccPrediction(output[:, :3] + 0.5, output[:, 3:] if self.config.predicts_mask else None)
