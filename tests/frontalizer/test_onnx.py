"""Exported graphs against the pipeline itself."""

import numpy as np
import pytest
import torch

from pifr.errors import ConfigError
from pifr.frontalizer import Frontalizer, FrontalizerConfig
from pifr.locator import LocatorConfig
from pifr.networks import build_network, save_network
from pifr.networks.config import CoarseShapeConfig

from .conftest import painted_faces

onnxruntime = pytest.importorskip("onnxruntime")
pytestmark = [
    # What tracing makes constant does not depend on the batch; the parity below, at other batch sizes, shows it.
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


@pytest.fixture(scope="module")
def frontalizer(random_weights) -> Frontalizer:
    return Frontalizer.from_pretrained(
        weights=random_weights,
        config=FrontalizerConfig(completion="inet", shape="snet"),
        location=LocatorConfig(precision="float32"),
    )


@pytest.fixture(scope="module")
def sessions(frontalizer, tmp_path_factory):
    from pifr.onnx_export import export_onnx

    files = export_onnx(frontalizer, tmp_path_factory.mktemp("onnx"))
    return [onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"]) for file in files]


@pytest.mark.parametrize("yaw", [[30.0], [-70.0, 0.0, 50.0]])
def test_the_exported_locator_agrees_at_every_batch_size(frontalizer, sessions, yaw):
    faces = painted_faces(yaw)
    pncc, mask, pncc_to_crop, found = sessions[0].run(None, {"pixels": faces.pixels.numpy()})
    with torch.inference_mode():
        expected = frontalizer.locator.encode(faces.pixels)
    for exported, own in zip((pncc, mask, pncc_to_crop), expected, strict=False):
        np.testing.assert_allclose(exported, own.numpy(), atol=1e-4)
    assert found.tolist() == expected[3].tolist()


@pytest.mark.parametrize("count", [1, 3])
def test_the_exported_completion_agrees_at_every_batch_size(frontalizer, sessions, count):
    generator = torch.Generator().manual_seed(count)
    texture = torch.rand(count, 3, 128, 128, generator=generator)
    visibility = (torch.rand(count, 1, 128, 128, generator=generator) - 0.3).clamp(0, 1)
    found = sessions[1].run(None, {"uv_partial": texture.numpy(), "visibility": visibility.numpy()})[0]
    with torch.inference_mode():
        np.testing.assert_allclose(found, frontalizer.complete(texture, visibility).numpy(), atol=1e-4)


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


@pytest.mark.parametrize("yaw", [[30.0], [-70.0, 0.0, 50.0]])
def test_an_s_net_that_reads_the_photo_is_part_of_the_exported_locator(random_weights, tmp_path, yaw):
    from pifr.onnx_export import export_onnx

    for name in ("segmentation", "pncc"):
        (tmp_path / f"{name}.safetensors").symlink_to(random_weights / name / "weights.safetensors")
    network = build_network(CoarseShapeConfig(resolution=64, encoder_widths=(4,) * 7, decoder_widths=(4,) * 9))
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


def test_only_float32_is_exported(random_weights, tmp_path):
    from pifr.onnx_export import export_onnx

    location = LocatorConfig(precision="bfloat16")
    with pytest.raises(ConfigError, match="precision='float32'"):
        export_onnx(Frontalizer.from_pretrained(weights=random_weights, location=location), tmp_path)
