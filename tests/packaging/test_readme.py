"""The README's Python does what it says."""

import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from protocols.synthetic.people import expression, sample_person
from protocols.synthetic.photography import photograph
from protocols.synthetic.scene import Scene, View

README = (Path(__file__).parents[2] / "README.md").read_text()


def _photo(index: int) -> np.ndarray:
    rng = np.random.default_rng(index)
    scene = Scene(sample_person(3, index), expression("neutral", 0.5, rng))
    return photograph(scene, View(50.0, 0.0, 0.0, 1.0, (160.0, 160.0), 320, 320), rng)


def test_its_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    monkeypatch.chdir(tmp_path)
    use, own, pictures = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    network = torch.nn.Sequential(torch.nn.AvgPool2d(8), torch.nn.Flatten(), torch.nn.Linear(3 * 14 * 14, 512)).eval()
    torch.onnx.export(
        network, (torch.rand(2, 3, 112, 112),), "mine.onnx", dynamo=False, dynamic_axes={"input": {0: "b"}},
        input_names=["input"],
    )  # fmt: skip
    cv2.imwrite("group.jpg", np.hstack([_photo(0), _photo(1)])[..., ::-1])
    cv2.imwrite("photo.jpg", _photo(2)[..., ::-1])
    names = {"network": network, "photo_a": _photo(0), "photo_b": _photo(1), "frames": [_photo(3)]}
    exec(own, names)
    exec(use, names)
    assert names["features"].shape == (2, 512)
    assert names["features"].isfinite().all()
    assert len(names["everyone"]) == 2
    exec(pictures, names)
    assert names["result"].frontal.shape == (1, 3, 224, 224)
    assert Path("face.glb").is_file()
    assert [result.status for result in names["results"]] == [("ok",)]
