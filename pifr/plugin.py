"""The plugin: any recognizer, made pose-robust by a frontalizer, as one function from photos to templates."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor

from pifr.faces import AlignmentTemplate, FaceCrops, FaceFinder
from pifr.fusion import Fusion, check_fusion, fuse
from pifr.views import ViewMaker, Views

if TYPE_CHECKING:
    from feature_extractors import RecognizerConfig


class Embedder(Protocol):
    """What the plugin asks of a recognizer; everything in `feature_extractors` is one."""

    config: "RecognizerConfig"
    """Read here: `alignment` and `input_size`."""

    def embed(self, batch: Tensor) -> Tensor:
        """B x 3 x S x S float32 RGB in [0, 1] -> B x D float32."""
        ...


class FrontalizedRecognizer:
    """A recognizer behind a frontalizer; two templates are compared by their dot product.

    Args:
        recognizer: embeds aligned faces.
        view_maker: which views of a face it is shown.
        fusion: how their features become one template; None: the view maker's own default.
        finder: detects the faces of photos; None: `FaceFinder()`.
    """

    def __init__(
        self,
        recognizer: Embedder,
        view_maker: ViewMaker,
        fusion: Fusion | None = None,
        finder: FaceFinder | None = None,
    ) -> None:
        self.recognizer = recognizer
        self.view_maker = view_maker
        self.fusion: Fusion = fusion or view_maker.default_fusion
        self.finder = finder or FaceFinder()
        check_fusion(self.fusion)

    def embed_images(self, images: Sequence[str | Path | bytes | np.ndarray]) -> Tensor:
        """Templates of photos (files, their content, or decoded uint8 H x W x 3 RGB): B x D' float32.

        A photo without a usable face gives a row of NaN.
        """
        return self.embed_faces(self.finder(images))

    def embed_faces(self, faces: FaceCrops) -> Tensor:
        """Templates of detected faces: B x D' float32; NaN where a face failed."""
        alignment: AlignmentTemplate = self.recognizer.config.alignment
        views = self.view_maker(faces, alignment, self.recognizer.config.input_size)
        templates = fuse(embed_views(self.recognizer, views), views.weights, views.yaw, self.fusion)
        failed = torch.tensor([status == "failed" for status in views.status], device=templates.device)
        return templates.masked_fill(failed[:, None], torch.nan)


def embed_views(recognizer: Embedder, views: Views) -> Tensor:
    """Features of every view: B x V x D float32."""
    count, number = views.images.shape[:2]
    features = recognizer.embed(views.images.flatten(0, 1))
    return features.reshape(count, number, features.shape[-1])
