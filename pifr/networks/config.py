"""Configurations of the networks: they are written into every weights file."""

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from pifr.support.config import Config

Widths = Annotated[tuple[PositiveInt, ...], Field(min_length=2)]


class Pix2PixConfig(Config):
    """U-Net of image-to-image translation (Isola et al. 2017), which the paper's C-Net and fine S-Net follow.

    `widths[i]` channels at 1 / 2^(i+1) of the input's resolution.
    """

    kind: Literal["pix2pix"] = "pix2pix"
    widths: Widths = (64, 128, 256, 512, 512, 512, 512)


class ResidualConfig(Config):
    """U-Net with residual blocks and added skips, made for CPUs: the finest maps have half the input's resolution.

    `widths[i]` channels at 1 / 2^(i+1) of the input's resolution; multiples of 32 fill the matrix units.
    `encoder_blocks[i]` residual blocks follow the strided convolution to level i + 1,
    `decoder_blocks[i]` convolutions follow the skip into level i.
    """

    kind: Literal["residual"] = "residual"
    widths: Widths = (32, 64, 128, 256, 256)
    encoder_blocks: tuple[int, ...] = (1, 1, 2, 1)
    decoder_blocks: tuple[int, ...] = (1, 2, 2, 2)

    @model_validator(mode="after")
    def _one_entry_a_level(self) -> "ResidualConfig":
        levels = len(self.widths) - 1
        for name in ("encoder_blocks", "decoder_blocks"):
            if len(getattr(self, name)) != levels:
                raise ValueError(f"{name} needs {levels} entries for {levels + 1} widths, got {getattr(self, name)}")
        return self


UNetConfig = Annotated[Pix2PixConfig | ResidualConfig, Field(discriminator="kind")]


def _check_size(name: str, size: int, halvings: int) -> None:
    """Raises ValueError if maps of this side cannot be halved so often."""
    if size % 2**halvings:
        raise ValueError(f"{name} is {size}: this network needs a multiple of {2**halvings}")


class SegmentationConfig(Config):
    """Segmentation subnetwork of C-Net (section 3.2.2)."""

    network: Literal["segmentation"] = "segmentation"
    input_size: PositiveInt = 256
    unet: UNetConfig = Pix2PixConfig(widths=(64, 128, 256, 512, 512, 512, 512, 512))

    @model_validator(mode="after")
    def _fits(self) -> "SegmentationConfig":
        _check_size("input_size", self.input_size, len(self.unet.widths))
        return self


class PnccConfig(Config):
    """PNCC subnetwork of C-Net (section 3.2.3).

    `segmented_input`: pixels outside the mask are set to zero before the network sees them, as in the paper.
    `predicts_mask`: a fourth channel refines the mask.
    `crop_factor`: side of the crop that it sees at inference over the side of the mask's bounding square; training
    jitters around it (`framing` of its task). The coarse S-Net sees the same crop.
    """

    network: Literal["pncc"] = "pncc"
    input_size: PositiveInt = 128
    crop_factor: PositiveFloat = 1.38
    segmented_input: bool = True
    predicts_mask: bool = False
    unet: UNetConfig = Pix2PixConfig()

    @model_validator(mode="after")
    def _fits(self) -> "PnccConfig":
        _check_size("input_size", self.input_size, len(self.unet.widths))
        return self


class InpaintingConfig(Config):
    """Generator of I-Net (section 3.3.2, Fig. 3).

    `widths` are the channels at full, half and quarter resolution (of the stem's output: with `stem_stride` 2 all maps
    are half as large and the output is upsampled). `dilations` has one entry a residual block at the coarsest level.
    `sees_visibility` adds the visibility map and its flip to the six channels of the paper. `corrects_mirrored`: the
    network predicts what `pifr.completion.mirrored` lacks of the truth, not the truth itself: identity is kept from the
    start, and what is left to learn is light, asymmetry, and what neither side shows.
    """

    network: Literal["inpainting"] = "inpainting"
    resolution: PositiveInt = 84
    widths: Widths = (32, 64, 128)
    kernel_size: Literal[3, 5, 7, 9] = 9
    stem_stride: Literal[1, 2] = 1
    dilations: tuple[PositiveInt, ...] = (1, 2, 4, 8, 1)
    sees_visibility: bool = False
    corrects_mirrored: bool = False

    @model_validator(mode="after")
    def _fits(self) -> "InpaintingConfig":
        _check_size("resolution", self.resolution, len(self.widths) - 1 + self.stem_stride // 2)
        return self


class DiscriminatorConfig(Config):
    """Discriminator of I-Net (section 3.3.3); `widths[i]` channels at 1 / 2^(i+1) of the texture's resolution."""

    network: Literal["discriminator"] = "discriminator"
    widths: Widths = (64, 128, 256, 512)


class CoarseShapeConfig(Config):
    """Coarse-shape subnetwork of S-Net (section 3.5.2): 7 convolutions down to 1 x 1, 10 transposed ones up.

    `scale` (mm) is what one unit of the raw output stands for; the output is added to the mean shape, where the paper
    regresses positions directly. `segmented_input`: pixels outside the mask are set to zero, as in the paper.
    `corrects_fit`: the network sees what C-Net's correspondence says in UV (`Correspondence.evidence`) in place of the
    photo, and its output is added to the face model fitted to that: what is left to learn is how C-Net errs.
    """

    network: Literal["shape-coarse"] = "shape-coarse"
    resolution: Literal[64, 84, 128] = 84
    encoder_widths: Annotated[tuple[PositiveInt, ...], Field(min_length=7, max_length=7)] = (
        64,
        128,
        256,
        512,
        512,
        512,
        512,
    )
    decoder_widths: Annotated[tuple[PositiveInt, ...], Field(min_length=9, max_length=9)] = (
        512,
        512,
        512,
        256,
        256,
        128,
        128,
        64,
        64,
    )
    scale: PositiveFloat = 10.0
    segmented_input: bool = False
    corrects_fit: bool = False


class FineShapeConfig(Config):
    """Fine-shape subnetwork of S-Net (section 3.5.3): the PNCC subnetwork's U-Net with one output channel.

    `working_size` is the side to which the texture is resized inside; `scale` (mm) is one unit of the raw output.
    """

    network: Literal["shape-fine"] = "shape-fine"
    resolution: PositiveInt = 84
    working_size: PositiveInt = 128
    unet: UNetConfig = Pix2PixConfig()
    scale: PositiveFloat = 1.0

    @model_validator(mode="after")
    def _fits(self) -> "FineShapeConfig":
        _check_size("working_size", self.working_size, len(self.unet.widths))
        return self


NetworkConfig = Annotated[
    SegmentationConfig | PnccConfig | InpaintingConfig | DiscriminatorConfig | CoarseShapeConfig | FineShapeConfig,
    Field(discriminator="network"),
]
