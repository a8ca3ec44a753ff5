"""Exported graphs against the pipeline itself."""

import numpy as np
import pytest
import torch

from pifr.completion import certain, mirrored
from pifr.errors import ConfigError
from pifr.frontalizer import Frontalizer, FrontalizerConfig
from pifr.locator import LocatorConfig
from pifr.networks.config import CoarseShapeConfig
from pifr.networks.weights import build_network, save_network

from .conftest import painted_faces

onnxruntime = pytest.importorskip("onnxruntime")
pytestmark = [
    # What tracing makes constant does not depend on the batch; the parity below, at other batch sizes, shows it.
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


@pytest.fixture(scope="module")
def frontalizer() -> Frontalizer:
    """With the shipped weights: untrained networks hardly look at what they are given."""
    return Frontalizer.from_pretrained(
        config=FrontalizerConfig(completion="inet", shape="snet", fine=True),
        location=LocatorConfig(precision="float32"),
    )


@pytest.fixture(scope="module")
def sessions(frontalizer, tmp_path_factory):
    from pifr.export.onnx import export_onnx

    files = export_onnx(frontalizer, tmp_path_factory.mktemp("onnx"))
    return [onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"]) for file in files]


@pytest.mark.parametrize("yaw", [[30.0], [-70.0, 0.0, 50.0]])
def test_the_exported_locator_agrees_at_every_batch_size(frontalizer, sessions, yaw):
    faces = painted_faces(yaw)
    pncc, mask, pncc_to_crop, found = sessions[0].run(None, {"pixels": faces.pixels.numpy()})
    with torch.inference_mode():
        expected = frontalizer.locator.predict(faces.pixels)
    for exported, own in zip((pncc, mask, pncc_to_crop), expected, strict=False):
        np.testing.assert_allclose(exported, own.numpy(), atol=1e-4)
    assert found.tolist() == expected[3].tolist()


@pytest.mark.parametrize("count", [1, 3])
def test_the_exported_completion_agrees_at_every_batch_size(frontalizer, sessions, count):
    generator = torch.Generator().manual_seed(count)
    texture = torch.rand(count, 3, 128, 128, generator=generator)
    visibility = torch.zeros(count, 1, 128, 128)
    visibility[..., 20:100] = 1
    found = sessions[1].run(None, {"uv_partial": texture.numpy(), "visibility": visibility.numpy()})[0]
    with torch.inference_mode():
        np.testing.assert_allclose(found, frontalizer.complete(texture, visibility).numpy(), atol=1e-4)
        without = mirrored(texture, certain(visibility))
    assert np.abs(found - without.numpy()).mean() > 0.01  # I-Net is part of it


@pytest.mark.parametrize("yaw", [[30.0], [-70.0, 0.0, 50.0]])
def test_the_exported_reconstruction_agrees_at_every_batch_size(frontalizer, sessions, yaw):
    faces = painted_faces(yaw)
    with torch.inference_mode():
        seen = frontalizer.locator(faces)
        evidence = frontalizer.locator.correspondence.evidence(
            seen.camera, seen.image_map, seen.fitted, seen.visibility, seen.uv_partial
        )
        expected = frontalizer.shape(faces.pixels, seen)
    found = sessions[2].run(None, {"evidence": evidence.numpy(), "fitted": seen.fitted.numpy()})[0]
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-2)
    assert (expected - seen.fitted).norm(dim=1).mean() > 0.3  # mm: S-Net is part of it


@pytest.mark.parametrize("count", [1, 3])
def test_the_exported_detail_agrees_at_every_batch_size(frontalizer, sessions, count):
    texture = torch.rand(count, 3, 128, 128, generator=torch.Generator().manual_seed(count))
    found = sessions[3].run(None, {"uv_texture": texture.numpy()})[0]
    with torch.inference_mode():
        expected = frontalizer.detail(texture, texture).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert np.abs(expected).mean() > 0.01  # mm


@pytest.mark.parametrize("yaw", [[30.0], [-70.0, 0.0, 50.0]])
def test_an_s_net_that_reads_the_photo_is_part_of_the_exported_locator(random_weights, tmp_path, yaw):
    from pifr.export.onnx import export_onnx

    for name in ("segmentation", "pncc"):
        (tmp_path / f"{name}.safetensors").symlink_to(random_weights / name / "weights.safetensors")
    network = build_network(CoarseShapeConfig(resolution=64, encoder_widths=(4,) * 7, decoder_widths=(4,) * 9))
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        network.train()(torch.rand(8, 3, 128, 128) * torch.rand(8, 3, 1, 1))  # normalised, the photo reaches the output
    save_network(network, tmp_path / "shape-coarse.safetensors", {})
    frontalizer = Frontalizer.from_pretrained(
        weights=tmp_path, config=FrontalizerConfig(shape="snet"), location=LocatorConfig(precision="float32")
    )
    locate, _ = export_onnx(frontalizer, tmp_path / "onnx")
    faces = painted_faces(yaw)
    with torch.inference_mode():
        expected = frontalizer.shape(faces.pixels, frontalizer.locator(faces))
    session = onnxruntime.InferenceSession(locate, providers=["CPUExecutionProvider"])
    positions = session.run(["position_map"], {"pixels": faces.pixels.numpy()})[0]
    np.testing.assert_allclose(positions, expected.numpy(), atol=1e-2)
    with torch.inference_mode():
        other = frontalizer.shape(1 - faces.pixels, frontalizer.locator(faces))
    assert (other - expected).abs().mean() > 0.1


def test_only_float32_is_exported(random_weights, tmp_path):
    from pifr.export.onnx import export_onnx

    location = LocatorConfig(precision="bfloat16")
    with pytest.raises(ConfigError, match="precision='float32'"):
        export_onnx(Frontalizer.from_pretrained(weights=random_weights, location=location), tmp_path)
