"""How exact the geometry is by itself: random people, true PNCC, no network.

    pifr bench roundtrip

Faces of the face model with textures of the texture model are drawn at yaw -90..90; their true PNCC and mask at
128 x 128 go to `Correspondence.unwrap`, and what comes back is compared with what was drawn.
"""

from __future__ import annotations

from typing import Annotated

import torch
import typer
from torch import Tensor

from benchmarks.timing import JsonFile, report
from pifr.geometry import warp
from pifr.geometry.camera import Camera, camera_from_angles
from pifr.geometry.correspondence import Correspondence
from pifr.geometry.face_model import load_face_model
from pifr.geometry.lighting import surface_normals
from pifr.geometry.render import rasterize, render
from pifr.geometry.texture_model import load_texture_model

PNCC_SIZE, UV_SIZE, IMAGE_SIZE = 128, 128, 256
_MARGIN = 1.38
"""The crop's side over the longer side of the face's bounding box."""


def random_people(count: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Position maps (count x 3 x N x N mm), angles (count x 3 degrees, yaw even over -90..90) and textures."""
    model = load_face_model()
    generator = torch.Generator().manual_seed(seed)
    identity = torch.randn(count, len(model.identity), generator=generator)
    active = torch.rand(count, len(model.expression), generator=generator) < 0.1
    expression = 0.5 * active * torch.rand(count, len(model.expression), generator=generator)
    positions = (
        model.template.position_map(UV_SIZE)
        + torch.einsum("bk,kcuv->bcuv", identity, model.identity_maps(identity.shape[1], UV_SIZE))
        + torch.einsum("bk,kcuv->bcuv", expression, model.expression_maps(UV_SIZE))
    )
    tilt = 40 * torch.rand(count, 2, generator=generator) - 20
    angles = torch.cat([torch.linspace(-90, 90, count)[:, None], tilt], 1)
    return positions, angles, load_texture_model().sample(generator, count, UV_SIZE)


def crop_camera(positions: Tensor, angles: Tensor, size: int) -> Camera:
    """Cameras of these angles whose image is the crop around the face that C-Net is trained on."""
    camera = camera_from_angles(*angles.unbind(1), 1.0, torch.zeros(len(angles), 2))
    pixels = camera.project(positions).flatten(2)
    low, high = pixels.amin(2), pixels.amax(2)
    scale = size / (_MARGIN * (high - low).amax(1))
    return camera_from_angles(*angles.unbind(1), scale, (size - 1) / 2 - scale[:, None] * (low + high) / 2)


@torch.inference_mode()
def measure(count: int = 200, seed: int = 0, batch: int = 25) -> dict[str, float]:
    """Runs the round trip; figures by name."""
    correspondence = Correspondence()
    ncc = correspondence.template.ncc_map(UV_SIZE)[None]
    zoom = IMAGE_SIZE / PNCC_SIZE
    to_image = torch.tensor([[[zoom, 0, (zoom - 1) / 2], [0, zoom, (zoom - 1) / 2]]])
    pixel_errors, angle_errors, noise, shares = [], [], [], []
    people, all_angles, all_textures = random_people(count, seed)
    for start in range(0, count, batch):
        positions, angles, textures = (values[start : start + batch] for values in (people, all_angles, all_textures))
        camera = crop_camera(positions, angles, PNCC_SIZE)
        raster = rasterize(positions, camera, PNCC_SIZE)
        images = render(positions, textures, camera.mapped(to_image.expand(len(camera), -1, -1)), IMAGE_SIZE, 2)
        found = correspondence.unwrap(
            images.attributes, raster.sample(ncc), raster.mask, UV_SIZE, to_image.expand(len(camera), -1, -1)
        )

        places = camera.project(positions)
        front = warp.sample(raster.depth.clamp_min(-1e4), places)
        facing = (surface_normals(positions) * camera.rotation[:, 2, :, None, None]).sum(1, keepdim=True)
        seen = (camera.depth(positions) > front - 3) & (facing > 0.2)
        pixel_errors.append((found.image_map - places).norm(dim=1, keepdim=True)[seen])
        angle_errors.append((found.fit.camera.angles() - angles).abs())
        squares = (found.texture - textures).square().mean(1, keepdim=True)
        error = (squares * found.visibility).sum((1, 2, 3)) / found.visibility.sum((1, 2, 3))
        noise.append(-10 * error.log10())
        shares.append((found.visibility * seen).sum((1, 2, 3)) / seen.sum((1, 2, 3)))
    pixel_error, angle_error, psnr = torch.cat(pixel_errors), torch.cat(angle_errors).mean(0), torch.cat(noise)
    return {
        "reprojection error, median px at 128": pixel_error.median().item(),
        "reprojection error, 95 % px at 128": pixel_error.sort().values[int(0.95 * len(pixel_error))].item(),
        "yaw error, mean degrees": angle_error[0].item(),
        "pitch error, mean degrees": angle_error[1].item(),
        "roll error, mean degrees": angle_error[2].item(),
        "visible texture PSNR, mean dB": psnr.mean().item(),
        "visible texture PSNR, lowest dB": psnr.min().item(),
        "visibility where truly seen, mean": torch.cat(shares).mean().item(),
    }


def main(
    faces: Annotated[int, typer.Option("--faces", min=2)] = 200,
    seed: Annotated[int, typer.Option("--seed")] = 0,
    json: JsonFile = None,
) -> None:
    """What true PNCC give back through correspondence alone: reprojection, pose and texture."""
    rows = [{"figure": name, "value": value} for name, value in measure(faces, seed).items()]
    report("roundtrip", rows, json)
