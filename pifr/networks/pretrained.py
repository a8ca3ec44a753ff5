"""Trained networks: where their weights lie, and in which precision they run."""

from contextlib import AbstractContextManager
from itertools import pairwise
from pathlib import Path
from typing import Literal

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from pifr.errors import UnknownNameError, WeightsError
from pifr.networks.weights import load_network
from pifr.support.devices import usable_device
from pifr.support.files import file_sha256
from pifr.zoo import packaged_file, packaged_weights

Precision = Literal["auto", "float32", "bfloat16"]

CONFIGURATIONS = ("lite", "paper")
"""Of `pifr/training/configs`; weights of the first are packaged."""


class Pretrained:
    """Networks of one configuration, loaded for inference: gradients reach their inputs, not their weights.

    Args:
        names: the networks that are needed: "segmentation", "pncc", "inpainting", "shape-coarse", "shape-fine".
        configuration: "lite", whose weights are packaged, or "paper", whose weights have to be trained.
        weights: a folder of `pifr train` (NETWORK/weights.safetensors, or NETWORK.safetensors) instead of the packaged
            weights.
        device: where they run.
        precision: "auto" is bfloat16 where the processor multiplies matrices of it natively.

    Attributes:
        fingerprint: the weights' SHA-256, and the precision in which they run here.

    Raises:
        WeightsError: a network has no weights; says how to get them.
        CheckpointError: a file is no weights file.
        UnknownNameError: there is no such configuration.
        ConfigError: the device cannot be used here.
    """

    def __init__(
        self,
        names: tuple[str, ...],
        configuration: str = "lite",
        weights: Path | None = None,
        device: torch.device | str = "cpu",
        precision: Precision = "auto",
    ) -> None:
        self.device = usable_device(device)
        if configuration not in CONFIGURATIONS:
            raise UnknownNameError("configuration", configuration, CONFIGURATIONS)
        files = {name: _weights_file(configuration, name, weights) for name in names}
        self._bfloat16 = uses_bfloat16(precision, self.device)
        used = "bfloat16" if self._bfloat16 else "float32"
        self.fingerprint = ",".join([*(f"{name}={file_sha256(file)[:16]}" for name, file in files.items()), used])
        self._networks: dict[str, nn.Module] = {
            name: fold_batch_norms(load_network(file, device))
            .requires_grad_(False)
            .to(memory_format=torch.channels_last)
            for name, file in files.items()
        }

    def __getitem__(self, name: str) -> nn.Module:
        return self._networks[name]

    def autocast(self) -> AbstractContextManager[None]:
        """The precision in which the networks run."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self._bfloat16)


def fold_batch_norms(network: nn.Module) -> nn.Module:
    """Makes each batch normalisation a part of the convolution before it, in place: the same function, in less time.

    Args:
        network: in evaluation mode.
    """
    for module in list(network.modules()):
        children = list(module.named_children())
        for (name, convolution), (norm_name, norm) in pairwise(children):
            if isinstance(convolution, nn.Conv2d | nn.ConvTranspose2d) and isinstance(norm, nn.BatchNorm2d):
                folded = fuse_conv_bn_eval(convolution, norm, transpose=isinstance(convolution, nn.ConvTranspose2d))
                setattr(module, name, folded)
                setattr(module, norm_name, nn.Identity())
    return network


def uses_bfloat16(precision: Precision, device: torch.device) -> bool:
    """Whether networks of this precision run in bfloat16 on this device, `Pretrained`'s and those in training."""
    if precision != "auto":
        return precision == "bfloat16"
    if device.type == "cpu":
        capabilities = torch.cpu.get_capabilities()
        return any(capabilities.get(name, False) for name in ("amx_bf16", "avx512_bf16"))
    if device.type != "cuda":
        return False
    with torch.cuda.device(device):  # which torch asks about
        return torch.cuda.is_bf16_supported(including_emulation=False)


def _weights_file(configuration: str, network: str, folder: Path | None) -> Path:
    if folder is not None:
        folder = Path(folder)
        for file in (folder / network / "weights.safetensors", folder / f"{network}.safetensors"):
            if file.is_file():
                return file
        raise WeightsError(
            f"there are no weights of the network {network!r} below {folder}: "
            f"train them with 'pifr train {network} --config {configuration} --data SHARDS --out {folder / network}'"
        )
    packaged = f"{configuration}-{network}"
    if packaged not in packaged_weights():
        raise WeightsError(
            f"the network {network!r} of the configuration {configuration!r} is not part of this installation: train "
            f"it with 'pifr train {network} --config {configuration} --data SHARDS --out FOLDER' and name the folder, "
            f"or choose options that do without it"
        )
    return packaged_file(packaged)
