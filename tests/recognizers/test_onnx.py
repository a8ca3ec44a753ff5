"""ONNX files of others are repaired, checked and configured."""

import pickle
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from feature_extractors import load_recognizer
from feature_extractors.onnx import SFACE, OnnxRecognizer
from pifr.errors import CheckpointError, ConfigError
from pifr.geometry.alignment import FACENET_160

WEIGHT = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)


def write_network(
    path: Path,
    *,
    size: int = 16,
    width: int = 0,
    length: int = 4,
    listed_weights: bool = False,
    rank: int = 2,
    dtype: int = TensorProto.FLOAT,
    channels_last: bool = False,
    baked: int = 0,
    normalises: tuple[float, float] | None = None,
) -> Path:
    """Mean colour times a matrix, batch size one; as SFace's file, it may list its weights as inputs.

    `baked`: the batch size that a Reshape on the way asks for, as some exporters write it.
    `normalises`: what is subtracted from the image, and what it is multiplied by then.
    """
    nodes = [
        helper.make_node("Cast", ["data"], ["cast"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["cast", "middle"], ["moved"]),
        helper.make_node("Mul", ["moved", "unit"], ["norm"]),
        helper.make_node("ReduceMean", ["norm", "axes"], ["average"], keepdims=0),
        helper.make_node("Reshape", ["average", "shape"], ["mean"]),
        helper.make_node("Gemm", ["mean", "weight"], ["out"], transB=1),
    ]
    if normalises is None:
        nodes[1:4] = [helper.make_node("ReduceMean", ["cast", "axes"], ["average"], keepdims=0)]
    sides = [size, width or size] if size else ["h", "w"]
    image = helper.make_tensor_value_info("data", dtype, [1, *sides, 3] if channels_last else [1, 3, *sides])
    length = length or "d"
    output = helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, length] if rank == 2 else [1, length, 1])
    extra = [helper.make_tensor_value_info("weight", TensorProto.FLOAT, [4, 3])]
    extra += [helper.make_tensor_value_info("unread", TensorProto.FLOAT, [7, 7])]
    axes = np.array([1, 2] if channels_last else [2, 3])
    weights = [numpy_helper.from_array(WEIGHT, "weight"), numpy_helper.from_array(axes, "axes")]
    weights += [numpy_helper.from_array(np.array([baked or -1, 3]), "shape")]
    for value, name in zip(normalises or (), ("middle", "unit"), strict=False):
        weights.append(numpy_helper.from_array(np.float32(value), name))
    graph = helper.make_graph(nodes, "g", [image, *(extra if listed_weights else [])], [output], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), path)
    return path


@pytest.mark.parametrize(("normalises", "largest"), [((127.5, 1 / 127.5), 255.0), ((0.5, 2.0), 1.0)])
def test_a_graph_that_normalises_is_shown_what_it_takes(
    normalises: tuple[float, float], largest: float, tmp_path: Path
) -> None:
    plain, other = write_network(tmp_path / "a.onnx"), write_network(tmp_path / "b.onnx", normalises=normalises)
    batch = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    recognizer = load_recognizer(f"onnx:{other}")
    assert recognizer.config.value_range == (0.0, largest)
    torch.testing.assert_close(recognizer.embed(batch), load_recognizer(f"onnx:{plain}").embed(batch))


def test_a_file_beside_it_names_a_template(tmp_path: Path) -> None:
    other = write_network(tmp_path / "b.onnx")
    other.with_suffix(".yaml").write_text("alignment: facenet-160\n")
    assert load_recognizer(f"onnx:{other}").config.alignment == FACENET_160
    other.with_suffix(".yaml").write_text("alignment: facenet\n")
    with pytest.raises(ConfigError, match="no alignment 'facenet', but arcface-112"):
        load_recognizer(f"onnx:{other}")


def test_weights_in_a_file_of_their_own_are_part_of_what_tells_networks_apart(tmp_path: Path) -> None:
    path = write_network(tmp_path / "a.onnx")
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="a.data", size_threshold=0)
    before = load_recognizer(f"onnx:{path}").fingerprint
    assert load_recognizer(f"onnx:{path}").fingerprint == before
    data = bytearray((tmp_path / "a.data").read_bytes())
    data[3] ^= 0x40  # of the first weight
    (tmp_path / "a.data").write_bytes(data)
    assert load_recognizer(f"onnx:{path}").fingerprint != before


def test_a_session_runs_on_the_device_that_was_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recognizer = load_recognizer(f"onnx:{write_network(tmp_path / 'a.onnx')}")
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CUDAExecutionProvider"])
    asked = []
    monkeypatch.setattr("onnxruntime.InferenceSession", lambda *arguments, providers: asked.append(providers))
    for device, number in (("cuda:1", 1), ("cuda", 0)):
        OnnxRecognizer(b"", recognizer.config, "", device)._session  # noqa: B018 - makes it
        assert asked.pop() == [("CUDAExecutionProvider", {"device_id": number})]


@pytest.mark.parametrize(
    "form",
    [
        {},
        {"listed_weights": True},
        {"channels_last": True},
        {"channels_last": True, "baked": 1},
        {"dtype": TensorProto.FLOAT16},
        {"baked": 1},
    ],
)
def test_a_file_of_fixed_batch_size_embeds_batches_of_any_size(
    form: dict[str, object], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    recognizer = load_recognizer(f"onnx:{write_network(tmp_path / 'a.onnx', **form)}")
    assert (recognizer.config.input_size, recognizer.config.embedding_size) == (16, 4)
    for count in (0, 1, 5):
        batch = torch.rand(count, 3, 16, 16)
        wanted = ((batch - 0.5) / 0.5).mean((2, 3)) @ torch.from_numpy(WEIGHT).T
        inexact = 1e-3 if "dtype" in form else 1e-5
        torch.testing.assert_close(recognizer.embed(batch), wanted.view(count, 4), rtol=1e-4, atol=inexact)
    assert capfd.readouterr().err == ""  # onnxruntime says nothing of a batch that was but tried


def test_a_network_with_channels_last_is_given_rows_before_columns(tmp_path: Path) -> None:
    weight = np.random.default_rng(1).normal(size=(2, 16 * 16 * 3)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["data"], ["flat"]),
            helper.make_node("Gemm", ["flat", "weight"], ["out"], transB=1),
        ],
        "g",
        [helper.make_tensor_value_info("data", TensorProto.FLOAT, ["n", 16, 16, 3])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["n", 2])],
        [numpy_helper.from_array(weight, "weight")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.save(model, tmp_path / "a.onnx")
    batch = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    pixels = np.array([[face[:, y, x].tolist() for y in range(16) for x in range(16)] for face in batch], np.float32)
    wanted = torch.from_numpy((2 * pixels - 1).reshape(3, -1) @ weight.T)
    found = load_recognizer(f"onnx:{tmp_path / 'a.onnx'}").embed(batch)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-3)


def test_a_file_beside_it_says_how_it_wants_its_input(tmp_path: Path) -> None:
    path = write_network(tmp_path / "a.onnx")
    plain = load_recognizer(f"onnx:{path}")
    path.with_suffix(".yaml").write_text("channels: BGR\nvalue_range: [0, 255]\nmean: [0]\nstd: [1]\n")
    recognizer = load_recognizer(f"onnx:{path}")
    batch = torch.rand(2, 3, 16, 16)
    wanted = batch.flip(1).mean((2, 3)) * 255 @ torch.from_numpy(WEIGHT).T
    torch.testing.assert_close(recognizer.embed(batch), wanted, rtol=1e-4, atol=1e-3)
    assert recognizer.fingerprint != plain.fingerprint


@pytest.mark.parametrize(
    "text, words",
    [
        ("chanels: BGR", "unknown key 'chanels'"),
        ("- 1", "not a table"),
        ("channels: XYZ", "channels"),
        ("a: [", "YAML"),
        ("licence: caf\xe9", "YAML"),
        ("std: [.nan]", "std"),
        ("alignment: arcface", "no alignment 'arcface', but arcface-112"),
        ("alignment: {name: mine}", "name, size and points"),
        ("alignment: {name: x, size: 112, points: [[1, 2], [3, 4], [5, 6], [7, 8], [9, a]]}", "pairs of numbers"),
    ],
)
def test_a_wrong_key_beside_a_file_is_named(text: str, words: str, tmp_path: Path) -> None:
    path = write_network(tmp_path / "a.onnx")
    path.with_suffix(".yaml").write_text(text, encoding="latin-1")
    with pytest.raises(ConfigError, match=words):
        load_recognizer(f"onnx:{path}")


@pytest.mark.parametrize("suffix", [".yaml", ".yml"])
def test_a_network_of_any_size_is_told_its_size(tmp_path: Path, suffix: str) -> None:
    path = write_network(tmp_path / "a.onnx", size=0, length=0)
    with pytest.raises(ConfigError, match="input_size: 112"):
        load_recognizer(f"onnx:{path}")
    path.with_suffix(suffix).write_text("input_size: 24\nmean: 0.5\n")
    recognizer = load_recognizer(f"onnx:{path}")
    assert (recognizer.config.input_size, recognizer.config.embedding_size) == (24, 4)
    fixed = write_network(tmp_path / "b.onnx")
    fixed.with_suffix(suffix).write_text("input_size: 24")
    with pytest.raises(ConfigError, match="takes 16 alone"):
        load_recognizer(f"onnx:{fixed}")


def test_what_is_no_recognizer_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("hello")
    with pytest.raises(CheckpointError, match=r"text\.onnx' is not"):
        load_recognizer(f"onnx:{tmp_path / 'text.onnx'}")
    with pytest.raises(CheckpointError, match="one output B x D"):
        load_recognizer(f"onnx:{write_network(tmp_path / 'b.onnx', rank=3)}")
    with pytest.raises(CheckpointError, match="B x C x S x S"):
        load_recognizer(f"onnx:{write_network(tmp_path / 'c.onnx', width=12)}")
    with pytest.raises(CheckpointError, match=r"has uint8 1 x 3 x 16 x 16 -> float 1 x 4: wrap it by python:FILE\.py:"):
        load_recognizer(f"onnx:{write_network(tmp_path / 'd.onnx', dtype=TensorProto.UINT8)}")
    with pytest.raises(CheckpointError, match=r"e\.onnx' can run neither two RGB faces at once nor one"):
        load_recognizer(f"onnx:{write_network(tmp_path / 'e.onnx', baked=7)}")
    with pytest.raises(CheckpointError, match="does not exist"):
        load_recognizer(f"onnx:{tmp_path / 'none.onnx'}")


def test_a_file_beside_it_says_where_it_wants_the_landmarks(tmp_path: Path) -> None:
    path = write_network(tmp_path / "a.onnx")
    path.with_suffix(".yaml").write_text(
        "alignment: {name: mine, size: 16, points: [[5, 6], [10, 6], [8, 9], [6, 12], [10, 12]]}\n"
    )
    assert load_recognizer(f"onnx:{path}").config.alignment.points[2] == (8, 9)
    path.with_suffix(".yaml").write_text("alignment: {name: mine, size: 16}\n")
    with pytest.raises(ConfigError, match="points"):
        load_recognizer(f"onnx:{path}")


def test_an_insightface_file_stands_for_resnet50_only_if_its_sizes_are_right(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"\(3, 16, 4\), not \(3, 112, 512\)"):
        load_recognizer(f"resnet50:{write_network(tmp_path / 'r50.onnx')}")


def test_a_recognizer_can_be_sent_to_another_process(tmp_path: Path) -> None:
    recognizer = load_recognizer(f"onnx:{write_network(tmp_path / 'a.onnx')}")
    batch = torch.rand(2, 3, 16, 16)
    before = recognizer.embed(batch)
    again: OnnxRecognizer = pickle.loads(pickle.dumps(recognizer))
    torch.testing.assert_close(again.embed(batch), before)


def test_sface_sees_0_to_255() -> None:
    assert SFACE.normalise(torch.ones(1, 3, 112, 112)).unique().tolist() == [255.0]
