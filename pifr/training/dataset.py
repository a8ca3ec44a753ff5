"""Batches from memory-mapped shards, each a pure function of (seed, step).

A training stream is a map from step numbers to whole batches: which samples, in which order and how each is augmented
follows from the seed and the step alone, whatever the number of workers and wherever a run was interrupted.
"""

import hashlib
import os
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pifr.completion import certain
from pifr.errors import DataError
from pifr.support.files import read_manifest, read_table
from pifr.training.augment import (
    Crop,
    Framing,
    degrade,
    imprecise_mask,
    mirror_position_map,
    occlude,
    random_crop,
    without_colours,
)

Batch = dict[str, Tensor]

_CONTENTS = {
    "pairs": ("pairs.parquet", ("image", "pncc", "position")),
    "textures": ("photos.parquet", ("texture", "visibility", "shape")),
}
_VALIDATION_SHARE = 0.03


def is_held_out(photo: str) -> bool:
    """Whether a photo belongs to the validation split; depends on its name alone (about 3 % of all)."""
    digest = hashlib.sha256(photo.encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64 < _VALIDATION_SHARE


class Shards:
    """Rows of all shards below a folder, as docs/architecture.md lays them out.

    Args:
        root: the folder that `pifr train render` wrote.
        content: "pairs" (rendered images) or "textures" (registered photos).
        split: "train", "validation" (held-out photos) or "all".

    Attributes:
        rows: the Parquet rows that were kept, index 0 .. n-1.

    Raises:
        DataError: if the folder holds no such shards, or arrays and rows disagree.
    """

    def __init__(
        self,
        root: Path,
        content: Literal["pairs", "textures"] = "pairs",
        split: Literal["train", "validation", "all"] = "train",
    ) -> None:
        self.root = root
        table_name, self._names = _CONTENTS[content]
        # Folders that begin with a dot are shards that are still being written.
        tables = [
            path
            for path in sorted(root.rglob(table_name))
            if not any(part.startswith(".") for part in path.relative_to(root).parts)
        ]
        if not tables:
            raise DataError(f"no {table_name} below {root}: write shards with 'pifr train render'")
        self._folders = [table.parent for table in tables]
        self._require_all()
        self._arrays = self._memory_maps()
        frames = []
        for number, (table, arrays) in enumerate(zip(tables, self._arrays, strict=True)):
            frame = read_table(table, f"delete '{table.parent}', and 'pifr train render' draws it anew")
            for name, array in arrays.items():
                if len(array) < len(frame):
                    raise DataError(f"{table.parent / name}.npy has {len(array)} rows, {table.name} {len(frame)}")
            frames.append(frame.assign(shard=number, row=np.arange(len(frame))))
        rows = pd.concat(frames, ignore_index=True)
        if split != "all":
            held_out = rows["photo"].map({photo: is_held_out(str(photo)) for photo in rows["photo"].unique()})
            rows = rows[held_out == (split == "validation")]
        self.rows = rows.reset_index(drop=True)
        self._shard, self._row = self.rows["shard"].to_numpy(), self.rows["row"].to_numpy()

    def _require_all(self) -> None:
        manifest = self.root / "manifest.json"
        listed = read_manifest(manifest).get("shards", []) if manifest.exists() else []
        if missing := {shard["name"] for shard in listed} - {folder.name for folder in self._folders}:
            raise DataError(f"'{self.root}' lacks {min(missing)}: 'pifr train render' goes on with the same arguments")

    def _memory_maps(self) -> list[dict[str, np.ndarray]]:
        return [{name: _memory_map(folder / f"{name}.npy") for name in self._names} for folder in self._folders]

    def __getstate__(self) -> dict[str, Any]:
        # A pickled memory map is all that it maps: a worker that is spawned opens its own.
        return {name: value for name, value in self.__dict__.items() if name != "_arrays"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._arrays = self._memory_maps()

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, name: str, index: int) -> np.ndarray:
        """One row of one array (memory-mapped: copy before writing)."""
        return self._arrays[self._shard[index]][name][self._row[index]]

    def fingerprint(self) -> str:
        """SHA-256 of the manifest, or of the Parquet rows where there is none: names the data in weights files."""
        manifest = self.root / "manifest.json"
        content = manifest.read_bytes() if manifest.exists() else self.rows.to_json().encode()
        return hashlib.sha256(content).hexdigest()


def _memory_map(path: Path) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r")
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error


@lru_cache(maxsize=2)
def _permutation(seed: int, epoch: int, count: int) -> np.ndarray:
    return np.random.default_rng((seed, epoch, count)).permutation(count)


def sample_order(seed: int, step: int, batch_size: int, count: int) -> list[int]:
    """Indices of the batch of one step: every epoch is a new permutation of 0 .. count-1, without gaps between."""
    positions = range(step * batch_size, (step + 1) * batch_size)
    return [int(_permutation(seed, position // count, count)[position % count]) for position in positions]


class TrainingBatches(Dataset[Batch]):
    """Batches by step number.

    Args:
        count: number of samples there are.
        make: makes one sample, a dict of numpy arrays, from (index, generator).
        batch_size: samples a batch.
        seed: seed of the order and of all augmentation.
    """

    def __init__(
        self,
        count: int,
        make: Callable[[int, np.random.Generator], dict[str, np.ndarray]],
        batch_size: int,
        seed: int,
    ) -> None:
        if count == 0:
            raise DataError("there are no samples to train on")
        self._count, self._make, self._batch_size, self._seed = count, make, batch_size, seed

    def __getitem__(self, step: int) -> Batch:
        indices = sample_order(self._seed, step, self._batch_size, self._count)
        rngs = (np.random.default_rng((self._seed, step, slot)) for slot in range(len(indices)))
        return _stack([self._make(index, rng) for index, rng in zip(indices, rngs, strict=True)])


class ValidationBatches(Dataset[Batch]):
    """A fixed, evenly spread choice of samples, always augmented alike: the same numbers mean the same in every run.

    Args:
        count: number of samples there are.
        make: as in `TrainingBatches`; the generator is seeded by the index.
        batch_size: samples a batch; the last batch may be smaller.
        limit: largest number of samples.
    """

    def __init__(
        self,
        count: int,
        make: Callable[[int, np.random.Generator], dict[str, np.ndarray]],
        batch_size: int,
        limit: int,
    ) -> None:
        chosen = np.unique(np.linspace(0, count - 1, min(count, limit)).round().astype(int)) if count else []
        self._batches = [chosen[start : start + batch_size] for start in range(0, len(chosen), batch_size)]
        self._make = make

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, number: int) -> Batch:
        indices = self._batches[number]
        return _stack([self._make(int(index), np.random.default_rng((7, int(index)))) for index in indices])


def _stack(samples: list[dict[str, np.ndarray]]) -> Batch:
    return {name: torch.from_numpy(np.stack([sample[name] for sample in samples])) for name in samples[0]}


class PairSamples:
    """Makes samples of C-Net and coarse S-Net from rendered pairs.

    A sample holds `image` N x N x 3 uint8, `pncc` N x N x 3 float16 in [0, 1], `mask` N x N uint8 (0 or 1), `yaw`
    float32 degrees (of the sample as it is seen, mirrored or not) and `position` 3 x n x n float32 mm; if asked for,
    `predicted_mask` N x N uint8 (255 on the face).

    Args:
        shards: pairs.
        framing: how the crop is laid around the mask.
        size: side N of the crop.
        augmented: False leaves light, lens and occluders away.
        occluded: share of samples with occluders.
        predicted_mask: add the mask with errors as the segmentation's have (without any if not `augmented`), for
            networks that are shown segmented faces.
    """

    def __init__(
        self,
        shards: Shards,
        framing: Framing,
        size: int,
        augmented: bool = True,
        occluded: float = 0.35,
        predicted_mask: bool = False,
    ) -> None:
        self._shards, self._framing, self._size = shards, framing, size
        self._augmented, self._occluded, self._predicted_mask = augmented, occluded, predicted_mask
        self._yaw = shards.rows["yaw"].to_numpy(np.float32)

    def __len__(self) -> int:
        return len(self._shards)

    def __call__(self, index: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        crop = random_crop(
            self._shards.read("image", index), self._shards.read("pncc", index), self._framing, self._size, rng
        )
        if self._augmented:
            if rng.random() < self._occluded:
                other = self._shards.read("image", int(rng.integers(len(self._shards))))
                crop = occlude(crop, _at_least(other, self._size), rng)
            crop = crop._replace(image=degrade(crop.image, self._size / np.mean(self._framing.scale), rng))
        sample = self._arrays(index, crop)
        if self._predicted_mask:
            sample["predicted_mask"] = imprecise_mask(crop.mask, rng) if self._augmented else 255 * sample["mask"]
        return sample

    def _arrays(self, index: int, crop: Crop) -> dict[str, np.ndarray]:
        position = self._shards.read("position", index).astype(np.float32)
        if crop.mirrored:
            position = mirror_position_map(position)
        return {
            "image": crop.image,
            "pncc": crop.pncc.astype(np.float16),
            "mask": crop.mask.astype(np.uint8),
            "yaw": self._yaw[index] * (-1 if crop.mirrored else 1),
            "position": position.transpose(2, 0, 1),
        }


def images_of(batch: Batch) -> Tensor:
    """B x 3 x N x N float32 in [0, 1], channels last in memory, from the batch's B x N x N x 3 uint8."""
    return batch["image"].permute(0, 3, 1, 2).float() / 255


def pncc_of(batch: Batch) -> Tensor:
    """B x 3 x N x N float32 in [0, 1], the true codes; 0 outside the mask."""
    return batch["pncc"].permute(0, 3, 1, 2).float()


def mask_of(batch: Batch) -> Tensor:
    """B x 1 x N x N float32, 0 or 1."""
    return batch["mask"][:, None].float()


def predicted_mask_of(batch: Batch) -> Tensor:
    """B x 1 x N x N float32 in [0, 1], what a network that sees segmented faces is shown of the mask."""
    return batch["predicted_mask"][:, None].float() / 255 if "predicted_mask" in batch else mask_of(batch)


def _at_least(image: np.ndarray, size: int) -> np.ndarray:
    side = min(image.shape[:2])
    return image if side >= size else cv2.resize(image, None, fx=size / side, fy=size / side)


class TextureSamples:
    """Makes samples of I-Net and fine S-Net from complete textures.

    A sample holds `texture` 3 x N x N float32 in [0, 1] (T_gt), `shown` the same with stains (as C-Net's errors leave
    them), `visibility` 1 x N x N float32 (what the network gets to see of it), `trust` 1 x N x N float32 (where the
    photo itself showed the texture) and `position` 3 x N x N float32 mm.

    Args:
        shards: textures.
        visibilities: K x n x n uint8 visibility maps of turned faces, of which each sample draws one.
        size: side N of the textures.
        augmented: False leaves mirroring of the texture, light, occluders and the photo's edge away; visibility maps
            are mirrored, and stains drawn, in any case.
    """

    def __init__(self, shards: Shards, visibilities: np.ndarray, size: int, augmented: bool = True) -> None:
        self._shards, self._visibilities, self._size, self._augmented = shards, visibilities, size, augmented

    def __len__(self) -> int:
        return len(self._shards)

    def __call__(self, index: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        texture, trust = self._shards.read("texture", index), self._shards.read("visibility", index)
        position = self._shards.read("shape", index).astype(np.float32)
        seen = self._visibilities[int(rng.integers(len(self._visibilities)))]
        if rng.random() < 0.5:
            seen = seen[:, ::-1]
        if self._augmented:
            if rng.random() < 0.5:
                texture, trust, position = texture[:, ::-1], trust[:, ::-1], mirror_position_map(position)
            texture = _tint(texture, rng)
        texture, trust, seen, position = (self._resize(array) for array in (texture, trust, seen, position))
        if self._augmented:
            if rng.random() < 0.4:
                seen = _hole(seen, rng)
            if rng.random() < 0.3:
                seen = _cut_off(seen, rng)
        return {
            "texture": texture.transpose(2, 0, 1).astype(np.float32) / 255,
            "shown": _stained(texture, seen, rng).transpose(2, 0, 1).astype(np.float32) / 255,
            "visibility": seen[None].astype(np.float32) / 255,
            "trust": trust[None].astype(np.float32) / 255,
            "position": position.transpose(2, 0, 1).astype(np.float32),
        }

    def _resize(self, array: np.ndarray) -> np.ndarray:
        if array.shape[0] == self._size:
            return array
        # Averaging keeps a coarser map exactly symmetric; bilinear sampling does so for a finer one.
        mode = cv2.INTER_AREA if array.shape[0] > self._size else cv2.INTER_LINEAR
        return cv2.resize(np.ascontiguousarray(array), (self._size, self._size), interpolation=mode)


def _tint(texture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    gain = rng.uniform(0.6, 1.3) * rng.uniform(0.9, 1.1, 3)
    light = np.ones(texture.shape[1], np.float32)
    if rng.random() < 0.4:
        light = 1 + np.float32(rng.uniform(-0.5, 0.5)) * np.linspace(-1, 1, len(light), dtype=np.float32)
    texture = np.clip(texture * gain.astype(np.float32) * light[None, :, None], 0, 255).astype(np.uint8)
    # A photo without colours asks for a completion without colours.
    return without_colours(texture) if rng.random() < 0.15 else texture


def _hole(seen: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """An occluder on the face leaves a hole in the texture."""
    seen, size = seen.copy(), len(seen)
    centre = tuple(int(value) for value in rng.uniform(0, size, 2))
    axes = tuple(max(1, int(value)) for value in rng.uniform(0.04, 0.2, 2) * size)
    cv2.ellipse(seen, centre, axes, rng.uniform(0, 180), 0, 360, 0, -1)
    return seen


def _cut_off(seen: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A photo that ends above the brows leaves the forehead unseen, along a line that is nearly level."""
    size = len(seen)
    edge = size * (rng.uniform(0.0, 0.35) + rng.uniform(-0.1, 0.1) * np.linspace(-1, 1, size))
    return seen * (np.arange(size)[:, None] >= edge)


def _stained(texture: np.ndarray, seen: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The background along the edges of what was seen, where C-Net erred by more pixels than were left out."""
    size = len(texture)
    if rng.random() < 0.3 or (seen >= 128).all():
        return texture
    depth = cv2.distanceTransform((seen >= 128).astype(np.uint8), cv2.DIST_L2, 3)
    reach = np.clip(_drift(rng.normal(0.01, 0.03, (rng.integers(2, 12), 1)), size), 0, 0.08) * size
    colours = _drift(rng.uniform(0, 255, (rng.integers(1, 6), 3)), size)
    share = np.clip((reach - depth) / rng.uniform(0.5, 3.0), 0, 1)[..., None].astype(np.float32)
    return texture + share * (np.clip(colours, 0, 255)[:, None] - texture)


def _drift(values: np.ndarray, size: int) -> np.ndarray:
    """Values (n x c) that are given at even distances, smoothly in between: size x c float32."""
    columns = [
        cv2.resize(column.astype(np.float32)[:, None], (1, size), interpolation=cv2.INTER_CUBIC) for column in values.T
    ]
    return np.concatenate(columns, 1)


@torch.no_grad()
def visibility_bank(shards: Shards, size: int, count: int, seed: int) -> np.ndarray:
    """Visibility maps of rendered faces, by the unwrapping that inference uses on their true PNCC.

    Args:
        shards: pairs.
        size: side N of the maps.
        count: number of maps; fewer if there are fewer pairs.
        seed: seed of the choice.

    Returns:
        count x N x N uint8, 255 where the surface was seen well, and surely (`pifr.completion.certain`).
    """
    from pifr.geometry.correspondence import Correspondence

    correspondence = Correspondence()
    chosen = np.sort(np.random.default_rng(seed).choice(len(shards), min(count, len(shards)), replace=False))
    maps = []
    for start in range(0, len(chosen), 16):
        codes = np.stack([shards.read("pncc", int(index)) for index in chosen[start : start + 16]])
        pncc = torch.from_numpy(codes).permute(0, 3, 1, 2).float()
        mask = (pncc[:, :1] > 0).float()
        pncc = (pncc - 1).clamp_min(0) / 254
        seen = certain(correspondence.unwrap(pncc, pncc, mask, size).visibility)
        maps.append((seen[:, 0] * 255).byte().numpy())
    return np.concatenate(maps)


def training_loader(batches: TrainingBatches, start: int, workers: int) -> DataLoader[Batch]:
    """Endless batches from a step on. Workers run on one thread each, and yield to the training threads."""
    return DataLoader(
        batches,
        batch_size=None,
        sampler=_StepsFrom(start),
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=_prepare_worker,
    )


def validation_loader(batches: ValidationBatches) -> DataLoader[Batch]:
    """All validation batches in order, made in the calling process: they are few."""
    return DataLoader(batches, batch_size=None, sampler=range(len(batches)), num_workers=0)


class _StepsFrom:
    """Step numbers start, start + 1, ... without end."""

    def __init__(self, start: int) -> None:
        self._start = start

    def __iter__(self) -> Iterator[int]:
        step = self._start
        while True:
            yield step
            step += 1


def _prepare_worker(_: int) -> None:
    # Batches are made beside the training threads, not in their place.
    os.nice(5)
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
