"""The plugin: any recognizer, made pose-robust by a frontalizer, as one function from photos to templates."""

import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from pifr.faces import FaceCrops, FaceFinder
from pifr.fusion import Fusion, check_fusion, fuse
from pifr.geometry.five_landmarks import angles_from_landmarks
from pifr.images import Photo, each_photo
from pifr.support.devices import inference
from pifr.support.rows import Rows, check_batch_size, in_batches, joined
from pifr.views import ViewMaker, Views

if TYPE_CHECKING:
    from feature_extractors import RecognizerConfig


_READ_OF_CONFIG = ("alignment", "input_size", "uses_yaw")


class Embedder(Protocol):
    """What the plugin asks of a recognizer; everything in `feature_extractors` is one."""

    config: "RecognizerConfig"
    """Read here: `alignment`, `input_size` and `uses_yaw`."""

    def embed(self, batch: Tensor, yaw: Tensor | None = None) -> Tensor:
        """B x 3 x S x S float32 RGB in [0, 1], and yaw B in degrees if `config.uses_yaw` -> B x D float32.

        A NumPy array B x D will do, too, and any device. Channel order and value range of the network are its own
        business, and B may be 0. Of a mirror image the yaw is that before it was mirrored: only |yaw| says how far the
        face is turned.
        """
        ...


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Templates(Rows):
    """Templates of B faces, on the device of the view maker's networks.

    Attributes:
        features: B x D' float32; NaN where `status` is "failed".
        yaw: B float32 degrees; NaN where the view maker does not know it.
        status: B of "ok", "fallback" (the crop is a substitute, for no face was detected; or the face could not be
            located well, and its plain crop stands for all views) or "failed".
        reason: B of "" (ok), or why: as in `pifr.frontalized.LocatedFaces`, "features_not_finite" or "features_zero".
    """

    features: Tensor
    yaw: Tensor
    status: tuple[str, ...]
    reason: tuple[str, ...]


class FrontalizedRecognizer:
    """A recognizer behind a frontalizer; two templates are compared by their dot product.

    Args:
        recognizer: embeds aligned faces.
        view_maker: which views of a face it is shown.
        fusion: how their features become one template; None: the view maker's own default.
        finder: detects the faces of photos; None: `FaceFinder()`.

    Raises:
        TypeError: one of them is something else; says how to make it.
        UnknownNameError: there is no such fusion.
    """

    def __init__(
        self,
        recognizer: Embedder,
        view_maker: ViewMaker,
        fusion: Fusion | None = None,
        finder: FaceFinder | None = None,
    ) -> None:
        _check_parts(recognizer, view_maker, finder)
        self.recognizer = recognizer
        self.view_maker = view_maker
        self.fusion: Fusion = fusion or view_maker.default_fusion
        self.finder = finder or FaceFinder()
        check_fusion(self.fusion)
        self._process = os.getpid()

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._process = os.getpid()

    def __repr__(self) -> str:
        recognizer = getattr(self.recognizer.config, "name", type(self.recognizer).__name__)
        return f"{type(self).__name__}({recognizer!r}, {self.view_maker.name!r}, fusion={self.fusion!r})"

    def embed_images(self, images: Iterable[Photo], batch_size: int = 32) -> Tensor:
        """Templates of photos (files, their content, uint8 RGB, RGBA or grey arrays, Pillow images): B x D' float32.

        A photo without a usable face gives a row of NaN.

        Args:
            images: as `FaceFinder` takes them.
            batch_size: photos at a time, 1 or more; a batch takes some 20 MB a photo. No more of them are asked for
                before these are done.

        Raises:
            ValueError: `batch_size` is less than 1.
            TypeError, ValueError: as `FaceFinder`, when it comes to what is no photo.
        """
        photos = each_photo(images)
        check_batch_size(batch_size)
        batches = iter(lambda: list(islice(photos, batch_size)), [])
        templates = [self.embed_faces(self.finder(batch), batch_size) for batch in batches]
        with inference():  # or these would be tensors of another kind than those of a single batch
            return torch.cat(templates or [self.embed_faces(self.finder([]))])

    def embed_faces(self, faces: FaceCrops, batch_size: int = 32) -> Tensor:
        """Templates of detected faces: B x D' float32; NaN where a face failed. `batch_size` as in `templates`."""
        return self.templates(faces, batch_size).features

    @inference()
    def templates(self, faces: FaceCrops, batch_size: int = 32) -> Templates:
        """Templates of detected faces, and what became of each face.

        Args:
            faces: any number of them.
            batch_size: faces at a time, 1 or more; a batch takes some 20 MB a face.

        Raises:
            ValueError: `batch_size` is less than 1.
            RuntimeError: this process was forked from the one that made the recognizer, and would hang.
        """
        if os.getpid() != self._process and torch.get_num_threads() > 1:
            raise RuntimeError(
                "this process was forked from one that loaded networks, whose threads it lacks: make the model in each "
                "worker, start workers by spawn, or call torch.set_num_threads(1) in them"
            )
        batches = in_batches(faces, batch_size)  # which checks the size
        return joined([self._templates(batch) for batch in (batches if len(faces) else [faces])])

    def _templates(self, faces: FaceCrops) -> Templates:
        """`templates` of one batch."""
        config = self.recognizer.config
        views = self.view_maker(faces, config.alignment, config.input_size)
        features = embed_views(self.recognizer, faces, views)
        views = failed_without_direction(views, features)
        templates = fuse(features, views.weights, views.yaw, self.fusion)
        failed = torch.tensor(
            [status == "failed" for status in views.status], dtype=torch.bool, device=templates.device
        )
        return Templates(templates.masked_fill(failed[:, None], torch.nan), views.yaw, views.status, views.reason)


@inference()
def similarities(gallery: Tensor | np.ndarray, probes: Tensor | np.ndarray) -> Tensor:
    """How alike the faces of a gallery and of probes are: dot products of their templates, the higher the more alike.

    Args:
        gallery: B x D' templates.
        probes: B' x D'.

    Raises:
        ValueError: one of them is no such table, or their templates have different lengths.

    Returns:
        B x B'; -inf where either face failed. Its template is NaN, which `argmax` and `topk` would take for the largest
        of all: a photo without a face would be everybody's nearest neighbour.
    """
    gallery, probes = (torch.as_tensor(templates).float() for templates in (gallery, probes))
    if gallery.ndim != 2 or probes.ndim != 2 or gallery.shape[1] != probes.shape[1]:
        raise ValueError(
            f"templates are {tuple(gallery.shape)} and {tuple(probes.shape)}, not B x D' and B' x D' of one "
            "recognizer; templates[None] makes a table of one"
        )
    found = gallery @ probes.T
    return found.masked_fill(found.isnan(), -torch.inf)


def _check_parts(recognizer: object, view_maker: object, finder: object) -> None:
    """Raises TypeError if what a `FrontalizedRecognizer` is made of is something else; says how to make it."""
    if isinstance(recognizer, str):
        raise TypeError(f"recognizer is {recognizer!r}: load_recognizer({recognizer!r}) makes one of a name")
    if not (hasattr(recognizer, "config") and hasattr(recognizer, "embed")):
        kind = type(recognizer).__name__
        raise TypeError(f"a {kind} is no recognizer: ModuleRecognizer(network, config) makes one of a network")
    if lacking := [name for name in _READ_OF_CONFIG if not hasattr(recognizer.config, name)]:
        raise TypeError(
            f"the config of a {type(recognizer).__name__} lacks {' and '.join(lacking)}: "
            f"{', '.join(_READ_OF_CONFIG)} are read of it, uses_yaw=False where `embed` takes no yaw"
        )
    if isinstance(view_maker, str):
        raise TypeError(f"view_maker is {view_maker!r}: load_view_maker({view_maker!r}) makes one of a name")
    if isinstance(view_maker, type) or not isinstance(view_maker, ViewMaker):
        lacking = [name for name in ("name", "fingerprint", "default_fusion") if not hasattr(view_maker, name)]
        said = f", which lacks {' and '.join(lacking)}" if lacking and callable(view_maker) else ""
        raise TypeError(f"view_maker is {view_maker!r}{said}: load_view_maker('srtc') makes one")
    if finder is not None and (isinstance(finder, type) or not callable(finder)):
        raise TypeError(f"finder is {finder!r}: FaceFinder('yunet') makes one of a detector's name")


def failed_without_direction(views: Views, features: Tensor) -> Views:
    """Views of which those faces failed, too, of which a recognizer made features that count and have no direction.

    Their length is not finite ("features_not_finite"), or zero ("features_zero"): no cosine could be taken of them.

    Args:
        views: of B faces.
        features: B x V x D float32.
    """
    length = features.norm(dim=-1)
    counts = views.weights > 0
    flaws = torch.stack([(~length.isfinite() & counts).any(1), ((length == 0) & counts).any(1)], 1).tolist()
    judged = [
        (status, reason)
        if status == "failed" or not (endless or zero)
        else ("failed", "features_not_finite" if endless else "features_zero")
        for status, reason, (endless, zero) in zip(views.status, views.reason, flaws, strict=True)
    ]
    return replace(views, status=tuple(status for status, _ in judged), reason=tuple(reason for _, reason in judged))


class EmbeddedView(NamedTuple):
    """Features of one view of a batch: B x D, known in some rows (B bool), of images B x 3 x S x S."""

    images: Tensor
    rows: Tensor
    features: Tensor


def embed_views(recognizer: Embedder, faces: FaceCrops, views: Views, seen: list[EmbeddedView] | None = None) -> Tensor:
    """Features of every view, B x V x D float32; anything where a face does not use a view.

    Args:
        recognizer: embeds one view at a time, of the faces that use it.
        faces: the faces that the views show; their landmarks give a yaw to recognizers that ask for one, where the
            view maker knows none.
        views: of the faces.
        seen: what earlier calls for these faces embedded, added to here: frontalizers share views, and an image is
            embedded once.
    """
    seen = [] if seen is None else seen
    columns: list[Tensor] = []
    for number in range(len(views.names)):
        images, rows = views.images[:, number], views.weights[:, number] > 0
        if not number:
            rows = torch.ones_like(rows)  # so that the size of features is known
        elif not rows.any():
            columns.append(torch.zeros_like(columns[0]))
            continue
        if recognizer.config.uses_yaw:
            columns.append(_spread(_embed(recognizer, images[rows], _shown_yaw(faces, views, number)[rows]), rows))
            continue
        known = (view for view in seen if torch.equal(view.images, images) and not (rows & ~view.rows).any())
        view = next(known, None)
        if view is None:
            view = EmbeddedView(images, rows, _spread(_embed(recognizer, images[rows]), rows))
            seen.append(view)
        columns.append(view.features)
    return torch.stack(columns, dim=1)


def _embed(recognizer: Embedder, images: Tensor, yaw: Tensor | None = None) -> Tensor:
    features = recognizer.embed(images) if yaw is None else recognizer.embed(images, yaw)
    if isinstance(features, np.ndarray):
        features = torch.tensor(features)
    if not isinstance(features, Tensor) or features.ndim != 2 or len(features) != len(images):
        found = f"a tensor of {tuple(features.shape)}" if isinstance(features, Tensor) else type(features).__name__
        raise TypeError(
            f"{type(recognizer).__name__}.embed gave {found} for {len(images)} images: a tensor B x D is needed"
        )
    return features.to(images.device).float()  # in half precision, a sum of squares may be 0 or infinite


def _spread(features: Tensor, rows: Tensor) -> Tensor:
    """Features of the chosen rows (B bool) as B x D, 0 elsewhere."""
    spread = features.new_zeros(len(rows), features.shape[1])
    spread[rows] = features
    return spread


def _shown_yaw(faces: FaceCrops, views: Views, number: int) -> Tensor:
    """The yaw at which a view shows the faces, B degrees; of a mirror image, that before it was mirrored."""
    yaw = views.shown_yaw[:, number]
    return torch.where(yaw.isnan(), angles_from_landmarks(faces.landmarks)[:, 0].to(yaw), yaw)
