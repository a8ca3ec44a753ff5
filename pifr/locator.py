"""C-Net and the correspondence: where each point of the template lies in the photo, and how surely.

face crop --segmentation--> mask --crop--> PNCC --correspondence--> camera, fitted shape, texture, visibility
"""

from pathlib import Path

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor

from pifr.assets import ASSETS
from pifr.faces import CROP_FACTOR, CROP_SIZE, FaceCrops, inside_photo
from pifr.frontalized import POOR, LocatedFaces
from pifr.geometry import warp
from pifr.geometry.camera import Camera
from pifr.geometry.correspondence import Correspondence, without_nan
from pifr.geometry.framing import bounding_squares, resized_to, square_to_image
from pifr.networks.pretrained import Precision, Pretrained
from pifr.support.config import Config
from pifr.support.devices import inference
from pifr.support.files import file_sha256

_MUCH_BETTER = 0.7
"""Share of the residual that a turned face may leave of one that would be used as it comes."""

_UNDECIDED = 0.2
"""A mask's probability between this and one minus this says neither yes nor no."""

_WELL_EXPLAINED = 4 / 3
"""How much more doubt a face may leave that is explained well: hair across a face is undecided at every strand."""

CNET = ("segmentation", "pncc")
"""Its networks."""

_RECIPE = 6  # part of every fingerprint: raise it when results change while weights and configuration do not


class LocatorConfig(Config):
    """How faces are located, beyond what the networks' weights say.

    Attributes:
        mirrored_pass: also look at the mirror image of each face and average both predictions of the PNCC network:
            twice the work, for no gain that recognizers show (docs/choosing-views.md).
        passes: 2: crop again around the PNCC network's own mask, and predict once more.
        texture_size: side of the textures, gathered from the photo.
        precision: of all networks; "auto" is bfloat16 where the processor multiplies matrices of it natively.
        pncc_deviation: mm, standard error of C-Net's PNCC: the larger, the nearer fitted shapes stay to the mean face.
            S-Net learned to correct fits at this value (docs/choosing-views.md, "Minutes of a GPU").
        largest_residual: mm; a PNCC that no camera and shape explains better is not used.
        turned_residual: mm; what is not explained as well as this is looked at again, turned, and faces that are found
            to lie on their side or head must be.
        largest_doubt: a mask that is undecided at more pixels than this, for each pixel of the face, is not used; a
            third more is allowed where the residual is below `turned_residual`.
        smallest_visible: share of the texture that must be seen.
        largest_yaw: degrees; faces turned further away are not used.

    Of 300 photos of London and Canada, most of them turned, 99 % show at least 0.22 of the texture and stay below a
    doubt of 0.45 and 1.8 mm. Faces upside down have 0.23, 1.2 and 2.4 mm (medians), noise 0.17, 1.4 and 2.3 mm; by all
    limits 5 % of both pass the first look.
    """

    mirrored_pass: bool = False
    passes: int = Field(1, ge=1, le=2)
    texture_size: PositiveInt = 128
    precision: Precision = "auto"
    pncc_deviation: PositiveFloat = 5.0
    largest_residual: PositiveFloat = 2.5
    turned_residual: PositiveFloat = 1.5
    largest_doubt: PositiveFloat = 0.6
    smallest_visible: float = Field(0.15, ge=0, le=1)
    largest_yaw: PositiveFloat = 110.0


class FaceLocator:
    """Locates the template in faces.

    Args:
        pretrained: "segmentation" and "pncc".
        config: see `LocatorConfig`.

    Attributes:
        device: where everything runs: the networks' device.
        correspondence: holds the template and the face model.
        fingerprint: changes whenever the same face may give another result.
    """

    def __init__(self, pretrained: Pretrained, config: LocatorConfig) -> None:
        self.pretrained, self.config = pretrained, config
        self.device = pretrained.device
        self.correspondence = Correspondence().to(self.device)
        geometry = ",".join(file_sha256(ASSETS / name)[:16] for name in ("template.npz", "face_model.npz"))
        self.fingerprint = f"{pretrained.fingerprint}|{geometry}|{config.digest}|v{_RECIPE}"

    @classmethod
    def from_pretrained(
        cls,
        name: str = "lite",
        *,
        weights: Path | None = None,
        device: torch.device | str = "cpu",
        config: LocatorConfig | None = None,
    ) -> "FaceLocator":
        """The locator with trained networks; `name` is `Pretrained`'s `configuration`, other arguments and errors too.

        Raises:
            TypeError: `config` is something else.
        """
        if config is not None and not isinstance(config, LocatorConfig):
            raise TypeError(f"config is {config!r}: give a LocatorConfig such as LocatorConfig(mirrored_pass=True)")
        config = config or LocatorConfig()
        return cls(Pretrained(CNET, name, weights, device, config.precision), config)

    @inference()
    def __call__(self, faces: FaceCrops) -> LocatedFaces:
        """Locates the template in each face, all at once; faces that failed keep their row, with an empty mask.

        Raises:
            TypeError: what is given are no detected faces.
        """
        if not isinstance(faces, FaceCrops):
            raise TypeError(f"a {type(faces).__name__} holds no detected faces: FaceFinder()(photos) does")
        if not len(faces):
            return self(FaceCrops.failed(("no_face",)))[:0]
        return self._locate(faces.to(self.device))

    def _locate(self, faces: FaceCrops) -> LocatedFaces:
        """Faces as they come; those that are hardly explained, as the best of three more looks, a quarter turn apart.

        Detectors take heads that lie on their side, or are upside down, for upright ones. A face that would be used as
        it comes is turned only if that explains it much better.
        """
        located = self._locate_once(faces)
        limit = torch.where(located.reliable, _MUCH_BETTER * located.residual, torch.inf)
        limit = limit.clamp(max=self.config.turned_residual)
        lost = faces.usable & ~(located.reliable & (located.residual <= self.config.turned_residual))
        if not lost.any():
            return located
        again, looks = faces[lost], []
        for quarters in (1, 2, 3):
            turned, to_turned = again.turned(quarters)
            looks.append(self._locate_once(turned).mapped(warp.invert_affine(to_turned)))
        least, best = torch.stack([look.residual.where(look.reliable, torch.inf) for look in looks]).min(0)
        rows = torch.arange(len(faces), device=self.device)
        other = len(faces) + best * len(again) + rows[: len(again)]
        rows[lost] = other.where(least <= limit[lost], rows[lost])
        return LocatedFaces.concatenate([located, *looks])[rows]

    def _locate_once(self, faces: FaceCrops) -> LocatedFaces:
        pncc, mask, pncc_to_crop, found = self.predict(faces.pixels)
        pncc, mask = without_nan(pncc, mask)
        found = found & faces.usable
        mask = mask * found[:, None, None, None]
        seen = self.correspondence.unwrap(
            faces.pixels, pncc, mask, self.config.texture_size, pncc_to_crop, self.config.pncc_deviation
        )
        camera = seen.fit.camera.mapped(pncc_to_crop)
        image_map = warp.transform_maps(pncc_to_crop, seen.image_map)
        # C-Net sees the crop's border, repeated, as part of the face.
        visibility = seen.visibility * inside_photo(image_map, faces.edges)
        residual = torch.where(seen.fit.valid, seen.fit.residual, torch.inf)
        status, reason = self._judged(faces, found, mask, camera, residual, visibility)
        return LocatedFaces(
            mask=mask,
            pncc=pncc,
            pncc_to_crop=pncc_to_crop,
            crop_to_image=faces.crop_to_image.clone(),
            uv_partial=seen.texture,
            visibility=visibility,
            image_map=image_map,
            fitted=seen.positions,
            camera=camera,
            residual=residual,
            status=status,
            reason=reason,
        )

    def predict(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """C-Net alone: tensors in, tensors out.

        Args:
            pixels: B x 3 x 256 x 256.

        Returns:
            PNCC B x 3 x n x n, its mask B x 1 x n x n, the frame of both (B x 2 x 3, to pixels of `FaceCrops`), and B
            bool: whether there is any mask.
        """
        mask = self.segment(pixels)
        mask_to_crop = resized_to(pixels.shape[0], mask.shape[-1], CROP_SIZE, pixels.device)
        for _ in range(self.config.passes):
            pncc_to_crop, found = self.tight_crop(mask, mask_to_crop)
            pncc, mask = self.predict_pncc(pixels, mask, mask_to_crop, pncc_to_crop)
            mask_to_crop = pncc_to_crop
        return pncc, mask, pncc_to_crop, found

    def segment(self, pixels: Tensor) -> Tensor:
        """Mask of B x 3 x 256 x 256 face crops: B x 1 x n x n float32 probability, at the network's own resolution."""
        with self.pretrained.autocast():
            return self.pretrained["segmentation"](pixels).sigmoid()

    def tight_crop(self, mask: Tensor, mask_to_crop: Tensor) -> tuple[Tensor, Tensor]:
        """C-Net's tight crop around a mask.

        Args:
            mask: B x 1 x n x n in [0, 1].
            mask_to_crop: B x 2 x 3, pixels of the mask to pixels of `FaceCrops`.

        Returns:
            B x 2 x 3, pixels of the tight crop to pixels of `FaceCrops`; and B bool, False where the mask is empty:
            the crop then lies around the detector's box.
        """
        network = self.pretrained["pncc"].config
        centre, side, found = bounding_squares(mask)
        tight = warp.compose_affine(
            mask_to_crop, square_to_image(centre, side * network.crop_factor, network.input_size)
        )
        middle = torch.full_like(centre, (CROP_SIZE - 1) / 2)
        box = torch.full_like(side, CROP_SIZE / CROP_FACTOR * network.crop_factor)
        return torch.where(found[:, None, None], tight, square_to_image(middle, box, network.input_size)), found

    def predict_pncc(
        self, pixels: Tensor, mask: Tensor, mask_to_crop: Tensor, pncc_to_crop: Tensor
    ) -> tuple[Tensor, Tensor]:
        """PNCC and mask in C-Net's tight crop.

        Args:
            pixels: B x 3 x 256 x 256.
            mask, mask_to_crop: B x 1 x n x n and its frame: what the network sees if it wants segmented faces, and the
                result's mask if it refines none.
            pncc_to_crop: from `tight_crop`.

        Returns:
            B x 3 x n x n in [0, 1], B x 1 x n x n in [0, 1].
        """
        network = self.pretrained["pncc"]
        size = network.config.input_size
        crops = warp.affine_warp(pixels, pncc_to_crop, size)
        mask = warp.affine_warp(
            mask, warp.compose_affine(warp.invert_affine(mask_to_crop), pncc_to_crop), size, "zeros"
        )
        pncc, refined = self._pncc(crops, mask)
        if self.config.mirrored_pass:
            other, other_refined = self._pncc(crops.flip(3), mask.flip(3))
            other = other.flip(3)
            pncc = (pncc + torch.cat([1 - other[:, :1], other[:, 1:]], 1)) / 2
            refined = (refined + other_refined.flip(3)) / 2
        return pncc, refined

    def _pncc(self, crops: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        with self.pretrained.autocast():
            prediction = self.pretrained["pncc"](crops, mask)
        refined = mask if prediction.mask_logits is None else prediction.mask_logits.sigmoid()
        return prediction.pncc.clamp(0, 1), refined

    def _judged(
        self, faces: FaceCrops, found: Tensor, mask: Tensor, camera: Camera, residual: Tensor, visibility: Tensor
    ) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Status and reason of each face."""
        config = self.config
        undecided, face = ((mask > _UNDECIDED) & (mask < 1 - _UNDECIDED)), mask > 0.5
        doubt = config.largest_doubt * torch.where(residual <= config.turned_residual, _WELL_EXPLAINED, 1.0)
        flaws = (  # as in `POOR`
            ~found,
            undecided.sum((1, 2, 3)) > doubt * face.sum((1, 2, 3), dtype=torch.float32),
            ~(residual <= config.largest_residual),
            camera.angles()[:, 0].abs() > config.largest_yaw,
            visibility.mean((1, 2, 3)) < config.smallest_visible,
        )
        status, reason = list(faces.status), list(faces.reason)
        for row, flags in enumerate(torch.stack(flaws, 1).tolist()):
            if status[row] != "failed" and any(flags):
                status[row] = "fallback"
                reason[row] = next(word for word, flag in zip(POOR, flags, strict=True) if flag)
        return tuple(status), tuple(reason)
