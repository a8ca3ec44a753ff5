"""The contract: input is normalised by the configuration alone, names that are wrong say what to type."""

from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from feature_extractors import ModuleRecognizer, RecognizerConfig, list_recognizers, load_recognizer, register, registry
from pifr.errors import CheckpointError, ConfigError, UnknownNameError, WeightsError
from pifr.faces import ARCFACE_112


def config(**changes: object) -> RecognizerConfig:
    settings = {"name": "small", "input_size": 8, "alignment": ARCFACE_112, "embedding_size": 3}
    return RecognizerConfig(**{**settings, "licence": "MIT", "origin": "here", **changes})


class MeanColour(nn.Module):
    """B x C x H x W -> the mean of each channel."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


COLOUR = torch.tensor([0.2, 0.4, 0.8]).view(1, 3, 1, 1).expand(2, 3, 8, 8).contiguous()


@pytest.mark.parametrize(
    "changes, wanted",
    [
        ({}, [0.2, 0.4, 0.8]),
        ({"channels": "BGR"}, [0.8, 0.4, 0.2]),
        ({"value_range": (0.0, 255.0)}, [51.0, 102.0, 204.0]),
        ({"mean": (0.5,), "std": (0.5,)}, [-0.6, -0.2, 0.6]),
        ({"value_range": (0.0, 255.0), "mean": (127.5,), "std": (128.0,)}, [-76.5 / 128, -25.5 / 128, 76.5 / 128]),
        ({"channels": "BGR", "mean": (0.8, 0.4, 0.1), "std": (1.0, 1.0, 2.0)}, [0.0, 0.0, 0.05]),
        ({"channels": "grey", "embedding_size": 1}, [0.299 * 0.2 + 0.587 * 0.4 + 0.114 * 0.8]),
    ],
)
def test_a_network_sees_what_its_configuration_says(changes: dict[str, object], wanted: list[float]) -> None:
    recognizer = ModuleRecognizer(MeanColour(), config(**changes))
    torch.testing.assert_close(recognizer.embed(COLOUR), torch.tensor([wanted, wanted]))


@pytest.mark.parametrize(
    "batch", [torch.zeros(2, 3, 9, 9), torch.zeros(3, 8, 8), torch.zeros(2, 3, 8, 8, dtype=torch.uint8)]
)
def test_a_batch_of_another_form_is_refused_with_both_forms(batch: Tensor) -> None:
    with pytest.raises(ValueError, match="'small' takes float32 B x 3 x 8 x 8"):
        ModuleRecognizer(MeanColour(), config()).embed(batch)


@pytest.mark.parametrize(
    "changes",
    [
        {"channels": "rgb"},
        {"mean": (0.1, 0.2)},
        {"mean": "0.5"},
        {"mean": [None]},
        {"std": (0.0,)},
        {"value_range": (1.0, 1.0)},
        {"value_range": (0.0, 255.0), "mean": (0.485,), "std": (0.225,)},
        {"mean": (0.5,), "std": (127.5,)},
        {"value_range": (255,)},
        {"channels": "grey", "std": (1.0,) * 3},
        {"input_size": (112, 112)},
        {"embedding_size": -1},
        {"input_size": True},
        {"alignment": "arcface"},
    ],
)
def test_a_configuration_that_makes_no_sense_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="'small'"):
        config(**changes)


@pytest.mark.parametrize("mean", [127.5, (123.7, 116.3, 103.5), -127.5])
def test_a_mean_of_another_range_is_refused_for_the_network_would_see_nothing(mean: object) -> None:
    with pytest.raises(ValueError, match=r"'small': mean -?12[\d.]+ lies outside value_range \(0, 1\)") as raised:
        config(mean=mean, std=128)
    assert ("give value_range=(0, 255)" in str(raised.value)) is (mean != -127.5)
    assert config(mean=mean, std=128, value_range=(-255, 255)).std == (128,)


def test_lists_and_single_numbers_are_kept_as_tuples() -> None:
    made = config(mean=0.5, std=[0.5, 0.5, 0.25], value_range=[0, 1])
    assert (made.mean, made.std, made.value_range) == ((0.5,), (0.5, 0.5, 0.25), (0, 1))


def test_whole_numbers_of_numpy_are_sizes() -> None:
    assert config(embedding_size=np.int64(3)).embedding_size == 3


def test_any_module_is_a_recognizer_whose_fingerprint_is_its_weights() -> None:
    torch.manual_seed(0)
    first, second = (nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(192, 3)) for _ in range(2))
    prints = {ModuleRecognizer(network, config()).fingerprint for network in (first, second)}
    assert len(prints) == 2
    again = ModuleRecognizer(first, config())
    assert again.fingerprint in prints
    torch.testing.assert_close(again.embed(COLOUR), again.embed(COLOUR))  # evaluation mode: no dropout
    assert not again.embed(COLOUR).requires_grad


def test_a_network_that_was_trained_meanwhile_embeds_as_before_and_keeps_its_statistics() -> None:
    network = nn.Sequential(nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(192, 3))
    recognizer = ModuleRecognizer(network, config())
    expected = recognizer.embed(COLOUR)
    network.train()
    torch.testing.assert_close(recognizer.embed(COLOUR), expected)
    assert not network[0].running_mean.any()


def test_gradients_pass_a_network_to_its_images() -> None:
    recognizer = ModuleRecognizer(nn.Sequential(nn.Flatten(), nn.Linear(192, 3)), config(mean=0.5, std=0.25))
    images = COLOUR.clone().requires_grad_()
    features = recognizer.embed_with_gradients(images)
    torch.testing.assert_close(features, recognizer.embed(COLOUR))
    features.sum().backward()
    torch.testing.assert_close(images.grad[0].flatten(), recognizer.network[1].weight.sum(0) * 4)


def test_a_layer_is_listened_to_and_left_as_it_was() -> None:
    behind = []
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 5), nn.ReLU(), nn.Linear(5, 3), nn.Linear(3, 3))
    network[3].register_forward_hook(lambda *arguments: behind.append(1))
    recognizer = ModuleRecognizer(network, config(mean=0.5))
    found = recognizer.activations(COLOUR.clone().requires_grad_(), "2")
    torch.testing.assert_close(found, network[:3](COLOUR - 0.5))
    assert found.requires_grad
    assert not behind
    assert recognizer.embed(COLOUR).shape == (2, 3)
    with pytest.raises(ConfigError, match="'small' has no layer 'x'; it has 0, 1, 2, 3, 4"):
        recognizer.activations(COLOUR, "x")


def test_a_layer_that_is_not_passed_is_named() -> None:
    network = MeanColour()
    network.unused = nn.ReLU()
    with pytest.raises(ConfigError, match="does not pass through its layer 'unused'"):
        ModuleRecognizer(network, config()).activations(COLOUR, "unused")


def test_a_corrected_input_convention_is_another_fingerprint() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    conventions = (
        {},
        {"channels": "BGR"},
        {"mean": (0.5,)},
        {"std": (0.5,)},
        {"value_range": (0.0, 255.0)},
        {"uses_yaw": True},
    )
    for given in (None, "mine-1"):
        prints = {ModuleRecognizer(network, config(**changes), given).fingerprint for changes in conventions}
        assert len(prints) == len(conventions)


def test_a_registered_builder_without_a_file_makes_its_network_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    list_recognizers()  # those that there are have to be found before
    monkeypatch.setattr(registry, "_RECOGNIZERS", dict(registry._RECOGNIZERS))
    own = ModuleRecognizer(nn.Sequential(nn.Flatten(), nn.Linear(192, 3)), config())

    @register(config())
    def build(found: RecognizerConfig, file: Path | None, device: object, precision: str) -> ModuleRecognizer:
        assert file is None
        return own

    assert load_recognizer("small") is own


def test_a_function_in_a_file_makes_a_recognizer(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    (tmp_path / "beside_mine.py").write_text("SIZE = 3\n")
    file.write_text(
        "from __future__ import annotations\n"
        "import dataclasses\n"
        "import torch\n"
        "from beside_mine import SIZE\n"
        "from feature_extractors import ModuleRecognizer, RecognizerConfig\n"
        "from pifr.faces import ARCFACE_112\n"
        "@dataclasses.dataclass\n"
        "class Settings:\n"
        "    size: int = SIZE\n"
        "def nothing(device): ...\n"
        "def make(device):\n"
        "    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 3))\n"
        "    config = RecognizerConfig(name='mine', input_size=8, alignment=ARCFACE_112, embedding_size=3, licence='', "
        "origin='')\n"
        "    return ModuleRecognizer(network, config, device=device)\n"
    )
    made = load_recognizer(f"python:{file}:make")
    assert made.embed(COLOUR).shape == (len(COLOUR), 3)
    file.write_text(file.read_text().replace("Linear(192, 3))", "Linear(192, 3), torch.nn.Tanh())"))
    assert load_recognizer(f"python:{file}:make").fingerprint.split("-")[-2] != made.fingerprint.split("-")[-2]
    with pytest.raises(ConfigError, match="no function 'other'"):
        load_recognizer(f"python:{file}:other")
    with pytest.raises(ConfigError, match=r"'nothing' of .* lacks config, embed, fingerprint"):
        load_recognizer(f"python:{file}:nothing")
    with pytest.raises(ConfigError, match=r"python:FILE\.py:NAME"):
        load_recognizer(f"python:{tmp_path / 'none.py'}:make")


def test_functions_of_one_file_have_fingerprints_of_their_own_whatever_they_keep(tmp_path: Path) -> None:
    (tmp_path / "kept_by_two.py").write_text(
        "import torch\n"
        "from feature_extractors import ModuleRecognizer, RecognizerConfig\n"
        "from pifr.faces import ARCFACE_112\n"
        "network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 3))\n"
        "KEPT = ModuleRecognizer(network, RecognizerConfig(name='mine', input_size=8, alignment=ARCFACE_112, "
        "embedding_size=3, licence='', origin=''))\n"
    )
    file = tmp_path / "two.py"
    file.write_text("from kept_by_two import KEPT\ndef a(device): return KEPT\ndef b(device): return KEPT\n")
    prints = [load_recognizer(f"python:{file}:{name}").fingerprint for name in ("a", "b", "a")]
    assert prints[0] == prints[2]
    assert prints[0] != prints[1]


def test_what_is_no_network_and_no_device_is_named() -> None:
    with pytest.raises(TypeError, match="'small': the network is a function"):
        ModuleRecognizer(lambda batch: batch, config())
    with pytest.raises(ConfigError, match="device 'nothing' cannot be used here"):
        ModuleRecognizer(nn.Flatten(), config(), device="nothing")


def test_a_network_is_not_frozen_and_its_features_can_be_trained_on() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    features = ModuleRecognizer(network, config()).embed(COLOUR)
    assert all(parameter.requires_grad for parameter in network.parameters())
    features[features > 9] = 0
    nn.Linear(3, 1)(features).sum().backward()


@pytest.mark.parametrize("made", [torch.jit.script, lambda n: torch.ao.quantization.quantize_dynamic(n, {nn.Linear})])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_scripted_and_quantised_networks_are_recognizers(made: object) -> None:
    network = made(nn.Sequential(nn.Flatten(), nn.Linear(192, 3)).eval())
    recognizer = ModuleRecognizer(network, config())
    assert recognizer.embed(COLOUR).shape == (len(COLOUR), 3)
    assert recognizer.fingerprint == ModuleRecognizer(network, config()).fingerprint


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_network_is_shown_its_own_precision(dtype: torch.dtype) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    expected = ModuleRecognizer(network, config()).embed(COLOUR)
    found = ModuleRecognizer(network.to(dtype), config()).embed(COLOUR)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, atol=0.05, rtol=0.05)


def test_a_network_of_another_output_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'small' returns \(\d+, 5\), not a tensor"):
        ModuleRecognizer(nn.Sequential(nn.Flatten(), nn.Linear(192, 5)), config()).embed(COLOUR)
    with pytest.raises(ValueError, match="precision is 'float16'"):
        ModuleRecognizer(nn.Sequential(nn.Flatten(), nn.Linear(192, 3)), config(), precision="float16")


def test_yaw_reaches_only_a_network_that_asks_for_it() -> None:
    class Angle(nn.Module):
        def forward(self, x: Tensor, yaw: Tensor) -> Tensor:
            return yaw[:, None].expand(-1, 3)

    posed = ModuleRecognizer(Angle(), config(uses_yaw=True))
    torch.testing.assert_close(posed.embed(COLOUR, torch.tensor([30.0, torch.nan]))[:, 0], torch.tensor([30.0, 0.0]))
    assert not posed.embed(COLOUR).any()
    torch.testing.assert_close(
        ModuleRecognizer(MeanColour(), config()).embed(COLOUR, torch.ones(2)), COLOUR[:, :, 0, 0]
    )


# Registry


def test_a_wrong_name_says_which_are_close_and_where_all_are_listed() -> None:
    with pytest.raises(UnknownNameError, match=r"'lightcnn'. Did you mean 'lightcnn-.*'pifr models' lists all"):
        load_recognizer("lightcnn")
    with pytest.raises(UnknownNameError, match=r"'mine\.onnx'.*'onnx:PATH'"):
        load_recognizer(Path("mine.onnx"))  # type: ignore[arg-type]


def test_missing_weights_say_what_to_type(pifr_home: object) -> None:
    with pytest.raises(WeightsError, match="pifr models fetch sface"):
        load_recognizer("sface")
    with pytest.raises(WeightsError, match=r"arcface_torch.*resnet50:PATH"):
        load_recognizer("resnet50")
    with pytest.raises(CheckpointError, match=r"none\.pth' does not exist"):
        load_recognizer("resnet50:none.pth")
    with pytest.raises(UnknownNameError, match="needs the path"):
        load_recognizer("onnx:")


def test_every_recognizer_states_its_licence_origin_and_embedding() -> None:
    for name, entry in list_recognizers().items():
        assert entry.name == name
        assert entry.licence
        assert entry.origin
        assert entry.embedding_size > 0
    assert {"lightcnn-v4", "sface", "lightcnn-29v2", "resnet50", "resnet50-dream", "facenet"} <= set(list_recognizers())


def test_another_package_joins_by_an_entry_point(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setattr(registry, "_RECOGNIZERS", dict(registry._RECOGNIZERS))
    entry = EntryPoint("theirs", f"{__name__}:register_theirs", "pifr.recognizers")
    broken = EntryPoint("broken", "no.such.module:thing", "pifr.recognizers")
    monkeypatch.setattr(EntryPoint, "load", lambda self: register_theirs() if self is entry else 1 / 0)
    monkeypatch.setattr(registry, "entry_points", lambda group: [broken, entry])
    registry._discover.cache_clear()
    with pytest.warns(UserWarning, match="'broken'"):
        assert "theirs" in list_recognizers()
    registry._discover.cache_clear()


def register_theirs() -> None:
    @register(config(name="theirs"))
    def load(*arguments: object) -> None:
        raise NotImplementedError


def test_black_becomes_the_low_end_of_the_range() -> None:
    config = RecognizerConfig(
        name="x", input_size=2, alignment=ARCFACE_112, embedding_size=1, licence="", origin="", value_range=(-1.0, 1.0)
    )
    batch = torch.stack([torch.zeros(3, 2, 2), torch.ones(3, 2, 2)])
    assert config.normalise(batch).amax((1, 2, 3)).tolist() == [-1.0, 1.0]


def test_statistics_of_batch_norms_are_part_of_what_tells_networks_apart() -> None:
    network = nn.Sequential(nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(192, 3))
    before = ModuleRecognizer(network, config()).fingerprint
    network[0].running_mean.add_(1)
    assert ModuleRecognizer(network, config()).fingerprint != before


def test_bfloat16_is_another_precision() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    exact, fast = (ModuleRecognizer(network, config(), precision=p).embed(COLOUR) for p in ("float32", "bfloat16"))
    assert not torch.equal(exact, fast)
    torch.testing.assert_close(exact, fast, atol=0.05, rtol=0.05)
