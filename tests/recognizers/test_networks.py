"""Architectures are the published ones: parameter counts, layer names, and a reference's numbers where there is one."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from feature_extractors import list_recognizers, load_recognizer
from feature_extractors.checkpoints import read_checkpoint
from feature_extractors.dlib import DlibResNet
from feature_extractors.facenet import FACENET
from feature_extractors.lightcnn import LIGHTCNN_128, LightCNN29v2, LightCNNv4
from feature_extractors.resnet import IR50, DreamResNet50
from pifr.faces import ARCFACE_112
from pifr.fusion import yaw_gate
from pifr.support.torchvision_operators import ensure_operators


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(
    "network, count, tensors",
    [(LightCNN29v2, 10_475_872, 60), (LightCNNv4, 10_345_600, 52), (IR50, 43_590_848, None)],
)
def test_parameter_counts_are_the_published_ones(
    network: Callable[[], nn.Module], count: int, tensors: int | None
) -> None:
    built = network()
    assert parameters(built) == count
    assert tensors is None or len(built.state_dict()) == tensors


def test_lightcnn_29_has_the_layer_names_of_its_authors_code() -> None:
    wanted = set()
    for stage, blocks in enumerate((1, 2, 3, 4), 1):
        for block in range(blocks):
            wanted |= {f"block{stage}.{block}.conv{layer}.filter" for layer in (1, 2)}
        wanted |= {f"group{stage}.{layer}.filter" for layer in ("conv_a", "conv")}
    wanted |= {"conv1.filter", "fc"}
    names = {name.rpartition(".")[0] for name in LightCNN29v2().state_dict()}
    assert names == wanted


def test_ir50_has_the_layer_names_of_arcface_torch() -> None:
    names = set(IR50().state_dict())
    blocks = {name.rsplit(".", 2)[0] if "downsample" not in name else name.split(".downsample")[0] for name in names}
    assert {f"layer{i}.{j}" for i, n in enumerate((3, 4, 14, 3), 1) for j in range(n)} <= blocks
    shapes = {name: tuple(value.shape) for name, value in IR50().state_dict().items()}
    assert shapes["layer1.0.downsample.1.running_var"] == (64,)
    assert shapes["layer2.0.conv1.weight"] == (128, 64, 3, 3)
    assert shapes["layer4.2.prelu.weight"] == (512,)
    assert shapes["fc.weight"] == (512, 25088)
    assert shapes["features.weight"] == (512,)


def test_the_backbone_of_dream_is_torchvisions_resnet50() -> None:
    ensure_operators()
    from torchvision.models import resnet50

    torch.manual_seed(0)
    reference = resnet50(weights=None).eval()
    network = DreamResNet50(gated=False).eval()
    shared = {name: value for name, value in reference.state_dict().items() if not name.startswith("fc.")}
    missing = network.load_state_dict(shared, strict=False)
    assert set(missing.missing_keys) == {"feature.weight", "feature.bias"}
    assert not missing.unexpected_keys
    reference.fc = network.feature
    batch = torch.rand(2, 3, 224, 224)
    with torch.inference_mode():
        torch.testing.assert_close(network(batch, torch.zeros(2)), reference(batch))


def test_the_dream_block_adds_its_residual_by_the_gate_of_the_yaw() -> None:
    torch.manual_seed(0)
    network = DreamResNet50().eval()
    batch, yaw = torch.rand(1, 3, 224, 224), torch.tensor([[-90.0], [0.0], [45.0], [60.0]])
    with torch.inference_mode():
        feature = [network(batch, angle) for angle in yaw]
        network.gated = False
        plain = network(batch, yaw[0])
    residual = feature[2] - plain
    assert (residual >= 0).all()
    assert residual.any()
    torch.testing.assert_close(feature[0] - plain, 2 * residual * yaw_gate(yaw[0]), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(feature[1] - plain, 2 * residual * yaw_gate(yaw[1]), rtol=1e-2, atol=1e-6)
    assert parameters(network) == list_recognizers()["resnet50-dream"].parameters


def test_the_gate_is_the_published_sigmoid() -> None:
    gate = yaw_gate(torch.tensor([0.0, 45.0, -45.0, 90.0]))
    torch.testing.assert_close(gate, torch.tensor([4.5398e-5, 0.5, 0.5, 1 - 4.5398e-5]), rtol=1e-4, atol=1e-7)


def test_facenet_is_facenet_pytorchs_network_without_a_classifier() -> None:
    ensure_operators()
    from facenet_pytorch import InceptionResnetV1

    assert parameters(InceptionResnetV1()) == list_recognizers()["facenet"].parameters


def test_max_feature_map_keeps_the_larger_half() -> None:
    from feature_extractors.lightcnn import MaxFeatureMap

    layer = MaxFeatureMap(1, 2, 1)
    with torch.no_grad():
        layer.filter.weight.copy_(torch.tensor([1.0, -1.0, 3.0, -3.0]).view(4, 1, 1, 1))
        layer.filter.bias.zero_()
    torch.testing.assert_close(
        layer(
            torch.tensor(
                [
                    [
                        [[2.0]],
                    ]
                ]
            )
        ).flatten(),
        torch.tensor([6.0, -2.0]),
    )


def test_the_published_lightcnn_v4_fits_in_every_name_and_shape(fetched: Callable[[str], Path]) -> None:
    state = read_checkpoint(fetched("lightcnn-v4"))
    own = {name: tuple(value.shape) for name, value in LightCNNv4().state_dict().items()}
    assert {name: tuple(value.shape) for name, value in state.items()} == own


@pytest.mark.parametrize("name, length", [("lightcnn-v4", 256), ("sface", 128)])
def test_embeddings_do_not_depend_on_the_batch_but_on_the_channel_order(
    name: str, length: int, fetched: Callable[[str], Path]
) -> None:
    fetched(name)
    recognizer = load_recognizer(name)
    size = recognizer.config.input_size
    batch = torch.rand(3, 3, size, size, generator=torch.Generator().manual_seed(1))
    together = recognizer.embed(batch)
    assert together.shape == (3, length)
    assert together.dtype == torch.float32
    alone = torch.cat([recognizer.embed(face[None]) for face in batch])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)
    assert torch.cosine_similarity(together, recognizer.embed(batch.flip(1))).max() < 0.999
    assert recognizer.embed(batch[:0]).shape == (0, length)


def test_bfloat16_gives_nearly_the_same_embeddings_under_another_fingerprint(fetched: Callable[[str], Path]) -> None:
    fetched("lightcnn-v4")
    exact, fast = load_recognizer("lightcnn-v4"), load_recognizer("lightcnn-v4", precision="bfloat16")
    batch = torch.rand(2, 3, 128, 128, generator=torch.Generator().manual_seed(1))
    assert torch.cosine_similarity(exact.embed(batch), fast.embed(batch)).min() > 0.995
    assert exact.fingerprint != fast.fingerprint


# --- forward passes, written anew from the parameters alone ----------------------------------------------------


State = dict[str, Tensor]


def lightcnn(state: State, x: Tensor, stages: str) -> Tensor:
    """Figures and tables of the paper: max-feature-map layers, residual blocks, sums of both poolings."""

    def layer(name: str, x: Tensor) -> Tensor:
        weight = state[f"{name}.filter.weight"]
        y = functional.conv2d(x, weight, state[f"{name}.filter.bias"], padding=weight.shape[-1] // 2)
        return torch.maximum(*y.chunk(2, 1))

    for stage in stages.split():
        if stage == "pool":
            x = functional.max_pool2d(x, 2) + functional.avg_pool2d(x, 2)
        elif stage.startswith("block"):
            for number in range(len({key.split(".")[1] for key in state if key.startswith(f"{stage}.")})):
                x = x + layer(f"{stage}.{number}.conv2", layer(f"{stage}.{number}.conv1", x))
        elif stage.startswith("group"):
            x = layer(f"{stage}.conv", layer(f"{stage}.conv_a", x))
        else:
            x = layer(stage, x)
    return x.flatten(1) @ state["fc.weight"].T + state["fc.bias"]


@pytest.mark.parametrize(
    ("network", "channels", "stages"),
    [
        (LightCNN29v2, 1, "conv1 pool block1 group1 pool block2 group2 pool block3 group3 block4 group4 pool"),
        (LightCNNv4, 3, "conv1 pool block1 conv2 pool block2 conv3 pool block3 conv4 block4 conv5 pool"),
    ],
)
@torch.inference_mode()
def test_lightcnn_computes_what_the_paper_draws(network: type[nn.Module], channels: int, stages: str) -> None:
    torch.manual_seed(0)
    built, x = network().eval(), torch.rand(1, channels, 128, 128)
    torch.testing.assert_close(built(x), lightcnn(built.state_dict(), x, stages), rtol=1e-4, atol=1e-5)


def lively(network: nn.Module) -> nn.Module:
    """The network with statistics and slopes that make a difference, for inference."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
        elif isinstance(module, nn.PReLU):
            nn.init.uniform_(module.weight, 0.1, 0.4)
    return network.eval()


@torch.inference_mode()
def test_ir50_computes_what_arcface_describes() -> None:
    torch.manual_seed(0)
    network = lively(IR50())
    state, x = network.state_dict(), torch.rand(1, 3, 112, 112)

    def norm(name: str, x: Tensor) -> Tensor:
        parts = (state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
        return functional.batch_norm(x, *parts, eps=1e-5)

    y = functional.conv2d(x, state["conv1.weight"], padding=1)
    y = functional.prelu(norm("bn1", y), state["prelu.weight"])
    for layer, count in enumerate((3, 4, 14, 3), 1):
        for name, stride in ((f"layer{layer}.{number}", 1 if number else 2) for number in range(count)):
            z = functional.conv2d(norm(f"{name}.bn1", y), state[f"{name}.conv1.weight"], padding=1)
            z = functional.prelu(norm(f"{name}.bn2", z), state[f"{name}.prelu.weight"])
            z = norm(f"{name}.bn3", functional.conv2d(z, state[f"{name}.conv2.weight"], stride=stride, padding=1))
            if f"{name}.downsample.0.weight" in state:
                y = functional.conv2d(y, state[f"{name}.downsample.0.weight"], stride=stride)
                y = norm(f"{name}.downsample.1", y)
            y = y + z
    y = norm("bn2", y).flatten(1) @ state["fc.weight"].T + state["fc.bias"]
    torch.testing.assert_close(network(x), norm("features", y), rtol=1e-3, atol=1e-3)


@torch.inference_mode()
def test_dlibs_network_computes_what_its_example_describes() -> None:
    torch.manual_seed(0)
    network = DlibResNet().eval()
    state, x = network.state_dict(), torch.rand(1, 3, 150, 150)

    def conv(name: str, x: Tensor, stride: int, padding: int) -> Tensor:
        return functional.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], stride, padding)

    y = functional.max_pool2d(conv("stem", x, 2, 0).relu(), 3, 2)
    for number in range(14):
        halves = number in (3, 7, 10, 13)
        z = conv(f"blocks.{number}.first", y, 2 if halves else 1, 0 if halves else 1).relu()
        z = conv(f"blocks.{number}.second", z, 1, 1)
        y = functional.avg_pool2d(y, 2) if halves else y
        side, channels = max(y.shape[-1], z.shape[-1]), max(y.shape[1], z.shape[1])
        y, z = (functional.pad(t, [0, side - t.shape[-1]] * 2 + [0, channels - t.shape[1]]) for t in (y, z))
        y = (y + z).relu()
    torch.testing.assert_close(network(x), y.mean((2, 3)) @ state["fc.weight"].T, rtol=1e-4, atol=1e-5)


def test_facenets_input_is_that_of_its_package() -> None:
    ensure_operators()
    from facenet_pytorch import fixed_image_standardization

    x = torch.rand(1, 3, 160, 160)
    torch.testing.assert_close(FACENET.normalise(x), fixed_image_standardization(255 * x), rtol=1e-4, atol=1e-5)


def test_inputs_are_those_of_the_published_models() -> None:
    known = list_recognizers()
    assert {known[name].channels for name in ("lightcnn-v4", "resnet50", "resnet50-dream")} == {"RGB"}
    assert known["lightcnn-29v2"].channels == "grey"
    assert known["lightcnn-29v2"].alignment == LIGHTCNN_128
    assert {known[name].alignment for name in ("lightcnn-v4", "sface", "resnet50")} == {ARCFACE_112}
