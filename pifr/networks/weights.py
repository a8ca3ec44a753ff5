"""Weights files: safetensors in half precision that carry the configuration of their network.

The metadata of a file holds `config` (JSON of the network's configuration) beside whatever the training run adds, so a
file can be loaded without knowing what is in it.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from pifr.errors import CheckpointError
from pifr.networks.config import NetworkConfig
from pifr.networks.discriminator import Discriminator
from pifr.networks.inpainting import InpaintingNetwork
from pifr.networks.pncc import PnccNetwork
from pifr.networks.segmentation import SegmentationNetwork
from pifr.networks.shape import CoarseShapeNetwork, FineShapeNetwork
from pifr.support.files import write_whole

_NETWORKS = {
    "segmentation": SegmentationNetwork,
    "pncc": PnccNetwork,
    "inpainting": InpaintingNetwork,
    "discriminator": Discriminator,
    "shape-coarse": CoarseShapeNetwork,
    "shape-fine": FineShapeNetwork,
}


def build_network(config: NetworkConfig) -> nn.Module:
    """The untrained network that a configuration describes."""
    return _NETWORKS[config.network](config)


def save_network(network: nn.Module, path: Path, metadata: Mapping[str, str]) -> None:
    """Writes a network's weights in half precision, atomically.

    Running statistics of batch normalisation and fixed buffers such as the mean shape keep float32: they are small, and
    their range is not bounded.

    Args:
        network: one of this package's networks; it is left as it is.
        path: the safetensors file to write.
        metadata: strings to keep with the weights; `config` is added.
    """
    halved = {name for name, _ in network.named_parameters()}
    tensors = {
        name: (tensor.half() if name in halved else tensor).detach().cpu().contiguous()
        for name, tensor in network.state_dict().items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    described = {**metadata, "config": network.config.model_dump_json()}
    write_whole(path, lambda whole: save_file(tensors, whole, described))


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata of a weights file.

    Raises:
        CheckpointError: if the file is missing or not a weights file of pifr.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read as a weights file: {error}") from error
    if "config" not in metadata:
        raise CheckpointError(f"{path} carries no configuration: it was not written by pifr")
    return metadata


def load_network(path: Path, device: torch.device | str = "cpu") -> nn.Module:
    """Builds the network that a weights file describes and loads it, in float32 and evaluation mode.

    Raises:
        CheckpointError: if the file is missing, damaged, not from pifr, or does not fit its own configuration.
    """
    try:
        config = TypeAdapter(NetworkConfig).validate_json(read_metadata(path)["config"])
    except ValidationError as error:
        raise CheckpointError(f"{path} holds a configuration of another version of pifr: {error}") from error
    with torch.device("meta"):  # random weights would take time, and numbers from the caller's generator
        network = build_network(config)
    network = network.float().to_empty(device="cpu")
    load_weights(network, path)
    return network.to(device).eval()


def load_weights(network: nn.Module, path: Path) -> None:
    """Copies a file's weights into a network of the same shape.

    Raises:
        CheckpointError: if the file cannot be read or its tensors do not fit.
    """
    read_metadata(path)
    with safe_open(path, framework="pt") as file:
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise CheckpointError(f"{path} does not fit the network: {error}") from error
