"""Renders the training pairs: the second half of the data road (paper section 3.6, docs/architecture.md).

Every registered photo gives one untouched view and several turned ones, with true PNCC (its support is the mask) and
position map, and one complete UV texture. Everything depends on (seed, photo, view) alone, so the same seed gives the
same bytes whatever the number of workers.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np

from pifr.errors import ConfigError, DataError
from pifr.geometry.face_model import load_face_model
from pifr.images import read_image
from pifr.support.files import claim_folder, file_sha256, whole_folder, write_whole
from pifr.support.workers import start_worker, usable_cores
from pifr.training.heads import (
    CANVAS,
    MASK_FRACTION,
    POSITION_MAP_SIZE,
    UV_TEXTURE_SIZE,
    HeadRender,
    TexturedHead,
    prefiltered,
)
from pifr.training.registration import read_fit, read_registration, registered_photo, require_sets

log = logging.getLogger(__name__)

FORMAT = 3
"""Of shards; 2: renders wear other people's shapes and expressions; 3: large photos are blurred before they shrink."""
PHOTOS_PER_SHARD = 100
ANOTHER_SHAPE, ANOTHER_EXPRESSION = 0.6, 0.55
"""Shares of renders that wear another person's shape, and another expression than the photo's."""
MIXED_EXPRESSIONS = (
    "mouthFunnel",
    "mouthPucker",
    "mouthSmile",
    "mouthStretch",
    "mouthUpperUp",
    "mouthLowerDown",
    "mouthFrown",
    "cheekPuff",
    "browInnerUp",
    "browDown",
    "eyeSquint",
)
"""Expressions that are mixed in beside the open jaw; both sides of the face alike."""
YAW_GRID = tuple(range(-90, 91, 10))
"""The paper's poses (section 3.6.4)."""


@dataclass(frozen=True, slots=True)
class RenderSettings:
    """What `pifr train render` draws.

    Attributes:
        views: pairs a photo, the untouched one included; None: 12, or with `grid` as many as `YAW_GRID` has.
        seed: of everything.
        grid: the paper's poses, yaw -90..90 in 10-degree steps without pitch and roll, instead of random ones.

    Raises:
        ConfigError: another number of views than the grid has.
    """

    views: int | None = None
    seed: int = 1
    grid: bool = False

    def __post_init__(self) -> None:
        if self.views is None:
            object.__setattr__(self, "views", len(YAW_GRID) if self.grid else 12)
        if self.grid and self.views != len(YAW_GRID):
            raise ConfigError(f"the grid has {len(YAW_GRID)} yaws, not {self.views}: leave the number of views out")


def render(
    registration: Path,
    photos: Path,
    out: Path,
    settings: RenderSettings,
    *,
    sets: Sequence[str] = (),
    licences: dict[str, str] | None = None,
    workers: int = 0,
) -> Iterator[tuple[int, int]]:
    """Write shards of pairs for every accepted photo; yields (done, total) shards.

    A shard appears whole or not at all, so the next run goes on where a killed one, or a full disk, stopped.

    Args:
        registration: folder of `pifr train register`. photos: the folder it was run on. out: folder of the shards.
        sets: render only photos of these sets. licences: set name -> licence, written into the manifest.

    Raises:
        DataError: as `read_registration`; or if there is no accepted photo, or `out` holds shards made with other
            settings.
        OSError: if a shard cannot be written; what was finished stays.
    """
    table, fits = read_registration(registration), registration / "registration.parquet"
    accepted = table[(table["status"] == "ok") & (table["set"].isin(sets) if sets else True)].reset_index(drop=True)
    if accepted.empty:
        raise DataError(f"'{registration}': no accepted photo of sets {list(sets) or 'any'}")
    require_sets([*sets, *(licences or {})], accepted["set"].unique(), registration)
    shards = [accepted.iloc[begin : begin + PHOTOS_PER_SHARD] for begin in range(0, len(accepted), PHOTOS_PER_SHARD)]
    out.mkdir(parents=True, exist_ok=True)
    claim_folder(out / "manifest.json", _manifest(fits, accepted, settings, licences or {}, shards))
    names = accepted["photo"].tolist()
    todo = [
        (photos, shard, names, out / f"shard-{k:04d}", settings)
        for k, shard in enumerate(shards)
        if not (out / f"shard-{k:04d}").exists()
    ]
    done = len(shards) - len(todo)
    with ProcessPoolExecutor(workers or usable_cores(), get_context("spawn"), start_worker) as pool:
        for _ in pool.map(_render_shard, todo):
            done += 1
            yield done, len(shards)


def _manifest(fits: Path, accepted, settings: RenderSettings, licences: dict[str, str], shards: list) -> dict:
    photos = hashlib.sha256("\n".join(accepted["photo"]).encode()).hexdigest()
    return {
        "format": FORMAT,
        "canvas": CANVAS,
        "mask_fraction": MASK_FRACTION,
        "views": settings.views,
        "seed": settings.seed,
        "grid": settings.grid,
        "photos": len(accepted),
        "photos_sha256": photos,
        "registration_sha256": file_sha256(fits),
        "sets": {name: int(count) for name, count in accepted["set"].value_counts().sort_index().items()},
        "licences": {name: licences.get(name, "unknown") for name in sorted(accepted["set"].unique())},
        "shards": [{"name": f"shard-{k:04d}", "pairs": len(shard) * settings.views} for k, shard in enumerate(shards)],
    }


def _render_shard(task: tuple) -> None:
    photos, rows, names, final, settings = task
    with whole_folder(final) as folder:
        _write_shard(photos, rows, names, folder, settings)


def _write_shard(photos: Path, rows, names: list[str], folder: Path, settings: RenderSettings) -> None:
    import pandas as pd

    count = len(rows) * settings.views
    images = np.empty((count, CANVAS, CANVAS, 3), np.uint8)
    pncc = np.empty_like(images)
    positions = np.empty((count, POSITION_MAP_SIZE, POSITION_MAP_SIZE, 3), np.float16)
    textures = np.empty((len(rows), UV_TEXTURE_SIZE, UV_TEXTURE_SIZE, 3), np.uint8)
    visibility = np.empty((len(rows), UV_TEXTURE_SIZE, UV_TEXTURE_SIZE), np.uint8)
    shapes = np.empty((len(rows), POSITION_MAP_SIZE, POSITION_MAP_SIZE, 3), np.float16)
    pairs, texture_rows = [], []
    for k, row in enumerate(rows.itertuples()):
        head = TexturedHead(registered_photo(photos, row), read_fit(row))
        textures[k], visibility[k] = head.texture()
        shapes[k] = head.position_map(head.vertices)
        source = {"photo": row.photo, "set": row.set}
        texture_rows.append(source | {"yaw": row.yaw, "pitch": row.pitch, "residual_mm": row.residual_mm})
        for view in range(settings.views):
            place = k * settings.views + view
            result = _draw_view(head, row.Index, view, photos, names, settings)
            images[place], pncc[place] = result.image, result.pncc
            own_shape = result.vertices is head.vertices
            positions[place] = shapes[k] if own_shape else head.position_map(result.vertices)
            kind = "photo" if view == 0 and not settings.grid else "render"
            pairs.append(
                source | {"kind": kind, "view": view, "yaw": result.yaw, "pitch": result.pitch, "roll": result.roll}
            )
    arrays = {
        "image": images,
        "pncc": pncc,
        "position": positions,
        "texture": textures,
        "visibility": visibility,
        "shape": shapes,
    }
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    write_whole(folder / "pairs.parquet", pd.DataFrame(pairs).to_parquet)
    write_whole(folder / "photos.parquet", pd.DataFrame(texture_rows).to_parquet)


def _draw_view(
    head: TexturedHead, photo: int, view: int, photos: Path, names: list[str], settings: RenderSettings
) -> HeadRender:
    rng = np.random.default_rng([settings.seed, photo, view])
    if view == 0 and not settings.grid:
        return head.photo_view()
    angles = (float(YAW_GRID[view]), 0.0, 0.0) if settings.grid else _random_angles(rng)
    background = draw_background(head, angles[0], photos / names[rng.integers(len(names))], rng)
    offset, opened = _another_face(head, rng)
    hair = rng.uniform(3, 30) if rng.random() < 0.6 else 0.0
    light = None
    if rng.random() < 0.6:
        direction = rng.normal(size=3)
        direction[2] = abs(direction[2])
        light = direction / np.linalg.norm(direction), rng.uniform(0, 0.6)
    mouth = None
    if opened:
        mouth = np.array([[70.0, 25.0, 25.0], [215.0, 205.0, 190.0]]) * rng.uniform(0.1, 1.0, (2, 1))
    return head.render(angles, background, offset, hair, light, mouth)


def _another_face(head: TexturedHead, rng: np.random.Generator) -> tuple[np.ndarray | None, bool]:
    """What turns the photo's shape into another: offset V x 3 mm (None: none), and whether that opens a shut mouth.

    The photo is textured onto the shape of another person, drawn from the face model, so that shapes are known exactly
    and vary as people do, whatever the fit made of the photo; and people speak and laugh in photos of their profiles.
    """
    model = load_face_model()
    identity = np.zeros(len(head.fit.identity), np.float32)
    if rng.random() < ANOTHER_SHAPE:
        identity = np.clip(rng.normal(size=len(identity)), -2.5, 2.5).astype(np.float32) - head.fit.identity
    own = np.asarray(head.fit.expression, np.float32)
    expression = own.copy()
    jaw = model.expression_names.index("jawOpen")
    if rng.random() < ANOTHER_EXPRESSION:
        expression[jaw] += rng.uniform(0.1, 0.7) if rng.random() < 0.7 else 0.0
        for name in rng.choice(MIXED_EXPRESSIONS, 2, replace=False):
            sides = [k for k, full in enumerate(model.expression_names) if full.split("_")[0] == name]
            expression[sides] += rng.uniform(0, 0.6)
        expression = np.clip(expression, 0, 1)
    opened = bool(own[jaw] < 0.1 and expression[jaw] > own[jaw])
    changed = np.flatnonzero(expression != own)
    if not identity.any() and not len(changed):
        return None, False
    return model.offset(identity, (expression - own)[changed], changed), opened


def _random_angles(rng: np.random.Generator) -> tuple[float, float, float]:
    """Yaw mostly beyond 50 degrees, where photos are rare and the work is hard; moderate pitch and roll."""
    yaw = rng.uniform(-90, 90) if rng.random() < 0.5 else rng.choice([-1, 1]) * rng.uniform(50, 95)
    return float(yaw), float(np.clip(rng.normal(0, 11), -30, 30)), float(np.clip(rng.normal(0, 7), -22, 22))


def draw_background(head: TexturedHead, yaw: float, other: Path, rng: np.random.Generator) -> np.ndarray:
    """uint8 CANVAS x CANVAS x 3: a piece of another photo, the own photo turned along, or a flat colour."""
    choice = rng.random()
    if choice < 0.1:
        return np.full((CANVAS, CANVAS, 3), rng.integers(0, 256, 3), np.uint8)
    if choice < 0.5:
        image = read_image(other)
        side = rng.uniform(0.3, 1.0) * min(image.shape[:2])
        # Half of the pieces come from the left edge, where portraits show background rather than a face.
        left = 0.0 if rng.random() < 0.5 else rng.uniform(0, image.shape[1] - side)
        top = rng.uniform(0, image.shape[0] - side)
        # Cut first, for to blur all of a large photo would take long.
        piece = image[int(top) : int(top + side), int(left) : int(left + side)]
        scale = CANVAS / side
        image, to_canvas = prefiltered(piece, scale), np.array([[scale, 0, 0], [0, scale, 0]])
    else:
        # Face profiling in the plane: the photo's surroundings shrink with the cosine and trail behind the head.
        image = head.smooth
        centre, side = head.face_box()
        scale = CANVAS * MASK_FRACTION / side * rng.uniform(0.9, 1.05)
        turned = np.radians(abs(yaw))
        squeeze = scale * rng.uniform(max(0.5, np.cos(turned)), 1.1)
        shift = -np.sign(yaw) * np.sin(turned) * CANVAS * 0.15
        to_canvas = np.array(
            [[squeeze, 0, CANVAS / 2 + shift - squeeze * centre[0]], [0, scale, CANVAS / 2 - scale * centre[1]]]
        )
    border = cv2.BORDER_REFLECT_101 if rng.random() < 0.7 else cv2.BORDER_REPLICATE
    result = cv2.warpAffine(image, to_canvas, (CANVAS, CANVAS), flags=cv2.INTER_LINEAR, borderMode=border)
    if rng.random() < 0.3:
        result = cv2.GaussianBlur(result, (0, 0), rng.uniform(1, 6))
    return result
