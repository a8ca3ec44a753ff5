"""What a frontalizer knows of a batch of faces."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from pifr.geometry import warp
from pifr.geometry.camera import Camera
from pifr.geometry.template import load_template
from pifr.support.devices import inference
from pifr.support.rows import Rows, check_rows, joined

POOR = ("no_mask", "uncertain_mask", "inconsistent_pncc", "beyond_profile", "low_visibility")
"""Reasons for which a frontalization is not to be used but the face's own crop; of several, the first one is given."""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class LocatedFaces(Rows):
    """B faces of which is known where each point of the template lies in the photo.

    Maps live in one of three frames: the crop of `FaceCrops` (256 x 256), C-Net's tighter crop in it (n x n), and UV
    (N x N).

    Attributes:
        mask: B x 1 x n x n float32 in [0, 1], probability of the face, in C-Net's crop.
        pncc: B x 3 x n x n float32 in [0, 1], in C-Net's crop; means something where the mask is.
        pncc_to_crop: B x 2 x 3 float32, takes pixels of C-Net's crop to pixels of `FaceCrops`.
        crop_to_image: B x 2 x 3 float32, takes pixels of `FaceCrops` to pixels of the photo.
        uv_partial: B x 3 x N x N float32 in [0, 1], colours of the photo in UV, of any kind where nothing is visible.
        visibility: B x 1 x N x N float32 in [0, 1], weight of evidence.
        image_map: B x 2 x N x N float32, where each UV pixel lies, hidden ones too: (x, y) in pixels of `FaceCrops`.
        fitted: B x 3 x m x m float32 mm, the face model's shape that explains the PNCC.
        camera: B cameras, from mm to pixels of `FaceCrops`.
        residual: B float32 mm, how far from the fitted shape the PNCC is (median); inf where nothing could be fitted.
        status: B of "ok", "fallback" (no face was detected, but a declared substitute cut; or the frontalization is
            too poor to be used) or "failed" (no pixels).
        reason: B of "" (ok), a reason of `FaceCrops`, or one of `POOR`.

    Raises:
        ValueError: a field's shape, dtype or value is not as above; the message names it.
    """

    mask: Tensor
    pncc: Tensor
    pncc_to_crop: Tensor
    crop_to_image: Tensor
    uv_partial: Tensor
    visibility: Tensor
    image_map: Tensor
    fitted: Tensor
    camera: Camera
    residual: Tensor
    status: tuple[str, ...]
    reason: tuple[str, ...]

    def __post_init__(self) -> None:
        check_rows(self, self._shapes())
        if len(self.camera) != len(self):
            raise ValueError(f"{type(self).__name__}.camera has {len(self.camera)} cameras for {len(self)} faces")

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        n, texture, shape = self.pncc.shape[-1], self.uv_partial.shape[-1], self.fitted.shape[-1]
        return {
            "mask": (1, n, n),
            "pncc": (3, n, n),
            "pncc_to_crop": (2, 3),
            "crop_to_image": (2, 3),
            "uv_partial": (3, texture, texture),
            "visibility": (1, texture, texture),
            "image_map": (2, texture, texture),
            "fitted": (3, shape, shape),
            "residual": (),
        }

    @property
    @inference()
    def reliable(self) -> Tensor:
        """B bool: what is known of the face may be used."""
        good = [status != "failed" and why not in POOR for status, why in zip(self.status, self.reason, strict=True)]
        return torch.tensor(good, dtype=torch.bool, device=self.pncc.device)

    @property
    @inference()
    def yaw(self) -> Tensor:
        """B float32 degrees, positive to the image's right; NaN in rows that are not `reliable`."""
        return self.camera.angles()[:, 0].masked_fill(~self.reliable, torch.nan)

    @property
    @inference()
    def visible_fraction(self) -> Tensor:
        """B float32 in [0, 1], mean of the visibility."""
        return self.visibility.mean((1, 2, 3))

    @inference()
    def landmarks(self, name: str = "multipie68", frame: str = "crop") -> Tensor:
        """Landmarks of a set of `Template.landmarks`, hidden points too.

        Args:
            name: "five", "multipie68", "cfp30-left", ...
            frame: "crop" for pixels of `FaceCrops`, "image" for pixels of the photo.

        Returns:
            B x K x 2 float32; rows that are not `reliable` are NaN.

        Raises:
            UnknownNameError: there is no such set.
            ValueError: there is no such frame.
        """
        if frame not in ("crop", "image"):
            raise ValueError(f"frame is {frame!r}, not 'crop' or 'image'")
        points = warp.points_at(self.image_map, load_template().landmarks(name)).transpose(1, 2)
        if frame == "image":
            points = warp.transform_points(self.crop_to_image, points)
        return points.masked_fill(~self.reliable[:, None, None], torch.nan)

    @inference()
    def mapped(self, similarity: Tensor) -> Self:
        """The same faces in other crops of their photos.

        Args:
            similarity: B x 2 x 3 (or 1 x 2 x 3), takes pixels of these crops to those of the others; as for
                `Camera.mapped`.
        """
        return replace(
            self,
            pncc_to_crop=warp.compose_affine(similarity, self.pncc_to_crop),
            crop_to_image=warp.compose_affine(self.crop_to_image, warp.invert_affine(similarity)),
            image_map=warp.transform_maps(similarity, self.image_map),
            camera=self.camera.mapped(similarity),
        )

    @classmethod
    def concatenate(cls, batches: Iterable[Self]) -> Self:
        """All faces of one batch or more, in order.

        Raises:
            ValueError: there is no batch, which would have no sizes.
        """
        batches = list(batches)
        if not batches:
            raise ValueError(f"{cls.__name__}.concatenate needs one batch or more")
        return joined(batches)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class FrontalizedFaces(LocatedFaces):
    """B faces turned to the front.

    Attributes:
        uv_texture: B x 3 x N x N float32 in [0, 1], the complete texture.
        position_map: B x 3 x M x M float32 mm, the shape without its fine detail.
        displacement: B x 1 x M x M float32 mm, fine detail along z; 0 unless it was asked for.
        frontal: B x 3 x S x S float32 in [0, 1], the face turned to the front, or as far as was asked for, aligned to a
            recognizer's template.
    """

    uv_texture: Tensor
    position_map: Tensor
    displacement: Tensor
    frontal: Tensor

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        texture, shape, size = self.uv_partial.shape[-1], self.position_map.shape[-1], self.frontal.shape[-1]
        # `super()` needs the class cell, which dataclass(slots=True) replaces.
        return LocatedFaces._shapes(self) | {
            "uv_texture": (3, texture, texture),
            "position_map": (3, shape, shape),
            "displacement": (1, shape, shape),
            "frontal": (3, size, size),
        }

    @property
    @inference()
    def surface(self) -> Tensor:
        """B x 3 x M x M float32 mm: the position map with its fine detail."""
        return torch.cat([self.position_map[:, :2], self.position_map[:, 2:] + self.displacement], 1)
