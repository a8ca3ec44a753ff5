"""Training configurations: one YAML file holds a section for each network."""

from pathlib import Path
from typing import Literal

import yaml
from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)

from pifr.errors import ConfigError
from pifr.networks.config import (
    CoarseShapeConfig,
    DiscriminatorConfig,
    FineShapeConfig,
    InpaintingConfig,
    PnccConfig,
    SegmentationConfig,
)
from pifr.networks.pretrained import CONFIGURATIONS, Precision
from pifr.support.config import Config, explain

_PACKAGED = Path(__file__).parent / "configs"

TaskName = Literal["segmentation", "pncc", "inpainting", "shape-coarse", "shape-fine"]


class Optimisation(Config):
    """How a network is optimised.

    `max_steps` is the length of the cosine schedule unless the command line gives steps or minutes.
    `average_decay` is that of the exponential moving average that is validated and exported.
    `precision` is that of the networks, as in `Pretrained`; weights and optimiser are float32 in any case.
    `validation_every` counts steps, `validation_limit` samples.
    """

    batch_size: PositiveInt = 48
    learning_rate: PositiveFloat = 2e-3
    weight_decay: NonNegativeFloat = 1e-4
    warm_up_steps: NonNegativeInt = 200
    max_steps: PositiveInt = 100_000
    gradient_clip: PositiveFloat = 2.0
    average_decay: float = Field(0.999, ge=0, lt=1)
    precision: Precision = "auto"
    seed: NonNegativeInt = 0
    workers: NonNegativeInt = 2
    validation_every: PositiveInt = 1000
    validation_limit: PositiveInt = 384


class FramingConfig(Config):
    """See `pifr.training.augment.Framing`, of which this holds what differs between networks."""

    scale: tuple[PositiveFloat, PositiveFloat]
    shift: float = Field(ge=0, le=0.5)

    @model_validator(mode="after")
    def _rising(self) -> "FramingConfig":
        if self.scale[0] > self.scale[1]:
            raise ValueError(f"scale is a range from small to large, not {self.scale}")
        return self


class SegmentationTask(Config):
    """Segmentation subnetwork: the crop of `FaceCrops` around boxes as the detector draws them.

    `echoes`: how often each batch is trained on, as `pifr.training.echo` shows it anew.
    """

    network: SegmentationConfig
    framing: FramingConfig
    occluded: float = Field(0.4, ge=0, le=1)
    echoes: PositiveInt = 1
    optimisation: Optimisation = Optimisation()


class PnccTask(Config):
    """PNCC subnetwork. `masked_loss`: Eq. (2) inside the mask only, else with the target 0 outside, as in the paper.

    `echoes`: as in `SegmentationTask`.
    """

    network: PnccConfig
    framing: FramingConfig
    occluded: float = Field(0.35, ge=0, le=1)
    echoes: PositiveInt = 1
    masked_loss: bool = True
    pncc_weight: PositiveFloat = 5.0
    mask_weight: NonNegativeFloat = 1.0
    optimisation: Optimisation = Optimisation()

    @model_validator(mode="after")
    def _trained_as_it_is_used(self) -> "PnccTask":
        low, high = self.framing.scale
        if not low <= self.network.crop_factor <= high:
            factor = self.network.crop_factor
            raise ValueError(f"the crop_factor of {factor:g} is outside the framing's scale of {low:g} to {high:g}")
        return self


class PerceptualConfig(Config):
    """V of Eq. (4): the activations of one layer of a recognizer (a name of `pifr models`, a module of its network)."""

    recognizer: str = "lightcnn-v4"
    layer: str = "block3"


class IdentityConfig(Config):
    """Recognizers (names of `pifr models`) that see textures from the front, as `pifr.training.identity` draws them.

    `recognizer`, a torch network: I-Net is trained to keep its templates. `judge`: validated by it.
    """

    recognizer: str = "lightcnn-v4"
    judge: str = "sface"


class InpaintingTask(Config):
    """I-Net, with the weights of Eq. (8); `adversarial` false leaves discriminator, Eq. (5) to (7), away.

    `visibilities` counts the rendered faces whose visibility maps textures are hidden by; without `perceptual`, Eq. (4)
    is left away. The penalty is taken every `penalty_every` steps, as many times as strong (Karras et al. 2020; the
    optimiser is not adapted as there, and gradients are clipped after it).
    """

    network: InpaintingConfig
    discriminator: DiscriminatorConfig = DiscriminatorConfig()
    adversarial: bool = True
    visibilities: PositiveInt = 512
    perceptual: PerceptualConfig | None = PerceptualConfig()
    identity: IdentityConfig | None = None
    discriminator_weight: NonNegativeFloat = 0.1
    generator_weight: NonNegativeFloat = 0.2
    penalty_weight: NonNegativeFloat = 1.0
    penalty_every: PositiveInt = 1
    perceptual_weight: NonNegativeFloat = 0.1
    identity_weight: NonNegativeFloat = 0.2
    optimisation: Optimisation = Optimisation()


class CoarseShapeTask(Config):
    """Coarse S-Net on the PNCC subnetwork's crops.

    `aligned_share`: how much of the loss is Eq. (9) after a similarity alignment of the true shape, for an image says
    little of size and place; the rest is Eq. (9) as it stands, which keeps both from running away.
    """

    network: CoarseShapeConfig
    framing: FramingConfig
    occluded: float = Field(0.35, ge=0, le=1)
    aligned_share: float = Field(0.0, ge=0, le=1)
    optimisation: Optimisation = Optimisation()


class FineShapeTask(Config):
    """Fine S-Net, with the weights of section 3.5.3."""

    network: FineShapeConfig
    shading_weight: NonNegativeFloat = 100.0
    penalty_weight: NonNegativeFloat = 1.0
    optimisation: Optimisation = Optimisation()


Task = SegmentationTask | PnccTask | InpaintingTask | CoarseShapeTask | FineShapeTask


class TrainingConfig(Config):
    """All sections of a training file; keys are the names that `pifr train` knows."""

    segmentation: SegmentationTask
    pncc: PnccTask
    inpainting: InpaintingTask
    shape_coarse: CoarseShapeTask = Field(alias="shape-coarse")
    shape_fine: FineShapeTask = Field(alias="shape-fine")

    def task(self, name: TaskName) -> Task:
        """The section of one network."""
        return getattr(self, name.replace("-", "_"))


def load_training_config(source: str | Path) -> TrainingConfig:
    """Reads a training file.

    Args:
        source: a packaged configuration, "lite" or "paper", or a YAML file.

    Raises:
        ConfigError: if the file is missing, no YAML, or wrong; names every wrong key.
    """
    path = _PACKAGED / f"{source}.yaml" if source in CONFIGURATIONS else Path(source)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read ({error.strerror or error}): --config wants {' or '.join(CONFIGURATIONS)}, "
            "or a YAML file"
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    try:
        return TrainingConfig.model_validate(content)
    except ValidationError as error:
        raise ConfigError(f"{path}: {explain(error)}") from error
