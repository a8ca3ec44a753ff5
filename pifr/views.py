"""View makers turn each face into the views that a recognizer will see: what `--frontalizer` names.

The simplest ones live here: `none` (the aligned crop alone) and `mirror` (the crop and its mirror image: the honest
control that every other one has to beat). Others join by the entry point group `pifr.frontalizers`; an entry is a
callable `(device: str, argument: str) -> ViewMaker`, where the name `srtc:paper` passes the argument "paper" to `srtc`
(which then loads networks of the configuration `paper`; what views are made and how they weigh stays the same).
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import torch
from torch import Tensor

from pifr.errors import ConfigError, UnknownNameError
from pifr.faces import AlignmentTemplate, FaceCrops, align
from pifr.fusion import DEFAULT_FUSION, Fusion
from pifr.support.devices import inference
from pifr.support.rows import check_rows

if TYPE_CHECKING:
    from pifr.frontalized import LocatedFaces
    from pifr.locator import FaceLocator

ENTRY_POINT_GROUP = "pifr.frontalizers"


@dataclass(frozen=True, slots=True, eq=False)
class Views:
    """What a recognizer is shown of B faces: V aligned images each.

    Attributes:
        images: B x V x 3 x S x S float32 RGB in [0, 1]; the first view is always the detector-aligned crop.
        weights: B x V float32, not negative, rows sum to 1; 0 where a view is not used for this face.
        names: V names.
        yaw: B float32 degrees, NaN where unknown.
        status: B of "ok", "fallback" or "failed", as in `FaceCrops`; "fallback" too where a frontalizer had to leave
            a face to its first view.
        reason: B of "" (ok) or a word.
        shown_yaw: B x V float32 degrees, NaN where unknown: how far the face on each view is turned; of a mirror image,
            before it was mirrored. By default as on the photo.

    Raises:
        ValueError: a field's shape, dtype or value is not as above; the message names it.
    """

    images: Tensor
    weights: Tensor
    names: tuple[str, ...]
    yaw: Tensor
    status: tuple[str, ...]
    reason: tuple[str, ...]
    shown_yaw: Tensor | None = None

    def __post_init__(self) -> None:
        views, size = len(self.names), self.images.shape[-1]
        shapes = {"images": (views, 3, size, size), "weights": (views,), "yaw": ()}
        check_rows(self, shapes if self.shown_yaw is None else shapes | {"shown_yaw": (views,)})
        if self.shown_yaw is None:
            object.__setattr__(self, "shown_yaw", self.yaw[:, None].expand(-1, views))
        if not ((self.weights >= 0).all() and ((self.weights.sum(1) - 1).abs() <= 1e-4).all()):
            raise ValueError("Views.weights must not be negative, and each row must sum to 1")

    def __len__(self) -> int:
        return len(self.status)


@runtime_checkable
class ViewMaker(Protocol):
    """What a view maker has to be."""

    name: str
    """As in tables."""

    fingerprint: str
    """Changes whenever the same face may give other views: name, weights' SHA-256, settings."""

    default_fusion: Fusion
    """The fusion that is used unless another is asked for."""

    def __call__(self, faces: FaceCrops, alignment: AlignmentTemplate, size: int) -> Views:
        """The views of each face, aligned to the template at size x size; failed faces keep their row."""
        ...


@runtime_checkable
class LocatingViewMaker(ViewMaker, Protocol):
    """A view maker that locates faces first: what its locator found of the same faces can be handed to it.

    So several of them, or one at several sizes, share the most expensive step.
    """

    locator: "FaceLocator"

    def views_of(self, faces: FaceCrops, located: "LocatedFaces", alignment: AlignmentTemplate, size: int) -> Views:
        """As a call; `located` is what a locator of the same fingerprint found of these faces."""
        ...


class PlainCrop:
    """`none`: the detector-aligned crop alone."""

    name = "none"
    fingerprint = "none-1"
    default_fusion: Fusion = DEFAULT_FUSION

    @inference()
    def __call__(self, faces: FaceCrops, alignment: AlignmentTemplate, size: int) -> Views:
        return _views(faces, align(faces.pixels, faces.landmarks, alignment, size, faces.edges)[:, None], ("crop",))


class Mirror:
    """`mirror`: the detector-aligned crop and its mirror image, with equal weights."""

    name = "mirror"
    fingerprint = "mirror-1"
    default_fusion: Fusion = DEFAULT_FUSION

    @inference()
    def __call__(self, faces: FaceCrops, alignment: AlignmentTemplate, size: int) -> Views:
        crop = align(faces.pixels, faces.landmarks, alignment, size, faces.edges)
        return _views(faces, torch.stack([crop, crop.flip(-1)], dim=1), ("crop", "crop mirror"))


def _views(faces: FaceCrops, images: Tensor, names: tuple[str, ...]) -> Views:
    count = len(faces)
    weights = images.new_full((count, len(names)), 1 / len(names))
    yaw = images.new_full((count,), torch.nan)
    return Views(images, weights, names, yaw, faces.status, faces.reason)


def _without_options(maker: type[PlainCrop] | type[Mirror]) -> Callable[[str, str], ViewMaker]:
    def load(device: str, argument: str) -> ViewMaker:
        if argument:
            raise ConfigError(f"frontalizer {maker.name!r} takes no options, got {argument!r}")
        return maker()

    return load


def _from_frontalizer(kind: str) -> Callable[[str, str], ViewMaker]:
    # pifr.frontal_views brings networks and geometry, which `none` and `mirror` do not need.
    def load(device: str, argument: str) -> ViewMaker:
        return getattr(import_module("pifr.frontal_views"), kind)(device, argument)

    return load


_BUILT_IN: dict[str, Callable[[str, str], ViewMaker]] = {
    "none": _without_options(PlainCrop),
    "mirror": _without_options(Mirror),
    "align": _from_frontalizer("load_align"),
    "srtc": _from_frontalizer("load_srtc"),
}


def list_view_makers() -> list[str]:
    """Names that `load_view_maker` knows: built in, and installed by others."""
    return sorted({*_BUILT_IN, *(entry.name for entry in entry_points(group=ENTRY_POINT_GROUP))})


def load_view_maker(name: str, device: str = "cpu") -> ViewMaker:
    """The view maker of a name, on a device.

    Args:
        name: `none`, `mirror`, `align`, `srtc`, or an entry point's name; what follows a colon is handed to it.
        device: where its networks run.

    Raises:
        UnknownNameError: no such view maker.
        ConfigError: it does not understand what follows the colon.
    """
    key, colon, argument = name.partition(":")
    if colon and not argument:
        raise ConfigError(f"frontalizer {name!r}: nothing follows the colon; {key!r} is the one without options")
    if key in _BUILT_IN:
        return _BUILT_IN[key](device, argument)
    for entry in entry_points(group=ENTRY_POINT_GROUP, name=key):
        return entry.load()(device, argument)
    raise UnknownNameError("frontalizer", name, list_view_makers())
