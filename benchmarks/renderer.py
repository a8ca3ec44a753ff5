"""The torch renderer beside pyrender, which is also what it is checked against."""

from typing import Annotated

import torch
import typer
from scipy.ndimage import binary_fill_holes
from torch import Tensor

from benchmarks.timing import JsonFile, Repeats, interleaved_seconds, report
from pifr.geometry.camera import Camera
from pifr.geometry.reference_render import render_reference
from pifr.geometry.render import Rendering, render


def main(
    batch: Annotated[int, typer.Option("--batch", min=1)] = 32,
    size: Annotated[int, typer.Option("--size", min=16, help="Side of the images.")] = 256,
    grid: Annotated[int, typer.Option("--grid", min=8, help="Side of the position maps: their triangles.")] = 64,
    repeats: Repeats = 3,
    json: JsonFile = None,
) -> None:
    """Faces a second, silhouettes against pyrender's, and holes, at yaw -90..90."""
    from benchmarks.roundtrip import crop_camera, random_people

    positions, angles, textures = random_people(batch, seed=1)
    camera = crop_camera(positions, angles, size)
    positions = torch.nn.functional.interpolate(positions, size=grid, mode="bilinear", align_corners=False)
    ours, theirs = render(positions, textures, camera, size), render_reference(positions, textures, camera, size)
    overlap = _overlap(positions, textures, camera, size)
    holes = _holes(ours)
    rows = []
    for low in range(0, 90, 30):
        chosen = angles[:, 0].abs().clamp(max=89.9) // 30 == low // 30  # 90 belongs to the last
        if not chosen.any():
            continue
        both = (ours.mask * theirs.mask)[chosen] > 0
        rows.append(
            {
                "|yaw|": f"{low} to {low + 30}",
                "images": int(chosen.sum()),
                "IoU, mean": overlap[chosen].mean().item(),
                "IoU, lowest": overlap[chosen].min().item(),
                "depth difference, median mm": (ours.depth - theirs.depth)[chosen][both].abs().median().item(),
                "hole pixels": int(holes[chosen].sum()),
            }
        )
    seconds = interleaved_seconds(
        {
            "torch": lambda: render(positions, textures, camera, size),
            "pyrender": lambda: render_reference(positions, textures, camera, size),
        },
        repeats,
    )
    report(
        "renderer",
        rows,
        json,
        images_a_second={name: batch / value for name, value in seconds.items()},
        times_as_fast_as_pyrender=seconds["pyrender"] / seconds["torch"],
        batch=batch,
        size=size,
        grid=grid,
    )


def _overlap(positions: Tensor, textures: Tensor, camera: Camera, size: int) -> Tensor:
    """Intersection over union of the silhouettes, B; 2 x 2 samples a pixel, for OpenGL's lie off the centre."""
    ours = render(positions, textures, camera, size, supersampling=2).mask
    theirs = render_reference(positions, textures, camera, size, supersampling=2).mask
    return torch.minimum(ours, theirs).sum((1, 2, 3)) / torch.maximum(ours, theirs).sum((1, 2, 3))


def _holes(rendering: Rendering) -> Tensor:
    """Pixels of each image that are empty but enclosed by the face, B."""
    masks = rendering.mask[:, 0].numpy() > 0
    return torch.tensor([int((binary_fill_holes(mask) & ~mask).sum()) for mask in masks])
