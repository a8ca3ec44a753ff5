"""Networks: shapes the paper states, what each output promises, weights files."""

from pathlib import Path

import pytest
import torch
import yaml
from pydantic import ValidationError
from torch.utils.flop_counter import FlopCounterMode

from pifr.completion import mirrored
from pifr.errors import CheckpointError
from pifr.networks.config import (
    CoarseShapeConfig,
    DiscriminatorConfig,
    FineShapeConfig,
    InpaintingConfig,
    NetworkConfig,
    Pix2PixConfig,
    PnccConfig,
    ResidualConfig,
    SegmentationConfig,
)
from pifr.networks.inpainting import NoisyConvolution
from pifr.networks.shape import EVIDENCE_CHANNELS, CoarseShapeNetwork
from pifr.networks.unet import build_unet
from pifr.networks.weights import build_network, load_network, load_weights, read_metadata, save_network

CONFIGS = Path(__file__).parents[2] / "pifr" / "training" / "configs"
SMALL_UNET = ResidualConfig(widths=(8, 8, 8), encoder_blocks=(0, 1), decoder_blocks=(1, 1))
SMALL_PNCC = PnccConfig(input_size=32, segmented_input=False, predicts_mask=True, unet=SMALL_UNET)
SMALL_INPAINTING = InpaintingConfig(resolution=16, widths=(4, 8), dilations=(1, 2))


# Sizes of layers need no numbers: the networks live on the meta device, but for whole U-Nets, which use autocast.
META = torch.device("meta")


def meta(*shape: int) -> torch.Tensor:
    return torch.empty(shape, device=META)


def sizes_of(network: torch.nn.Sequential, inputs: torch.Tensor) -> list[tuple[int, ...]]:
    sizes = []
    for layer in network:
        inputs = layer(inputs)
        sizes.append(tuple(inputs.shape[1:]))
    return sizes


def inputs_of(layer: torch.nn.Module) -> list[torch.Tensor]:
    """Grows by what the layer is shown, each time that it runs."""
    shown: list[torch.Tensor] = []
    layer.register_forward_pre_hook(lambda _, inputs: shown.append(inputs[0]))
    return shown


def test_paper_segmentation_maps_256_pixels_to_256_logits() -> None:
    network = build_network(SegmentationConfig()).eval()
    assert network(torch.zeros(1, 3, 256, 256)).shape == (1, 1, 256, 256)


def test_paper_pncc_maps_128_pixels_to_three_codes_and_no_mask() -> None:
    prediction = build_network(PnccConfig()).eval()(torch.zeros(1, 3, 128, 128), torch.zeros(1, 1, 128, 128))
    assert prediction.pncc.shape == (1, 3, 128, 128)
    assert prediction.mask_logits is None


def test_paper_unet_reaches_one_pixel_at_the_bottom() -> None:
    with META:
        unet = build_network(PnccConfig()).eval().unet
        assert sizes_of(unet.down, meta(1, 3, 128, 128)) == [
            (64, 64, 64), (128, 32, 32), (256, 16, 16), (512, 8, 8), (512, 4, 4), (512, 2, 2), (512, 1, 1)
        ]  # fmt: skip


def test_a_small_unet_sees_the_whole_crop_from_each_of_its_corners() -> None:
    torch.manual_seed(0)
    unet, pixels = build_unet(SMALL_UNET, 3, 1).eval(), torch.rand(1, 3, 256, 256)
    other = pixels.clone()
    other[..., :4, :4] = 1 - pixels[..., :4, :4]
    with torch.no_grad():
        change = (unet(pixels) - unet(other)).abs()
    assert change[..., 200:, 200:].max() > 0


@pytest.mark.parametrize(
    ("config", "first", "size"),
    [
        (SegmentationConfig(input_size=32, unet=SMALL_UNET), "unet", 32),
        (SMALL_PNCC, "unet", 32),
        (SMALL_INPAINTING, "stem", 16),
        (DiscriminatorConfig(widths=(4, 8)), "features", 32),
        (FineShapeConfig(resolution=32, working_size=32, unet=SMALL_UNET), "unet", 32),
    ],
    ids=lambda value: getattr(value, "network", None),
)
def test_black_is_minus_one_and_white_is_one_to_the_first_layer(config: NetworkConfig, first: str, size: int) -> None:
    network = build_network(config).eval()
    shown = inputs_of(getattr(network, first))
    visibility = [torch.ones(1, 1, size, size)] if config is SMALL_INPAINTING else []
    for level in (0.0, 1.0):
        network(torch.full((1, 3, size, size), level), *visibility)
    assert [seen[:, :3].unique().tolist() for seen in shown] == [[-1.0], [1.0]]


def test_paper_coarse_shape_has_the_layers_of_section_3_5_2() -> None:
    with META:
        network = CoarseShapeNetwork(CoarseShapeConfig()).eval()
        encoder = sizes_of(network.encoder, meta(1, 3, 128, 128))
        assert len(encoder) == 7
        assert encoder[-1] == (512, 1, 1)
        decoder = sizes_of(network.decoder, meta(1, 512, 1, 1))
        assert [size[1] for size in decoder] == [3, 5, 10, 10, 21, 21, 42, 42, 84, 84]
        assert decoder[-1] == (3, 84, 84)


@pytest.mark.parametrize("resolution", [64, 84, 128])
def test_coarse_shape_reaches_its_resolution_in_ten_layers(resolution: int) -> None:
    with META:
        config = CoarseShapeConfig(resolution=resolution, encoder_widths=(4,) * 7, decoder_widths=(4,) * 9)
        network = CoarseShapeNetwork(config).eval()
        assert len(network.decoder) == 10
        assert network(meta(1, 3, 128, 128)).shape == (1, 3, resolution, resolution)


def test_untrained_coarse_shape_stays_near_the_mean() -> None:
    mean = torch.randn(3, 64, 64) * 50
    config = CoarseShapeConfig(resolution=64, encoder_widths=(4,) * 7, decoder_widths=(4,) * 9)
    positions = CoarseShapeNetwork(config, mean).eval()(torch.rand(2, 3, 128, 128))
    assert (positions - mean).abs().max() < 20
    with pytest.raises(ValueError, match="3 x 64 x 64"):
        CoarseShapeNetwork(config, torch.zeros(3, 84, 84))


def test_a_correcting_coarse_shape_starts_from_the_fit() -> None:
    config = CoarseShapeConfig(
        resolution=64, encoder_widths=(4,) * 7, decoder_widths=(4,) * 9, scale=1e-3, corrects_fit=True
    )
    network, fitted = CoarseShapeNetwork(config).eval(), torch.randn(2, 3, 64, 64) * 50
    evidence = torch.rand(2, EVIDENCE_CHANNELS, 128, 128)
    torch.testing.assert_close(network(evidence, fitted), fitted, atol=0.02, rtol=0)
    assert network(evidence, fitted[:, :, :32, :32]).shape == (2, 3, 64, 64)


@pytest.mark.parametrize("config", [InpaintingConfig(), InpaintingConfig(sees_visibility=True)])
def test_paper_inpainting_completes_84_pixel_textures(config: InpaintingConfig) -> None:
    completed = build_network(config).eval()(torch.rand(1, 3, 84, 84), torch.rand(1, 1, 84, 84))
    assert completed.shape == (1, 3, 84, 84)


def test_inpainting_does_not_look_at_unseen_pixels() -> None:
    network = build_network(SMALL_INPAINTING).eval()
    texture, seen = torch.rand(1, 3, 16, 16), (torch.rand(1, 1, 16, 16) > 0.5).float()
    other = torch.where(seen > 0, texture, torch.rand(1, 3, 16, 16))
    torch.testing.assert_close(network(texture, seen), network(other, seen))


def test_inpainting_sees_face_and_visibility_each_beside_its_mirror_image() -> None:
    network = build_network(SMALL_INPAINTING.model_copy(update={"sees_visibility": True})).eval()
    shown, visibility = inputs_of(network.stem), torch.rand(1, 1, 16, 16)
    network(torch.rand(1, 3, 16, 16), visibility)
    (seen,) = shown
    torch.testing.assert_close(seen[:, 3:6], seen[:, :3].flip(3), rtol=0, atol=0)
    torch.testing.assert_close(seen[:, 6:], torch.cat([visibility, visibility.flip(3)], 1), rtol=0, atol=0)


def test_inpainting_sees_the_flipped_face_and_skips_the_middle() -> None:
    torch.manual_seed(0)
    # Its receptive field is so small that the other edge is reached by the flipped input alone.
    network = build_network(InpaintingConfig(resolution=64, widths=(4, 8), kernel_size=3, dilations=(1,))).eval()
    texture, seen = torch.rand(1, 3, 64, 64, requires_grad=True), torch.ones(1, 1, 64, 64)
    (gradient,) = torch.autograd.grad(network(texture, seen)[..., 30, 2].sum(), texture)
    reached = gradient.abs().amax((0, 1)) > 0
    assert reached[30, 2]
    assert reached[30, 61]
    assert not reached[:, 28:36].any()
    network.middle = torch.nn.Sequential(torch.nn.Hardshrink(float("inf")))  # nothing comes through
    (gradient,) = torch.autograd.grad(network(texture, seen)[..., 30, 2].sum(), texture)
    assert (gradient.abs() > 0).any()


def test_paper_inpainting_widens_its_view_by_dilation() -> None:
    paper = InpaintingConfig.model_validate(
        yaml.safe_load((CONFIGS / "paper.yaml").read_text())["inpainting"]["network"]
    )
    network = build_network(paper)
    assert [block.first.convolution.dilation for block in network.middle] == [(d, d) for d in (1, 2, 4, 8, 1)]


def test_a_correction_of_the_mirrored_face_begins_as_the_mirrored_face() -> None:
    config = InpaintingConfig(resolution=32, widths=(8, 16), kernel_size=3, dilations=(1,), corrects_mirrored=True)
    network = build_network(config).eval()
    texture, visibility = torch.rand(2, 3, 32, 32), torch.zeros(2, 1, 32, 32)
    visibility[..., :16] = 1
    with torch.no_grad():
        complete = network(texture, visibility)
    torch.testing.assert_close(complete[..., :16], texture[..., :16])
    torch.testing.assert_close(complete[..., 16:], texture[..., :16].flip(3))
    visibility[:, :, :8] = 0
    with torch.no_grad():
        torch.testing.assert_close(network(texture, visibility), mirrored(texture, visibility))


def test_inpainting_draws_noise_in_training_only() -> None:
    layer = NoisyConvolution(2, 3)
    torch.nn.init.ones_(layer.noise_scale)
    x = torch.rand(2, 2, 8, 8)
    assert not torch.equal(layer(x), layer(x))
    layer.eval()
    assert torch.equal(layer(x), layer(x))


def test_paper_fine_shape_gives_one_channel_at_the_textures_resolution() -> None:
    displacement = build_network(FineShapeConfig()).eval()(torch.rand(1, 3, 84, 84))
    assert displacement.shape == (1, 1, 84, 84)
    assert (displacement == 0).all()  # as training begins


def test_discriminator_gives_one_logit_a_texture() -> None:
    with META:
        assert build_network(DiscriminatorConfig(widths=(4, 8)))(meta(3, 3, 84, 84)).shape == (3,)


def test_segmentation_averages_larger_crops() -> None:
    network = build_network(SegmentationConfig(input_size=32, unet=SMALL_UNET)).eval()
    small = torch.rand(2, 3, 32, 32)
    large = small.repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(network(large), network(small))


def test_coarse_shape_sees_the_background_only_if_told_to() -> None:
    photo, mask = torch.rand(2, 3, 128, 128), (torch.rand(2, 1, 128, 128) > 0.5).float()
    for segmented, expected in ((True, photo * mask), (False, photo)):
        network = build_network(CoarseShapeConfig(resolution=64, segmented_input=segmented))
        torch.testing.assert_close(network.photo(photo, mask), expected)


def test_segmented_input_hides_the_background() -> None:
    network = build_network(SMALL_PNCC.model_copy(update={"segmented_input": True})).eval()
    mask = torch.zeros(1, 1, 32, 32)
    mask[..., 8:24, 8:24] = 1
    face = torch.rand(1, 3, 32, 32)
    elsewhere = face * mask + torch.rand(1, 3, 32, 32) * (1 - mask)
    torch.testing.assert_close(network(face, mask).pncc, network(elsewhere, mask).pncc)
    with pytest.raises(ValueError, match="mask"):
        network(face)


def test_codes_are_in_the_middle_where_the_unet_says_nothing() -> None:
    network = build_network(SMALL_PNCC).eval()
    for parameter in network.unet.last.parameters():
        torch.nn.init.zeros_(parameter)
    assert (network(torch.rand(1, 3, 32, 32)).pncc == 0.5).all()


def test_codes_keep_full_precision_under_autocast() -> None:
    network = build_network(SMALL_PNCC).eval()
    with torch.autocast("cpu", torch.bfloat16):
        assert network(torch.rand(1, 3, 32, 32)).pncc.dtype == torch.float32


def test_networks_run_channels_last_alike() -> None:
    network, pixels = build_network(SMALL_PNCC).eval(), torch.rand(2, 3, 32, 32)
    expected = network(pixels).pncc
    actual = network.to(memory_format=torch.channels_last)(pixels.contiguous(memory_format=torch.channels_last)).pncc
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-4)


def test_lite_weights_stay_under_their_budgets() -> None:
    config = yaml.safe_load((CONFIGS / "lite.yaml").read_text())
    classes = {
        "segmentation": SegmentationConfig,
        "pncc": PnccConfig,
        "inpainting": InpaintingConfig,
        "shape-coarse": CoarseShapeConfig,
        "shape-fine": FineShapeConfig,
    }
    networks = {name: build_network(kind(**config[name]["network"])).eval() for name, kind in classes.items()}
    assert sum(p.numel() for network in networks.values() for p in network.parameters()) * 2 < 40e6
    for name, most in (("segmentation", 65e6), ("pncc", 680e6)):  # every face goes through these two
        with FlopCounterMode(display=False) as work:
            networks[name](torch.empty(1, 3, 128, 128))
        assert work.get_total_flops() / 2 <= most


def test_wrong_key_is_named() -> None:
    with pytest.raises(ValidationError, match="widhts"):
        Pix2PixConfig(widhts=(1, 2))
    with pytest.raises(ValidationError, match="decoder_blocks"):
        ResidualConfig(widths=(8, 8, 8), encoder_blocks=(0, 1), decoder_blocks=(1,))


def test_weights_file_rebuilds_the_network(tmp_path: Path) -> None:
    network = build_network(SMALL_PNCC)
    network(torch.rand(4, 3, 32, 32))  # moves the running statistics
    network.eval()
    path = tmp_path / "weights.safetensors"
    save_network(network, path, {"steps": "12"})
    loaded, pixels = load_network(path), torch.rand(1, 3, 32, 32)
    assert loaded.config == SMALL_PNCC
    assert not loaded.training
    torch.testing.assert_close(loaded(pixels).pncc, network(pixels).pncc, atol=0.01, rtol=0.01)
    assert read_metadata(path)["steps"] == "12"
    assert [file.name for file in tmp_path.iterdir()] == ["weights.safetensors"]


def test_loading_draws_no_random_numbers_and_follows_no_default(tmp_path: Path) -> None:
    save_network(build_network(SMALL_PNCC), tmp_path / "w.safetensors", {})
    expected, before = load_network(tmp_path / "w.safetensors").state_dict(), torch.get_rng_state()
    torch.set_default_dtype(torch.float64)
    try:
        loaded = load_network(tmp_path / "w.safetensors").state_dict()
    finally:
        torch.set_default_dtype(torch.float32)
    torch.testing.assert_close(loaded, expected, rtol=0, atol=0)
    assert torch.equal(torch.get_rng_state(), before)


def test_weights_are_half_precision_and_statistics_are_not(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    save_network(build_network(SMALL_PNCC), tmp_path / "w.safetensors", {})
    types = {name.rsplit(".", 1)[-1]: tensor.dtype for name, tensor in load_file(tmp_path / "w.safetensors").items()}
    assert types["weight"] == torch.float16
    assert types["running_var"] == torch.float32


def test_foreign_and_damaged_weights_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    foreign, damaged = tmp_path / "foreign.safetensors", tmp_path / "damaged.safetensors"
    save_file({"x": torch.zeros(1)}, foreign)
    damaged.write_bytes(b"not weights")
    for path, reason in ((foreign, "no configuration"), (damaged, "cannot be read"), (tmp_path / "none", "read")):
        with pytest.raises(CheckpointError, match=reason):
            load_network(path)


def test_weights_of_another_shape_are_refused(tmp_path: Path) -> None:
    save_network(build_network(SMALL_PNCC), tmp_path / "w.safetensors", {})
    with pytest.raises(CheckpointError, match="does not fit"):
        load_weights(build_network(SegmentationConfig(input_size=32, unet=SMALL_UNET)), tmp_path / "w.safetensors")
