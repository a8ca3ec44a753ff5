"""Tiny shards: an ellipse whose codes are known, in the layout of docs/architecture.md; and tiny networks."""

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import yaml

CANVAS, SQUARE = 192, 192 / 1.9
CONFIGS = Path(__file__).parents[2] / "pifr" / "training" / "configs"
NAMES = ("segmentation", "pncc", "inpainting", "shape-coarse", "shape-fine")
UNET = {"kind": "residual", "widths": [8, 8, 8], "encoder_blocks": [0, 1], "decoder_blocks": [1, 1]}


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of shards that no test changes."""
    return write_shards(tmp_path_factory.mktemp("shards"))


def write_shards(root: Path, photos: int = 64, views: int = 2, seed: int = 0) -> Path:
    """One shard of `photos` x `views` pairs below `root`; photo names are p0, p1, ..."""
    rng = np.random.default_rng(seed)
    folder = root / "shard-0000"
    folder.mkdir(parents=True)
    count = photos * views
    yaw = rng.uniform(-90, 90, count)
    pairs = [_pair(angle, rng) for angle in yaw]
    np.save(folder / "image.npy", np.stack([image for image, _ in pairs]))
    np.save(folder / "pncc.npy", np.stack([pncc for _, pncc in pairs]))
    np.save(folder / "position.npy", rng.normal(0, 20, (count, 64, 64, 3)).astype(np.float16))
    names = [f"p{index // views}" for index in range(count)]
    pd.DataFrame({"photo": names, "kind": "render", "yaw": yaw}).to_parquet(folder / "pairs.parquet")
    np.save(folder / "texture.npy", rng.integers(0, 256, (photos, 128, 128, 3)).astype(np.uint8))
    np.save(folder / "visibility.npy", rng.integers(0, 256, (photos, 128, 128)).astype(np.uint8))
    np.save(folder / "shape.npy", _bowl(photos, rng))
    pd.DataFrame({"photo": [f"p{index}" for index in range(photos)]}).to_parquet(folder / "photos.parquet")
    return root


def _pair(yaw: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    y, x = np.mgrid[:CANVAS, :CANVAS] - (CANVAS - 1) / 2
    width, height = SQUARE / 2 * (0.6 + 0.4 * np.cos(np.radians(yaw))), SQUARE / 2
    inside = (x / width) ** 2 + (y / height) ** 2 < 1
    codes = np.stack([x / (2 * width) + 0.5, 0.5 - y / (2 * height), 0.5 + 0.3 * np.cos(x / width)], -1).clip(0, 1)
    background = cv2.resize(rng.integers(0, 256, (6, 6, 3)).astype(np.uint8), (CANVAS, CANVAS))
    image = np.where(inside[..., None], 60 + 150 * codes, background)
    return image.astype(np.uint8), np.where(inside[..., None], np.rint(1 + 254 * codes), 0).astype(np.uint8)


def _bowl(count: int, rng: np.random.Generator) -> np.ndarray:
    v, u = (np.mgrid[:64, :64] + 0.5) / 32 - 1
    surface = np.stack([80 * u, -100 * v, 60 - 50 * u**2 - 30 * v**2], -1)
    return (surface * rng.uniform(0.9, 1.1, (count, 1, 1, 1))).astype(np.float16)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """The lite configuration, shrunk until a step takes milliseconds."""
    content = yaml.safe_load((CONFIGS / "lite.yaml").read_text())
    content["segmentation"]["network"] |= {"input_size": 32, "unet": UNET}
    content["pncc"]["network"] |= {"input_size": 32, "unet": UNET}
    content["pncc"]["echoes"] = 2  # an odd number of steps stops between a batch and its echo
    content["inpainting"]["network"] |= {"resolution": 32, "widths": [8, 8], "dilations": [1, 2]}
    content["inpainting"] |= {"discriminator": {"widths": [8, 8]}, "visibilities": 4, "perceptual": None}
    content["shape-coarse"]["network"] |= {"encoder_widths": [8] * 7, "decoder_widths": [8] * 9}
    content["shape-fine"]["network"] |= {"resolution": 32, "working_size": 32, "unet": UNET}
    for name in NAMES:
        content[name]["optimisation"] |= {
            "batch_size": 4, "validation_every": 10, "validation_limit": 4, "workers": 0, "warm_up_steps": 2
        }  # fmt: skip
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(content))
    return path
