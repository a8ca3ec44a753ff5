"""Discriminator of I-Net (paper, section 3.3.3)."""

from itertools import pairwise

from torch import Tensor, nn

from pifr.networks.config import DiscriminatorConfig


class Discriminator(nn.Module):
    """Strided 4 x 4 convolutions, then the mean over the map and one linear unit.

    The paper gives no layers. There is no batch normalisation: the gradient penalty (Eq. 7) is a matter of one sample.

    Args:
        config: see `DiscriminatorConfig`.
    """

    def __init__(self, config: DiscriminatorConfig) -> None:
        super().__init__()
        self.config = config
        self.features = nn.Sequential(
            *(
                nn.Sequential(nn.Conv2d(inputs, outputs, 4, 2, 1), nn.LeakyReLU(0.2))
                for inputs, outputs in pairwise((3, *config.widths))
            )
        )
        self.head = nn.Linear(config.widths[-1], 1)

    def forward(self, texture: Tensor) -> Tensor:
        """B x 3 x N x N textures in [0, 1] -> B float32 logits; D(T) of the paper is their sigmoid."""
        return self.head(self.features(2 * texture - 1).mean((2, 3)))[:, 0].float()
