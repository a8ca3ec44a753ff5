"""The view makers `align` and `srtc`: what a recognizer is shown of a face beside the detector's crop."""

import torch
from pydantic import Field, NonNegativeFloat, model_validator
from torch import Tensor

from pifr.errors import ConfigError
from pifr.faces import AlignmentTemplate, FaceCrops, align
from pifr.frontalized import LocatedFaces
from pifr.frontalizer import Frontalizer, FrontalizerConfig
from pifr.fusion import DEFAULT_FUSION, Fusion
from pifr.geometry import warp
from pifr.geometry.five_landmarks import with_nominal_landmarks
from pifr.geometry.render import frontal_camera
from pifr.geometry.template import load_template
from pifr.locator import FaceLocator, LocatorConfig
from pifr.options import parse_options
from pifr.support.config import Config
from pifr.support.devices import inference
from pifr.views import Views

_RECIPE = 2  # part of every fingerprint: raise it when views change while what they are made of does not

_ALIGN_NAMES = ("crop", "crop mirror", "realigned", "realigned mirror")


class AlignedWeights(Config):
    """How much each aligned view counts, in any unit.

    Every face that is located is shown in all of them, near-frontal ones too: two faces compare best when both are
    aligned by the same landmarks (docs/choosing-views.md). But a crop in which the face lies on its side, by more than
    `largest_tilt` degrees, does not count beside one in which it is upright.
    """

    crop: float = Field(1.0, ge=0)
    crop_mirror: float = Field(1.0, ge=0)
    realigned: float = Field(2.0, ge=0)
    realigned_mirror: float = Field(2.0, ge=0)
    largest_tilt: float = Field(45.0, ge=0)

    @model_validator(mode="after")
    def _something_counts(self) -> "AlignedWeights":
        if not self.crop + self.crop_mirror + self.realigned + self.realigned_mirror > 0:
            raise ValueError("at least one aligned view must count")
        return self

    def aligned(self, yaw: Tensor, tilt: Tensor | None = None) -> Tensor:
        """Weights of the crop, its mirror image, the re-aligned photo, its mirror image: B x 4, rows sum to 1.

        Args:
            yaw: B degrees; NaN, of faces that are not located: the crop alone counts.
            tilt: B degrees, any sign, by which the face lies in the crop as the detector aligns it; None: by none.
        """
        weights = yaw.new_tensor([self.crop, self.crop_mirror, self.realigned, self.realigned_mirror])
        weights = weights.expand(len(yaw), -1)
        if tilt is not None and self.realigned + self.realigned_mirror > 0:
            lying = tilt.abs() > self.largest_tilt
            weights = torch.cat([weights[:, :2].masked_fill(lying[:, None], 0), weights[:, 2:]], 1)
        weights = weights / weights.sum(1, keepdim=True)
        return torch.where(yaw.isnan()[:, None], yaw.new_tensor([1.0, 0.0, 0.0, 0.0]), weights)


class ViewWeights(AlignedWeights):
    """How much renderings count beside the aligned views, as a smooth function of |yaw| (degrees).

    Turning is left to faces that need it: from `frontal_from` on, up to `frontal_full`, the renderings take
    `frontal_share` of the whole, all alike.
    """

    frontal_from: float = 35.0
    frontal_full: float = 65.0
    frontal_share: float = Field(0.5, ge=0, le=1)

    def frontalized(self, yaw: Tensor) -> Tensor:
        """B degrees -> B, the share of all renderings. NaN: 0."""
        return self.frontal_share * _ramp(yaw, self.frontal_from, self.frontal_full)


class Renderings(Config):
    """Which renderings `srtc` shows.

    Attributes:
        render_yaw: degrees; 0 is frontal, others turn the face back only so far.
        render_share: of its yaw, what is left to a face at most: one turned by less than `render_yaw` is turned, too.
            60 degrees and three quarters are what measurement chose (docs/choosing-views.md): the photo is hardly bent.
        render_mirror: show their mirror images, too.
        painted: paint what the photo hides, as `FrontalizerConfig.completion` says. Otherwise a view is the photo, bent
            as the turned face demands: what is invented costs recognizers more than what is missing.
    """

    render_yaw: tuple[NonNegativeFloat, ...] = Field((60.0,), min_length=1)
    render_share: float = Field(0.75, ge=0, le=1)
    render_mirror: bool = True
    painted: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        names = ["frontal" if yaw == 0 else f"turned {yaw:g}" for yaw in self.render_yaw]
        if not self.render_mirror:
            return tuple(names)
        return tuple(shown for name in names for shown in (name, f"{name} mirror"))

    def shown_yaw(self, yaw: Tensor) -> list[Tensor]:
        """B degrees of faces -> for each of `render_yaw`, the B degrees at which it shows them."""
        left = self.render_share * yaw
        return [left.clamp(-largest, largest) for largest in self.render_yaw]


def _ramp(yaw: Tensor, start: float, full: float) -> Tensor:
    """0 up to |yaw| = start, 1 from full on, smooth between; 0 where yaw is NaN."""
    x = ((yaw.abs() - start) / max(full - start, 1e-6)).nan_to_num(0.0).clamp(0, 1)
    return x * x * (3 - 2 * x)


class AlignViews:
    """`align`: the crop, the photo re-aligned by the five points of the fitted shape, and their mirror images.

    Args:
        locator: locates the faces.
        weights: of the views.
    """

    name = "align"
    default_fusion: Fusion = DEFAULT_FUSION

    def __init__(self, locator: FaceLocator, weights: AlignedWeights) -> None:
        self.locator, self.weights = locator, weights
        self.fingerprint = f"{self.name}|{locator.fingerprint}|{weights.digest}|v{_RECIPE}"

    def __call__(self, faces: FaceCrops, alignment: AlignmentTemplate, size: int) -> Views:
        """As `pifr.views.ViewMaker` says. A face that is not reliably located is left to its crop."""
        return self.views_of(faces, self.locator(faces), alignment, size)

    @inference()
    def views_of(self, faces: FaceCrops, located: LocatedFaces, alignment: AlignmentTemplate, size: int) -> Views:
        """As `pifr.views.LocatingViewMaker` says."""
        images, weights = _aligned(faces, located, self.weights, alignment, size)
        return Views(images, weights, _ALIGN_NAMES, located.yaw, located.status, located.reason)


class SrtcViews:
    """`srtc`: the views of `align`, and the photo turned part of the way to the front, as `Renderings` says.

    Args:
        frontalizer: frontalizes the faces.
        weights: of the views.
        renderings: which renderings are shown.

    Raises:
        ConfigError: a texture is to be shown, but not to be painted.
    """

    name = "srtc"
    default_fusion: Fusion = DEFAULT_FUSION

    def __init__(self, frontalizer: Frontalizer, weights: ViewWeights, renderings: Renderings) -> None:
        surround = frontalizer.config.surround
        if surround != "photo" and not renderings.painted:
            raise ConfigError(f"surround={surround} shows the texture instead of the photo: it needs painted=true")
        self.frontalizer, self.weights, self.renderings = frontalizer, weights, renderings
        self.fingerprint = f"{self.name}|{frontalizer.fingerprint}|{weights.digest}|{renderings.digest}|v{_RECIPE}"

    @property
    def locator(self) -> FaceLocator:
        """Locates the faces."""
        return self.frontalizer.locator

    def __call__(self, faces: FaceCrops, alignment: AlignmentTemplate, size: int) -> Views:
        """As `pifr.views.ViewMaker` says. A face that is not reliably frontalized is left to its crop."""
        return self.views_of(faces, self.locator(faces), alignment, size)

    @inference()
    def views_of(self, faces: FaceCrops, located: LocatedFaces, alignment: AlignmentTemplate, size: int) -> Views:
        """As `pifr.views.LocatingViewMaker` says."""
        frontalizer = self.frontalizer
        faces = faces.to(located.pncc.device)
        share = self.weights.frontalized(located.yaw)[:, None]
        turned = share[:, 0] > 0  # the others' renderings would not be looked at: they stay black
        some, known = faces[turned], located[turned]
        shape = frontalizer.shape(some.pixels, known)
        texture = frontalizer.complete(known.uv_partial, known.visibility) if self.renderings.painted else None
        rendered, shown = [], [located.yaw] * len(_ALIGN_NAMES)
        for yaw in self.renderings.shown_yaw(located.yaw):
            view = faces.pixels.new_zeros(len(faces), 3, size, size)
            if len(some):
                view[turned] = frontalizer.turn(some, known, shape, texture, alignment, size, yaw[turned].abs())
            rendered.append(view)
            shown.append(yaw)
            if self.renderings.render_mirror:
                rendered.append(view.flip(-1))
                shown.append(yaw)
        aligned, weights = _aligned(faces, located, self.weights, alignment, size)
        weights = torch.cat([weights * (1 - share), (share / len(rendered)).expand(-1, len(rendered))], 1)
        images = torch.cat([aligned, torch.stack(rendered, 1)], 1)
        names = _ALIGN_NAMES + self.renderings.names
        return Views(images, weights, names, located.yaw, located.status, located.reason, torch.stack(shown, 1))


def _aligned(
    faces: FaceCrops, located: LocatedFaces, weights: AlignedWeights, alignment: AlignmentTemplate, size: int
) -> tuple[Tensor, Tensor]:
    """The four aligned views of each face, B x 4 x 3 x size x size, and their weights, B x 4."""
    faces = faces.to(located.pncc.device)
    crop = align(faces.pixels, faces.landmarks, alignment, size, faces.edges)
    landmarks = located.landmarks("five")
    on_shape = warp.points_at(located.fitted, load_template().landmarks("five"))
    # Landmarks of turned faces are foreshortened: fitted to them, faces that are turned by 30 to 60 degrees become 4 %
    # larger than they are from the front, profiles 6 % smaller.
    scale = frontal_camera(on_shape, alignment, size).scale / located.camera.scale
    scale = scale.masked_fill(~located.reliable, torch.nan)
    realigned = align(faces.pixels, landmarks, alignment, size, faces.edges, scale)
    images = torch.stack([crop, crop.flip(-1), realigned, realigned.flip(-1)], 1)
    turn = warp.similarity_transform(with_nominal_landmarks(faces.landmarks), landmarks)
    tilt = torch.rad2deg(torch.atan2(turn[:, 1, 0], turn[:, 0, 0]))
    return images, weights.aligned(located.yaw, tilt)


def load_align(device: str = "cpu", argument: str = "") -> AlignViews:
    """The view maker `align[:ARGUMENT]`.

    Args:
        device: where everything runs.
        argument: as in `load_srtc`, with options of `LocatorConfig` and `AlignedWeights` alone.

    Raises:
        WeightsError: C-Net has no weights.
        ConfigError, UnknownNameError: the argument is not understood.
    """
    asked = parse_options(argument, LocatorConfig, AlignedWeights)
    return AlignViews(asked.locator(device), asked[AlignedWeights])


def load_srtc(device: str = "cpu", argument: str = "") -> SrtcViews:
    """The view maker `srtc[:ARGUMENT]`.

    Args:
        device: where everything runs.
        argument: as for `pifr.options.parse_options`, with options of `LocatorConfig`, `FrontalizerConfig`,
            `ViewWeights` and `Renderings`: "painted=true,completion=inet,frontal_share=0.2,render_yaw=0/30".

    Raises:
        WeightsError: a network that is needed has no weights.
        ConfigError, UnknownNameError: the argument is not understood, or asks for what no view shows: fine detail, or
            a completion where nothing is painted.
    """
    asked = parse_options(argument, LocatorConfig, FrontalizerConfig, ViewWeights, Renderings)
    config, renderings = asked[FrontalizerConfig], asked[Renderings]
    if "completion" in config.model_fields_set and not renderings.painted:
        raise ConfigError(f"completion={config.completion} would not be seen: add painted=true, or leave it out")
    if config.fine:
        raise ConfigError("fine=true would not be seen: meshes show fine detail, views do not; leave it out")
    return SrtcViews(asked.frontalizer(device), asked[ViewWeights], renderings)
