"""Checkpoints load strictly and safely; what does not fit is named."""

import pickle
from pathlib import Path

import pytest
import torch
from torch import nn

from feature_extractors import load_recognizer
from feature_extractors.checkpoints import load_strictly, read_checkpoint
from feature_extractors.lightcnn import LightCNN29v2
from pifr.errors import CheckpointError


def network() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Linear(2, 2))


@pytest.mark.parametrize("wrap", [lambda state: state, lambda state: {"epoch": 3, "state_dict": state}])
def test_parameters_are_found_in_every_usual_form(wrap: object, tmp_path: Path) -> None:
    saved = network().state_dict()
    torch.save(wrap({f"module.{name}": value for name, value in saved.items()}), tmp_path / "a.pth")
    read = read_checkpoint(tmp_path / "a.pth")
    assert list(read) == list(saved)
    assert all(torch.equal(read[name], value) for name, value in saved.items())


def test_safetensors_are_read(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    saved = network().state_dict()
    save_file(saved, tmp_path / "a.safetensors")
    read = read_checkpoint(tmp_path / "a.safetensors")
    assert read.keys() == saved.keys()
    assert all(torch.equal(read[name], value) for name, value in saved.items())


def test_loading_sets_every_parameter() -> None:
    source, target = network(), network()
    load_strictly(target, source.state_dict(), "a")
    for name, value in source.state_dict().items():
        torch.testing.assert_close(target.state_dict()[name], value)


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda state: state.pop("2.bias"), "'2.bias' is missing"),
        (lambda state: state.update(extra=torch.zeros(1)), "'extra' is not a part of the network"),
        (
            lambda state: state.update({"0.weight": torch.zeros(2, 3, 3, 3)}),
            r"'0.weight' has the shape \(2, 3, 3, 3\) where",
        ),
    ],
)
def test_the_first_mismatch_is_named(change: object, words: str) -> None:
    state = dict(network().state_dict())
    change(state)
    with pytest.raises(CheckpointError, match=words) as caught:
        load_strictly(network(), state, "mine.pth")
    assert "mine.pth" in str(caught.value)


def test_all_mismatches_are_counted() -> None:
    with pytest.raises(CheckpointError, match=r"'0.weight' is missing \(and 8 more differences\)"):
        load_strictly(network(), {"a": torch.zeros(1)}, "mine.pth")


def test_a_classifier_is_left_out_only_where_that_is_declared() -> None:
    state = {**network().state_dict(), "fc2.weight": torch.zeros(9, 2)}
    load_strictly(network(), state, "a", ignored=("fc2.",))
    with pytest.raises(CheckpointError, match=r"fc2\.weight"):
        load_strictly(network(), state, "a")


def test_counters_that_old_checkpoints_lack_do_not_matter() -> None:
    state = {name: value for name, value in network().state_dict().items() if "num_batches" not in name}
    load_strictly(network(), state, "a")


class Payload:
    ran = False

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return (setattr, (Payload, "ran", True))


def test_a_checkpoint_cannot_run_code(tmp_path: Path) -> None:
    with (tmp_path / "evil.pth").open("wb") as file:
        pickle.dump({"state_dict": Payload()}, file)
    with pytest.raises(CheckpointError, match=r"evil\.pth"):
        read_checkpoint(tmp_path / "evil.pth")
    assert not Payload.ran


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 broken"])
def test_a_damaged_checkpoint_is_named(content: bytes, tmp_path: Path) -> None:
    for name in ("a.pth", "a.safetensors"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CheckpointError, match=name):
            read_checkpoint(tmp_path / name)


def test_a_checkpoint_without_parameters_is_refused(tmp_path: Path) -> None:
    torch.save({"epoch": 1}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match="holds no parameters"):
        read_checkpoint(tmp_path / "a.pth")


def test_the_published_form_of_lightcnn_29_is_a_recognizer(tmp_path: Path) -> None:
    torch.manual_seed(0)
    state = {f"module.{name}": value for name, value in LightCNN29v2().state_dict().items()}
    state["module.fc2.weight"] = torch.zeros(5, 256)
    path = tmp_path / "LightCNN_29Layers_V2_checkpoint.pth.tar"
    torch.save({"epoch": 1, "arch": "LightCNN", "state_dict": state, "prec1": 0.5}, path)
    recognizer = load_recognizer(f"lightcnn-29v2:{path}")
    assert recognizer.embed(torch.rand(2, 3, 128, 128)).shape == (2, 256)


def test_the_checkpoint_of_another_network_says_where_it_differs(tmp_path: Path) -> None:
    torch.save(LightCNN29v2().state_dict(), tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=r"a\.pth' does not fit IR50: 'conv1\.weight' is missing"):
        load_recognizer(f"resnet50:{tmp_path / 'a.pth'}")
