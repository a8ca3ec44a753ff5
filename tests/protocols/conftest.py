"""A CFP of eight people, and systems small enough to run in a moment."""

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from feature_extractors.base import ModuleRecognizer, RecognizerConfig
from pifr.faces import ARCFACE_112
from pifr.views import Mirror, PlainCrop
from protocols.extraction import System

SIDE = 96
FIVE = [(38.0, 40.0), (60.0, 40.0), (48.0, 52.0), (40.0, 64.0), (58.0, 64.0)]


@pytest.fixture
def cfp_root(tmp_path: Path) -> Path:
    """Official layout, marked as generated: 4 folds of 2 people, 3 frontal and 2 profile pictures each."""
    root = tmp_path / "cfp"
    rng = np.random.default_rng(0)
    lists: dict[str, list[str]] = {"F": [], "P": []}
    lines = ["path,x1,y1,x2,y2,x3,y3,x4,y4,x5,y5"]
    for subject in range(1, 9):
        pattern = rng.integers(0, 256, (6, 6, 3), np.uint8)  # a person's looks
        for kind, folder, count in (("F", "frontal", 3), ("P", "profile", 2)):
            for number in range(1, count + 1):
                picture = cv2.resize(pattern, (SIDE, SIDE), interpolation=cv2.INTER_NEAREST).astype(int)
                picture = np.clip(picture + rng.integers(-60, 61, picture.shape), 0, 255).astype(np.uint8)
                name = f"{subject:03d}/{folder}/{number:02d}.png"
                file = root / "Data" / "Images" / name
                file.parent.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(file), picture)
                lists[kind].append(name)
                lines.append(f"Data/Images/{name}," + ",".join(f"{value:g}" for point in FIVE for value in point))
    (root / "landmarks.csv").write_text("\n".join(lines), encoding="utf-8")
    protocol = root / "Protocol"
    for kind, names in lists.items():
        text = "".join(f"{i} ../Data/Images/{name}\n" for i, name in enumerate(names, 1))
        write(protocol / f"Pair_list_{kind}.txt", text)
    per_subject = {"F": 3, "P": 2}
    for setting, (first, second) in {"FF": ("F", "F"), "FP": ("F", "P")}.items():
        for fold in range(1, 5):
            people = (2 * fold - 2, 2 * fold - 1)
            index = {
                kind: [[person * per_subject[kind] + i + 1 for i in range(per_subject[kind])] for person in people]
                for kind in "FP"
            }
            same = [(a[0], b[-1]) for a, b in zip(index[first], index[second], strict=True)]
            same += [(a[1], b[-1]) for a, b in zip(index[first], index[second], strict=True)]
            diff = [(index[first][0][i], index[second][1][j]) for i in (0, 1) for j in (0, 1)]
            for name, pairs in (("same", same), ("diff", diff)):
                text = "\n".join(f"{a},{b}" for a, b in pairs)  # no newline at the end
                write(protocol / "Split" / setting / f"{fold:02d}" / f"{name}.txt", text)
    (root / "dataset.json").write_text(json.dumps({"name": "tiny", "synthetic": True}), encoding="utf-8")
    return root


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")


class Counting(ModuleRecognizer):
    """A recognizer that counts the faces it is shown."""

    seen = 0

    def embed(self, batch: torch.Tensor, yaw: torch.Tensor | None = None) -> torch.Tensor:
        self.seen += len(batch)
        return super().embed(batch, yaw)


def small_recognizer(name: str = "small", channels: str = "RGB", size: int = 32) -> Counting:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 5, stride=4), nn.ReLU(), nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Linear(72, 16)
    )
    config = RecognizerConfig(
        name=name,
        input_size=size,
        alignment=ARCFACE_112,
        embedding_size=16,
        licence="none",
        origin="made here",
        channels=channels,
    )
    return Counting(network, config, f"{name}-{channels}")


@pytest.fixture
def make_systems() -> Callable[..., list[System]]:
    def make(*names: str, recognizer: Counting | None = None) -> list[System]:
        recognizer = recognizer or small_recognizer()
        makers = {"none": PlainCrop(), "mirror": Mirror()}
        return [System("small", recognizer, name, makers[name]) for name in names or ("none", "mirror")]

    return make
