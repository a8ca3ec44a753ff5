"""From photos to faces: detection, five landmarks, one square crop a face, and alignment to a recognizer's template.

Everything after the crop is batched. A photo in which no face can be used keeps its row, with a reason.
"""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from pifr.detectors import Detections, Detector, load_detector
from pifr.errors import ConfigError, ImageError
from pifr.geometry.alignment import ARCFACE_112 as ARCFACE_112
from pifr.geometry.alignment import AlignmentTemplate
from pifr.geometry.five_landmarks import roll_from_landmarks, with_nominal_landmarks
from pifr.geometry.warp import (
    affine_warp,
    compose_affine,
    invert_affine,
    pixel_grid,
    similarity_transform,
    transform_maps,
    transform_points,
)
from pifr.images import Photo, each_photo, read_image
from pifr.support.devices import inference
from pifr.support.rows import Rows, check_rows, joined

log = logging.getLogger(__name__)

CROP_SIZE = 256
"""Side of a face crop in its own pixels."""

CROP_FACTOR = 2.0
"""Side of the crop over the longer side of the detector's box."""

_RECIPE = 5  # part of every fingerprint: raise it when the pixels of a crop change

_LARGEST_ROLL = 30.0
"""Degrees; the squares around heads that are rolled further are turned with them."""


_LARGEST_SIDE = 21_000
"""Pixels of the photo: a larger square is no face's, and OpenCV could not turn it (half as much again, below 2^15)."""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class FaceCrops(Rows):
    """B faces, each a square cut from its photo: upright in the photo, or, heads that are rolled far, in the head.

    Attributes:
        pixels: B x 3 x 256 x 256 float32 RGB in [0, 1]; zero where `status` is "failed".
        crop_to_image: B x 2 x 3 float32; maps crop pixels (x, y, 1) to pixels of the photo.
        landmarks: B x 5 x 2 float32 in crop pixels (x, y); NaN where unknown.
        status: B of "ok", "fallback" (no detection: a declared substitute was cut) or "failed".
        reason: B of "" (ok) or a word: "no_face", "several_faces", "unreadable", "no_landmarks".
        edges: B x 4 x 3 float32, the photo's edges as lines in the crop: (a, b, c) means that pixel (x, y) lies
            a x + b y + c crop pixels inside. Beyond them `pixels` repeats the photo's border, which networks of faces
            like and recognizers do not (`align` paints it black). By default the photo has no end.

    Raises:
        ValueError: a field's shape, dtype or value is not as above; the message names it.
    """

    pixels: Tensor
    crop_to_image: Tensor
    landmarks: Tensor
    status: tuple[str, ...]
    reason: tuple[str, ...]
    edges: Tensor | None = None

    def __post_init__(self) -> None:
        if self.edges is None:
            endless = torch.tensor([0.0, 0.0, torch.inf], dtype=torch.float32, device=self.pixels.device)
            object.__setattr__(self, "edges", endless.repeat(len(self), 4, 1))
        square = (3, CROP_SIZE, CROP_SIZE)
        check_rows(self, {"pixels": square, "crop_to_image": (2, 3), "landmarks": (5, 2), "edges": (4, 3)})

    @property
    def usable(self) -> Tensor:
        """B bool: there are pixels, detected or from a fallback."""
        found = [status != "failed" for status in self.status]
        return torch.tensor(found, dtype=torch.bool, device=self.pixels.device)

    @property
    @inference()
    def boxes(self) -> Tensor:
        """B x 4 float32: left, top, right, bottom of the squares around the detector's boxes, in pixels of the photo.

        Means nothing where `status` is "failed".
        """
        middle = self.crop_to_image @ self.crop_to_image.new_tensor([(CROP_SIZE - 1) / 2, (CROP_SIZE - 1) / 2, 1])
        half = self.crop_to_image[:, :, 0].norm(dim=1, keepdim=True) * (CROP_SIZE / CROP_FACTOR / 2)
        return torch.cat([middle - half, middle + half], 1)

    @inference()
    def turned(self, quarters: int) -> tuple["FaceCrops", Tensor]:
        """The same faces in crops that are turned counter-clockwise, by exchanging pixels.

        Args:
            quarters: of a circle.

        Returns:
            The faces, and the map 1 x 2 x 3 that takes pixels of these crops to pixels of the turned ones.
        """
        quarter = self.landmarks.new_tensor([[[0, 1, 0], [-1, 0, CROP_SIZE - 1]]])
        to_turned = self.landmarks.new_tensor([[[1, 0, 0], [0, 1, 0]]])
        for _ in range(quarters % 4):
            to_turned = compose_affine(quarter, to_turned)
        back = invert_affine(to_turned)
        normals, offsets = self.edges[..., :2], self.edges[..., 2:]
        faces = replace(
            self,
            pixels=self.pixels.rot90(quarters, (2, 3)),
            crop_to_image=compose_affine(self.crop_to_image, back),
            landmarks=transform_points(to_turned, self.landmarks),
            edges=torch.cat([normals @ back[..., :2], normals @ back[..., 2:] + offsets], 2),
        )
        return faces, to_turned

    @staticmethod
    def concatenate(batches: Iterable["FaceCrops"]) -> "FaceCrops":
        """All faces of several batches in order; of no batch, an empty one."""
        batches = [FaceCrops.failed(()), *batches]
        return joined([batch.to(batches[-1].pixels.device) for batch in batches])

    @staticmethod
    def failed(reasons: Sequence[str]) -> "FaceCrops":
        """Rows without pixels, one a reason."""
        count, plain = len(reasons), {"dtype": torch.float32, "device": "cpu"}
        return FaceCrops(
            torch.zeros(count, 3, CROP_SIZE, CROP_SIZE, **plain),
            torch.eye(2, 3, **plain).repeat(count, 1, 1),
            torch.full((count, 5, 2), torch.nan, **plain),
            ("failed",) * count,
            tuple(reasons),
        )


def cut(
    image: np.ndarray, box: np.ndarray, landmarks: np.ndarray | None = None, status: str = "ok", reason: str = ""
) -> FaceCrops:
    """Cut the square around one face: side `CROP_FACTOR` x the box's longer side, centred on the box.

    The square lies on whole pixels of the photo, so that the map between the two is exact. It is turned by the roll
    that the landmarks tell of, if that is large. Beyond the photo its border is replicated. It is averaged when it
    shrinks and interpolated by cubics when it grows or turns.

    Args:
        image: uint8 H x W x 3 RGB.
        box: left, top, right, bottom in pixels of the image.
        landmarks: 5 x 2 in pixels of the image, or None if unknown.
        status, reason: as in `FaceCrops`.

    Returns:
        One face; failed with the reason "no_face" where the square would be larger than any face of a photo is, or the
        box is not finite.
    """
    left, top, right, bottom = np.asarray(box, dtype=np.float64)
    side = CROP_FACTOR * max(right - left, bottom - top)
    if not (side <= _LARGEST_SIDE and np.isfinite(box).all()):
        return FaceCrops.failed(["no_face"])
    side = max(round(side), 2)
    x, y = round((left + right) / 2 + 0.5 - side / 2), round((top + bottom) / 2 + 0.5 - side / 2)
    roll = 0.0 if landmarks is None else roll_from_landmarks(np.asarray(landmarks, np.float32))
    if abs(roll) > _LARGEST_ROLL:
        square, turn = _turned(image, x, y, side, roll)
    else:
        square, turn = _replicated(image, x, y, side), np.eye(2)
    shrinks = side > CROP_SIZE
    pixels = cv2.resize(square, (CROP_SIZE, CROP_SIZE), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
    scale = side / CROP_SIZE
    # Both centres are the same place.
    offset = np.array([x, y]) + (side - 1) / 2 - scale * turn @ np.full(2, (CROP_SIZE - 1) / 2)
    to_image = np.column_stack([scale * turn, offset])
    points = np.full((5, 2), np.nan) if landmarks is None else (np.asarray(landmarks) - offset) @ turn / scale
    return FaceCrops(
        torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))[None].float() / 255,
        torch.from_numpy(to_image)[None].float(),
        torch.from_numpy(points)[None].float(),
        (status,),
        (reason,),
        torch.from_numpy(_photo_edges(image, to_image))[None].float(),
    )


def _photo_edges(image: np.ndarray, to_image: np.ndarray) -> np.ndarray:
    """`FaceCrops.edges` of one crop, 4 x 3, given the map 2 x 3 of its pixels to those of the image."""
    height, width = image.shape[:2]
    scale = np.linalg.norm(to_image[:, 0])
    inside = to_image + [[0, 0, 0.5], [0, 0, 0.5]]  # right of the left edge, below the upper edge
    return np.concatenate([inside, [[0, 0, width], [0, 0, height]] - inside]) / scale


def _turned(image: np.ndarray, x: int, y: int, side: int, roll: float) -> tuple[np.ndarray, np.ndarray]:
    """The square of `_replicated` turned clockwise about its centre (degrees), and that turn, 2 x 2."""
    cosine, sine = np.cos(np.radians(roll)), np.sin(np.radians(roll))
    turn = np.array([[cosine, -sine], [sine, cosine]])
    margin = side // 4  # the corners stick out by a fifth of the side
    wide = _replicated(image, x - margin, y - margin, side + 2 * margin)
    middle = (side - 1) / 2
    to_wide = np.column_stack([turn, margin + middle - turn @ [middle, middle]])
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(wide, to_wide, (side, side), flags=flags, borderMode=cv2.BORDER_REPLICATE), turn


def _replicated(image: np.ndarray, x: int, y: int, side: int) -> np.ndarray:
    """The square with its upper left pixel at (x, y), the image's border replicated where it sticks out."""
    height, width = image.shape[:2]
    (top, above, below), (left, before, after) = _reach(y, side, height), _reach(x, side, width)
    part = image[top : top + side - above - below, left : left + side - before - after]
    return cv2.copyMakeBorder(part, above, below, before, after, cv2.BORDER_REPLICATE)


def _reach(start: int, side: int, length: int) -> tuple[int, int, int]:
    """First pixel of a stretch that lies in the image, and how many stick out before and after it."""
    return min(max(start, 0), length - 1), min(max(-start, 0), side - 1), min(max(start + side - length, 0), side - 1)


def align(
    pixels: Tensor,
    landmarks: Tensor,
    template: AlignmentTemplate,
    size: int,
    edges: Tensor | None = None,
    scale: Tensor | None = None,
) -> Tensor:
    """Bring each face to a recognizer's template by the similarity that fits its five landmarks best.

    What lies beyond the photo becomes black, as in the pictures that recognizers were trained on. Gradients pass;
    autocast around it changes nothing.

    Args:
        pixels: B x 3 x H x W float32.
        landmarks: B x 5 x 2 float32 in pixels of `pixels`; a face with a NaN is aligned by the nominal ones of
            `FaceCrops`, which mean something in 256 x 256 crops alone.
        template: where the landmarks have to lie.
        size: side of the output.
        edges: `FaceCrops.edges`; None if all of `pixels` shows the photo.
        scale: B, pixels of the output for a pixel of the input, where the landmarks shall not decide; NaN: they do.

    Returns:
        B x 3 x size x size float32; beyond the crop its border is repeated.
    """
    landmarks = with_nominal_landmarks(landmarks)
    target = template.scaled(size).to(landmarks).expand_as(landmarks)
    with torch.autocast(pixels.device.type, enabled=False):
        # Fitted towards the template, as recognizers' training data was: the opposite fit enlarges faces that do not
        # look like it, profiles above all.
        to_crop = invert_affine(similarity_transform(landmarks, target, scale=scale))
        aligned = affine_warp(pixels, to_crop, size)
        if edges is None:
            return aligned
        grid = pixel_grid(size, size, device=pixels.device).to(landmarks.dtype).expand(len(pixels), -1, -1, -1)
        return aligned * inside_photo(transform_maps(to_crop, grid), edges)


def inside_photo(places: Tensor, edges: Tensor) -> Tensor:
    """How much of a pixel at places in face crops (B x 2 x H x W) lies within the photo: B x 1 x H x W in [0, 1].

    Args:
        places: (x, y) in pixels of the crops.
        edges: `FaceCrops.edges`.
    """
    depth = torch.einsum("bec,bchw->behw", edges[..., :2], places) + edges[..., 2, None, None]
    return (depth + 0.5).clamp(0, 1).prod(1, keepdim=True)


POLICIES = ("largest", "central", "reject")
"""What to do with several faces: take the largest, take the one nearest to the image's centre, or fail."""

FALLBACKS = (None, "centre-crop")


class FaceFinder:
    """Finds one face in each image and cuts it out; `every_face` cuts out all of one image.

    Args:
        detector: "yunet", "yunet-close", "mtcnn", "aligned" (images that are aligned faces already), "file:PATH"
            (landmarks from a CSV file), or a `Detector`.
        policy: one of `POLICIES`.
        fallback: None, or "centre-crop": where no face is found, cut the central square that holds the whole image,
            with unknown landmarks and the status "fallback", so that every report can count it.

    Attributes:
        fingerprint: changes whenever the same image may give another crop.
        by_name: whether a crop depends on what the image is called.

    Raises:
        UnknownNameError, ConfigError, WeightsError, DataError: while it is made, never while it is called.
    """

    def __init__(
        self, detector: str | Detector = "yunet", policy: str = "largest", fallback: str | None = None
    ) -> None:
        if policy not in POLICIES:
            raise ConfigError(f"policy {policy!r} for several faces: use one of {', '.join(POLICIES)}")
        if fallback not in FALLBACKS:
            raise ConfigError(f"fallback {fallback!r}: use 'centre-crop', or leave it out")
        self.detector = load_detector(detector) if isinstance(detector, str) else detector
        self.by_name = self.detector.by_name
        self.policy = policy
        self.fallback = fallback
        # To say which face is the most central, or that there is but one, takes all of them.
        self._every = policy != "largest"
        seen = f"{policy} of all" if self._every else policy
        self.fingerprint = (
            f"{self.detector.fingerprint}|{seen}|fallback={fallback}|crop={CROP_SIZE}x{CROP_FACTOR:g}|v{_RECIPE}"
        )

    @inference()
    def __call__(self, images: Iterable[Photo], names: Sequence[str | Path] | None = None) -> FaceCrops:
        """Cut one face from each image; an image that gives none keeps its row, with status and reason.

        Args:
            images: photos, see `pifr.images.Photo`: file names, contents of files, uint8 H x W x 3 RGB arrays (grey and
                RGBA ones, too), or Pillow images.
            names: what a landmark file calls each image; by default the file names among `images`.

        Returns:
            One row an image, in order, on the CPU.

        Raises:
            TypeError: one photo in place of several.
            TypeError, ValueError: as `read_image`, of what is no photo; says which it is, counted from 0. A photo that
                cannot be read is a failure instead.
            ValueError: there is not one name an image.
        """
        images = list(each_photo(images))
        if names is None:
            names = [_name_of(image) for image in images]
        if len(names) != len(images):
            raise ValueError(f"{len(names)} names for {len(images)} images: each has one")
        return FaceCrops.concatenate([self._find(image, name) for image, name in zip(images, names, strict=True)])

    @inference()
    def every_face(self, image: Photo, name: str | Path | None = None) -> FaceCrops:
        """Cut every face from one image, small ones beside large ones too; policy and fallback have no say.

        Args:
            image: as in a call for one face each.
            name: what a landmark file calls it; by default its file name.

        Returns:
            One row a face, on the CPU; no row if there is none. The face with the largest box of the detector, by its
            area, comes first.

        Raises:
            ImageError: it cannot be read.
            TypeError, ValueError: as `read_image`.
        """
        if name is None:
            name = _name_of(image)
        pixels = read_image(image)
        found = self.detector(pixels, name, every=True)
        largest_first = np.argsort(-_areas(found), kind="stable")
        return FaceCrops.concatenate(cut(pixels, found.boxes[k], found.landmarks[k]) for k in largest_first)

    def _find(self, source: Photo, name: str | Path) -> FaceCrops:
        try:
            image = read_image(source)
        except ImageError as error:
            log.warning("%s%s", f"'{name}': " if isinstance(source, bytes) and name else "", error)
            return FaceCrops.failed(["unreadable"])
        found = self.detector(image, name, every=self._every)
        if len(found.boxes) > 1 and self.policy == "reject":
            return FaceCrops.failed(["several_faces"])
        if len(found.boxes):
            chosen = _choose(found, image.shape[:2], self.policy)
            return cut(image, found.boxes[chosen], found.landmarks[chosen])
        if self.fallback is None:
            return FaceCrops.failed([self.detector.missing])
        height, width = image.shape[:2]
        centre, half = np.array([width - 1, height - 1]) / 2, max(height, width) / CROP_FACTOR / 2
        return cut(image, np.concatenate([centre - half, centre + half]), None, "fallback", self.detector.missing)


def _name_of(image: Photo) -> str | Path:
    """What a landmark file calls a photo if nobody says. Names that it holds are relative to its own folder."""
    return Path(image).absolute() if isinstance(image, str | Path) else ""


def _choose(found: Detections, shape: tuple[int, int], policy: str) -> int:
    """Index of the largest face, or of the one whose box is centred nearest to the image's centre."""
    if policy == "central":
        centres = (found.boxes[:, :2] + found.boxes[:, 2:]) / 2
        return int(np.linalg.norm(centres - (np.array(shape[::-1]) - 1) / 2, axis=1).argmin())
    return int(_areas(found).argmax())


def _areas(found: Detections) -> np.ndarray:
    return (found.boxes[:, 2:] - found.boxes[:, :2]).prod(1)
