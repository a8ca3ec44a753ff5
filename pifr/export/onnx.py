"""ONNX files of the parts of the pipeline that are functions of tensors alone.

`locate.onnx` is C-Net with its framing, and with the mirrored and the second pass if the configuration asks for them;
`complete.onnx` blends evidence and completion, I-Net's if it is used; `reconstruct.onnx` and `detail.onnx` are coarse
and fine S-Net. Between the first and the others lies the correspondence, whose fit factorises matrices, and after them
the rasteriser, whose sizes depend on what it sees: neither has ONNX operators.
"""

import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from pifr.errors import ConfigError
from pifr.faces import CROP_SIZE
from pifr.frontalizer import Frontalizer
from pifr.geometry import warp
from pifr.locator import FaceLocator
from pifr.networks.shape import EVIDENCE_CHANNELS, INPUT_SIZE

OPSET = 18


class _Locate(nn.Module):
    def __init__(self, locator: FaceLocator, shape: nn.Module | None) -> None:
        super().__init__()
        self.locator, self.shape = locator, shape
        # The tracer knows the weights of submodules only.
        self.networks = nn.ModuleList([self.locator.pretrained["segmentation"], self.locator.pretrained["pncc"]])

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        pncc, mask, pncc_to_crop, found = self.locator.predict(pixels)
        outputs = (pncc, mask, pncc_to_crop, found)
        if self.shape is None:
            return outputs
        size = self.locator.pretrained["pncc"].config.input_size
        return (*outputs, self.shape(self.shape.photo(warp.affine_warp(pixels, pncc_to_crop, size), mask)))


class _Complete(nn.Module):
    def __init__(self, frontalizer: Frontalizer) -> None:
        super().__init__()
        self.frontalizer = frontalizer
        self.network = frontalizer.pretrained["inpainting"] if frontalizer.config.completion == "inet" else None

    def forward(self, texture: Tensor, visibility: Tensor) -> Tensor:
        return self.frontalizer.complete(texture, visibility)


class _Detail(nn.Module):
    def __init__(self, frontalizer: Frontalizer) -> None:
        super().__init__()
        self.frontalizer = frontalizer
        self.network = frontalizer.pretrained["shape-fine"]

    def forward(self, texture: Tensor) -> Tensor:
        return self.frontalizer.detail(texture, texture)  # of the shape, only the size where nothing is asked for


def export_onnx(frontalizer: Frontalizer, folder: str | Path) -> tuple[Path, ...]:
    """Writes `locate.onnx`, `complete.onnx` and, with S-Net, `reconstruct.onnx` and `detail.onnx` (opset 18).

    | file | inputs | outputs |
    | --- | --- | --- |
    | locate | pixels B x 3 x 256 x 256 | pncc, mask, pncc_to_crop, found (bool), position_map with S-Net on photos |
    | complete | uv_partial B x 3 x N x N, visibility B x 1 x N x N | uv_texture B x 3 x N x N |
    | reconstruct | evidence B x 13 x 128 x 128 (`Correspondence.evidence`), fitted B x 3 x 64 x 64 | position_map |
    | detail | uv_texture B x 3 x N x N | displacement B x 1 x M x M |

    `reconstruct` is an S-Net that corrects the fit, as the shipped one does; one that reads the photo is in `locate`.
    Each takes any batch size from 1 on.

    `locate` is one look of `FaceLocator`, at faces as they come. Heads that lie on their side or are upside down, which
    `FaceLocator` looks at again, turned, are not found by it. And `found` says that the mask is not empty, not that it
    shows a face: the limits of `LocatorConfig`, by which `FaceLocator` tells that, need the fit.

    Frames, ranges and units are those of `LocatedFaces` and `FrontalizedFaces`; N is the configuration's texture size.

    Args:
        frontalizer: on the CPU, in float32 (`LocatorConfig(precision="float32")`).
        folder: where the files go.

    Raises:
        ConfigError: the frontalizer runs in another precision.
    """
    location = frontalizer.locator.config
    if location.precision != "float32":
        raise ConfigError(
            f"only float32 can be exported, not {location.precision!r}: make the frontalizer with "
            "location=LocatorConfig(precision='float32')"
        )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    size = location.texture_size
    names = ("locate", "complete", "reconstruct", "detail")
    locate, complete, reconstruct, detail = (folder / f"{name}.onnx" for name in names)
    corrector = reader = None  # of the fit; of the photo
    outputs = ["pncc", "mask", "pncc_to_crop", "found"]
    if frontalizer.config.shape == "snet":
        snet = frontalizer.pretrained["shape-coarse"]
        if snet.config.corrects_fit:
            corrector = snet
        else:
            reader = snet
            outputs.append("position_map")
    pixels = _example(3, CROP_SIZE)
    _export(_Locate(frontalizer.locator, reader), (pixels,), locate, ["pixels"], outputs)
    maps = (_example(3, size), _example(1, size))
    _export(_Complete(frontalizer), maps, complete, ["uv_partial", "visibility"], ["uv_texture"])
    written = [locate, complete]
    if corrector is not None:
        seen = _example(EVIDENCE_CHANNELS, INPUT_SIZE), frontalizer.locator.correspondence.mean.expand(2, -1, -1, -1)
        _export(corrector, seen, reconstruct, ["evidence", "fitted"], ["position_map"])
        written.append(reconstruct)
    if frontalizer.config.fine:
        _export(_Detail(frontalizer), maps[:1], detail, ["uv_texture"], ["displacement"])
        written.append(detail)
    return tuple(written)


def _example(channels: int, size: int) -> Tensor:
    """What a graph is traced with; it depends on no value."""
    return torch.zeros(2, channels, size, size, dtype=torch.float32, device="cpu")


def _export(module: nn.Module, example: tuple[Tensor, ...], path: Path, inputs: list[str], outputs: list[str]) -> None:
    axes = {name: {0: "batch"} for name in inputs + outputs}
    with torch.no_grad(), warnings.catch_warnings():
        # Sizes are fixed on purpose.
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        # A mirrored constant stays a node: slower by nothing that can be measured.
        warnings.filterwarnings("ignore", "Constant folding")
        # The exporter by tracing needs no package beyond `onnx`.
        torch.onnx.export(
            module.eval(),
            example,
            str(path),
            input_names=inputs,
            output_names=outputs,
            dynamic_axes=axes,
            opset_version=OPSET,
            dynamo=False,
        )
