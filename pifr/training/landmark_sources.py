"""Where the landmarks come from that photos are registered by: MediaPipe Face Mesh, or this repository's own C-Net.

Face Mesh starts the road, with no weights of ours. A C-Net trained on its registrations then errs less than they do,
for what Face Mesh gets wrong of one photo averages out over thousands: photos registered by C-Net teach the next one
better (`pifr bench registration` measures both).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from pifr.assets import ASSETS
from pifr.detectors.face_mesh import FaceMesh
from pifr.errors import UnknownNameError
from pifr.faces import FaceCrops
from pifr.geometry import warp
from pifr.geometry.face_model import load_face_model
from pifr.locator import FaceLocator, LocatorConfig
from pifr.support.devices import inference
from pifr.zoo import find_weights

MIN_PRESENCE = 0.0
"""Face Mesh's logit of a face."""

_LOOKS = (
    (5.0, 1.06, 0.03, 0.01),
    (-5.0, 1.06, -0.01, 0.03),
    (3.0, 0.95, -0.03, -0.01),
    (-3.0, 0.95, 0.01, -0.03),
    (7.0, 1.0, -0.02, 0.02),
    (-7.0, 1.0, 0.02, -0.02),
)
"""Crops in which C-Net sees each photo beside its own: turned by degrees, enlarged, moved by shares of the side."""


@dataclass(frozen=True, slots=True)
class FoundLandmarks:
    """`points`: L x 2 pixels of the photo, one a link; `reason`: "" or the word why they are not to be used."""

    points: np.ndarray
    reason: str = ""


class LandmarkSource(Protocol):
    """Finds the linked landmarks of one face. `name` also names the noise that the fit assumes."""

    name: str
    fingerprint: str
    """Changes whenever the same face may give other landmarks."""

    def __call__(self, image: np.ndarray, face: FaceCrops) -> FoundLandmarks:
        """Landmarks of the first face cut from an image, uint8 H x W x 3 RGB."""
        ...


def load_links() -> tuple[np.ndarray, np.ndarray]:
    """Indices of the Face Mesh landmarks that are fitted, and of the head vertices they are linked to: (L,) each."""
    links = json.loads((ASSETS / "sources" / "links.json").read_text())
    return np.array(links["facemesh"]), np.array(links["head_vertex"])


def five_points_in_photo(face: FaceCrops) -> np.ndarray:
    """The detector's points of the first face, 5 x 2 pixels of its photo."""
    to_image = face.crop_to_image[0].numpy()
    return face.landmarks[0].numpy() @ to_image[:, :2].T + to_image[:, 2]


class FaceMeshSource:
    """MediaPipe Face Mesh; the detector's five points tell it where to look.

    Args:
        model: path of the tflite file; None: the weights 'face-mesh', fetched if need be.
    """

    name = "face-mesh"

    def __init__(self, model: Path | None = None) -> None:
        if model is None:
            find_weights("face-mesh").fetch()
        self._mesh = FaceMesh(model)
        self.fingerprint = self._mesh.fingerprint
        self._linked = load_links()[0]

    def __call__(self, image: np.ndarray, face: FaceCrops) -> FoundLandmarks:
        found = self._mesh.from_five_points(image, five_points_in_photo(face))
        return FoundLandmarks(found.points[self._linked, :2], "not_a_face" if found.presence < MIN_PRESENCE else "")


class CNetSource:
    """C-Net: where its correspondence puts the linked vertices, averaged over its own crop, `_LOOKS` and mirror images.

    Args:
        locator: its networks and correspondence; the packaged ones if None.
    """

    name = "cnet"

    def __init__(self, locator: FaceLocator | None = None) -> None:
        self._locator = locator or FaceLocator.from_pretrained(config=LocatorConfig(mirrored_pass=True))
        self.fingerprint = f"{self.name}|{self._locator.fingerprint}|{_LOOKS}"
        self._uv = _linked_uv()
        self._looks = _looks(self._locator.pretrained["pncc"].config.input_size).to(self._locator.device)

    @inference()
    def __call__(self, image: np.ndarray, face: FaceCrops) -> FoundLandmarks:
        locator = self._locator
        face = face[:1].to(locator.device)
        located = locator(face)
        if located.status[0] != "ok":
            return FoundLandmarks(np.full((len(self._uv), 2), np.nan), located.reason[0])
        count = len(self._looks)
        pixels = face.pixels.expand(count, -1, -1, -1)
        frames = warp.compose_affine(located.pncc_to_crop, self._looks)
        mask, mask_to_crop = (each.expand(count, *each.shape[1:]) for each in (located.mask, located.pncc_to_crop))
        pncc, mask = locator.predict_pncc(pixels, mask, mask_to_crop, frames)
        seen = locator.correspondence.unwrap(
            pixels, pncc, mask, locator.config.texture_size, frames, locator.config.pncc_deviation
        )
        image_map = torch.cat([located.image_map, warp.transform_maps(frames, seen.image_map)])
        in_crop = warp.points_at(image_map, self._uv).transpose(1, 2)
        return FoundLandmarks(warp.transform_points(face.crop_to_image, in_crop.mean(0, keepdim=True))[0].cpu().numpy())


LANDMARK_SOURCES: dict[str, type[FaceMeshSource] | type[CNetSource]] = {
    source.name: source for source in (FaceMeshSource, CNetSource)
}


def load_landmark_source(name: str) -> LandmarkSource:
    """A source by its name.

    Raises:
        UnknownNameError: there is none of that name; says which there are.
    """
    if name not in LANDMARK_SOURCES:
        raise UnknownNameError("landmark source", name, LANDMARK_SOURCES)
    return LANDMARK_SOURCES[name]()


@lru_cache(maxsize=1)
def _linked_uv() -> Tensor:
    """float32 L x 2: UV of the template's vertex nearest to each link. What lies between counts as bias."""
    from scipy.spatial import cKDTree

    model = load_face_model()
    nearest = cKDTree(model.at_template(model.mean)).query(model.mean[load_links()[1]])[1]
    return torch.from_numpy(model.template.uv[nearest]).float()


def _looks(size: int) -> Tensor:
    """`_LOOKS` as affine maps, float32 K x 2 x 3, from their pixels to those of C-Net's own crop."""
    turn, scale, x, y = torch.tensor(_LOOKS).T
    cosine, sine = torch.cos(turn.deg2rad()) * scale, torch.sin(turn.deg2rad()) * scale
    linear = torch.stack([torch.stack([cosine, -sine], 1), torch.stack([sine, cosine], 1)], 1)
    middle = torch.full((2,), (size - 1) / 2)
    return torch.cat([linear, (middle - linear @ middle + size * torch.stack([x, y], 1))[..., None]], 2)
