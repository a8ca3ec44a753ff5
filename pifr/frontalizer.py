"""Frontalization: a batch of face crops, turned to the front.

    photo --C-Net--> mask, PNCC --correspondence--> partial texture, visibility, camera, fitted shape
                                                          |                          |
                                                        I-Net                      S-Net
                                                          \\                         /
                                                           frontal rendering

`Frontalizer.__call__` reads like this picture, and every step is one function below it; the first row is
`pifr.locator.FaceLocator`. What recognizers are shown is made from the same steps by `pifr.frontal_views.SrtcViews`.
"""

from collections.abc import Iterable, Iterator
from dataclasses import fields
from numbers import Integral
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pifr.completion import MARGIN, WASHED, blend, certain, mirrored
from pifr.faces import ARCFACE_112, AlignmentTemplate, FaceCrops, FaceFinder
from pifr.frontalized import FrontalizedFaces, LocatedFaces
from pifr.geometry import warp
from pifr.geometry.render import frontal_camera, render
from pifr.images import Photo, each_photo, require_several
from pifr.locator import FaceLocator, LocatorConfig
from pifr.networks.pretrained import Pretrained
from pifr.networks.shape import INPUT_SIZE
from pifr.support.config import Config
from pifr.support.devices import inference
from pifr.turned_photo import turn_photo

_KNOWN = 0.25
"""Visibility from which on a point's place in the photo is taken as it is, where nothing is painted beside it."""

_LOST = b""
"""A photo that can be passed on, in place of a frame that cannot."""

_RECIPE = 6  # part of every fingerprint: raise it when results change while weights and configuration do not


class FrontalizerConfig(Config):
    """How located faces are frontalized, beyond what the networks' weights say.

    The defaults are what recognizers gain most from, by measurement (docs/choosing-views.md).

    Attributes:
        completion: what fills the unseen texture: I-Net, the face's other side, or the evidence carried on smoothly.
        shape: S-Net's, the face model fitted to the PNCC, or the mean face.
        fine: add S-Net's fine detail to the shape. A frontal rendering does not show it, a mesh does.
        surround: what the frontal view shows beside the face. "photo": the photo, which then also gives what it shows
            of the face itself (`pifr.turned_photo`). "black": nothing, and the face is rendered from its texture.
    """

    completion: Literal["inet", "mirror", "smooth"] = "mirror"
    shape: Literal["snet", "fit", "mean"] = "fit"
    fine: bool = False
    surround: Literal["photo", "black"] = "photo"

    @property
    def networks(self) -> tuple[str, ...]:
        """Names of the networks that this needs."""
        needed = {
            "inpainting": self.completion == "inet",
            "shape-coarse": self.shape == "snet",
            "shape-fine": self.fine,
        }
        return tuple(name for name, asked in needed.items() if asked)


class Frontalizer:
    """Turns faces to the front, all of a batch at once: some 5 MB a face, so thousands go in batches.

    Args:
        locator: locates the template in faces.
        pretrained: the networks that the configuration needs, on the locator's device.
        config: see `FrontalizerConfig`.

    Attributes:
        fingerprint: changes whenever the same face may give another result.
    """

    def __init__(self, locator: FaceLocator, pretrained: Pretrained, config: FrontalizerConfig) -> None:
        self.locator, self.pretrained, self.config = locator, pretrained, config
        self.device = locator.device
        self.fingerprint = f"{locator.fingerprint}|{pretrained.fingerprint}|{config.digest}|v{_RECIPE}"

    @classmethod
    def from_pretrained(
        cls,
        name: str = "lite",
        *,
        weights: Path | None = None,
        device: torch.device | str = "cpu",
        config: FrontalizerConfig | None = None,
        location: LocatorConfig | None = None,
    ) -> "Frontalizer":
        """The frontalizer with trained networks.

        Args:
            name: "lite", whose weights are packaged, or "paper", whose weights have to be trained.
            weights: a folder of `pifr train` (NETWORK/weights.safetensors, or NETWORK.safetensors) instead of the
                packaged weights.
            device: where everything runs.
            config: see `FrontalizerConfig`.
            location: see `LocatorConfig`.

        Raises:
            WeightsError: a network that is needed has no weights; says how to get them.
            TypeError: `config` or `location` is something else.
        """
        if config is not None and not isinstance(config, FrontalizerConfig):
            raise TypeError(
                f"config is {config!r}: give a FrontalizerConfig such as FrontalizerConfig(completion='inet')"
            )
        locator = FaceLocator.from_pretrained(name, weights=weights, device=device, config=location)
        config = config or FrontalizerConfig()
        return cls(locator, Pretrained(config.networks, name, weights, device, locator.config.precision), config)

    @inference()
    def __call__(
        self, faces: FaceCrops, alignment: AlignmentTemplate = ARCFACE_112, size: int = 112
    ) -> FrontalizedFaces:
        """Frontalizes faces.

        Args:
            faces: B faces; those that failed keep their row, with what a face without any mask gives.
            alignment: where the rendering shows the five landmarks.
            size: side of the rendering, 1 or more pixels.

        Raises:
            TypeError: `alignment` is no template.
            ValueError: `size` is no whole number, or less than 1.
        """
        if not isinstance(alignment, AlignmentTemplate):
            raise TypeError(f"alignment is {alignment!r}: give a template such as ARCFACE_112, and size=224 by name")
        if not isinstance(size, Integral) or size < 1:
            raise ValueError(f"size is {size!r}: a rendering has a side of 1 or more pixels")
        if not len(faces):
            return self(FaceCrops.failed(("no_face",)), alignment, size)[:0]
        located = self.locator(faces)
        faces = faces.to(self.device)
        texture = self.complete(located.uv_partial, located.visibility)
        shape = self.shape(faces.pixels, located)
        displacement = self.detail(texture, shape)
        shape = _resize(shape, displacement.shape[-1])
        frontal = self.turn(faces, located, shape, texture, alignment, size)
        known = {field.name: getattr(located, field.name) for field in fields(LocatedFaces)}
        return FrontalizedFaces(
            **known, uv_texture=texture, position_map=shape, displacement=displacement, frontal=frontal
        )

    def stream(
        self,
        frames: Iterable[Photo],
        finder: FaceFinder | None = None,
        alignment: AlignmentTemplate = ARCFACE_112,
        size: int = 112,
    ) -> Iterator[FrontalizedFaces]:
        """One result a frame, as frames come: for cameras and videos. Nothing is kept from frame to frame.

        OpenCV's frames are BGR, and nothing iterates over its `VideoCapture`; a generator gives RGB frames of it:

            def frames(camera):
                while True:
                    there_is_one, frame = camera.read()
                    if not there_is_one:
                        return
                    yield frame[..., ::-1]

            for result in frontalizer.stream(frames(cv2.VideoCapture(0))):
                ...

        A frame that is None or an empty array, as cameras give now and then, is a failed face: "unreadable".

        Args:
            frames: as `FaceFinder` takes them, uint8 H x W x 3 RGB arrays mostly.
            finder: detects the face of each frame; None: `FaceFinder()`.
            alignment, size: as in a call.

        Raises:
            TypeError: one frame, the name of a video, or a camera in place of frames.
            TypeError, ValueError: as `FaceFinder`, when it comes to what is no frame.
        """
        finder = finder or FaceFinder()
        require_several(frames)
        if not isinstance(frames, Iterable):
            raise TypeError(
                f"a {type(frames).__name__} gives no frames by itself: wrap it in a generator of RGB frames"
            )
        known = each_photo(_LOST if _is_lost(frame) else frame for frame in frames)
        found = (FaceCrops.failed(["unreadable"]) if frame is _LOST else finder([frame]) for frame in known)
        return (self(faces, alignment, size) for faces in found)

    def complete(self, texture: Tensor, visibility: Tensor) -> Tensor:
        """Complete textures B x 3 x N x N from partial ones and their visibility B x 1 x N x N.

        This and the steps below take what lies on the device of the networks.
        """
        kept = self.kept(visibility)
        if self.config.completion == "smooth":
            return blend(texture, kept)
        if self.config.completion == "mirror":
            return mirrored(texture, kept)
        network, size = self.pretrained["inpainting"], texture.shape[-1]
        working = network.config.resolution
        with self.pretrained.autocast():
            completion = network(_resize(texture, working), _resize(certain(visibility), working))
        return blend(texture, kept, _resize(completion, size))

    def kept(self, visibility: Tensor) -> Tensor:
        """What complete textures keep of the photo, B x 1 x N x N in [0, 1] each."""
        return certain(visibility, MARGIN + WASHED if self.config.completion == "inet" else MARGIN)

    def shape(self, pixels: Tensor, located: LocatedFaces) -> Tensor:
        """Pose-free position maps B x 3 x m x m mm of faces in B x 3 x 256 x 256 crops."""
        if self.config.shape == "fit":
            return located.fitted
        if self.config.shape == "mean":
            return self.locator.correspondence.mean.repeat(len(located), 1, 1, 1)
        network = self.pretrained["shape-coarse"]
        if network.config.corrects_fit:
            evidence = self.locator.correspondence.evidence(
                located.camera, located.image_map, located.fitted, located.visibility, located.uv_partial
            )
            seen = (_resize(evidence, INPUT_SIZE), located.fitted)
        else:
            photo = warp.affine_warp(pixels, located.pncc_to_crop, located.pncc.shape[-1])
            seen = (network.photo(photo, located.mask),)
        with self.pretrained.autocast():
            return network(*seen)

    def detail(self, texture: Tensor, shape: Tensor) -> Tensor:
        """Displacement along z, B x 1 x M x M mm, of complete textures; 0 at the size of the shape if not asked for."""
        if not self.config.fine:
            return torch.zeros_like(shape[:, :1])
        network = self.pretrained["shape-fine"]
        with self.pretrained.autocast():
            return network(_resize(texture, network.config.resolution))

    def turn(
        self,
        faces: FaceCrops,
        located: LocatedFaces,
        shape: Tensor,
        texture: Tensor | None,
        alignment: AlignmentTemplate,
        size: int,
        largest_yaw: float | Tensor = 0.0,
    ) -> Tensor:
        """Faces turned to the front, or part of the way, aligned to a template: B x 3 x size x size in [0, 1].

        Args:
            faces: B faces, and `located` what is known of them.
            shape: B x 3 x M x M mm.
            texture: B x 3 x N x N in [0, 1], complete; None, only if `surround` is "photo": what the photo hides is not
                painted.
            alignment, size: where the five landmarks lie.
            largest_yaw: degrees to which |yaw| is brought down, for all faces or B; NaN: not at all. Yaw and pitch
                shrink alike. 0: frontal.
        """
        angles = located.camera.angles().nan_to_num(0.0)
        kept = (largest_yaw / angles[:, 0].abs().clamp_min(1e-6)).clamp(max=1.0).nan_to_num(1.0)
        yaw, pitch = (angles[:, :2] * kept[:, None]).unbind(1)
        landmarks = warp.points_at(shape, self.locator.correspondence.template.landmarks("five"))
        camera = frontal_camera(landmarks, alignment, size, yaw, pitch)
        if self.config.surround == "photo":
            # The fitted shape's projection is smooth; C-Net's own evidence would bend the photo by its errors.
            places = _resize(located.camera.project(located.fitted), located.visibility.shape[-1])
            known = (located.visibility / _KNOWN).clamp(0, 1) if texture is None else self.kept(located.visibility)
            return turn_photo(faces, places, known, shape, texture, camera, size)
        return render(shape, texture, camera, size, supersampling=2).attributes


def _is_lost(frame: object) -> bool:
    return frame is None or (isinstance(frame, np.ndarray) and not frame.size)


def _resize(maps: Tensor, size: int) -> Tensor:
    if maps.shape[-1] != size and maps.shape[-1] % size == 0:
        return functional.avg_pool2d(maps, maps.shape[-1] // size)
    return warp.resized(maps, size)
