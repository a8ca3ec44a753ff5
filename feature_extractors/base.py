"""What a recognizer is, and the one place where its input is normalised."""

import hashlib
from dataclasses import dataclass
from math import isfinite
from numbers import Integral, Real
from typing import Literal, Protocol, get_args

import torch
from torch import Tensor, nn

from pifr.errors import ConfigError
from pifr.faces import AlignmentTemplate
from pifr.support.devices import inference, usable_device
from pifr.zoo import UserFile, WheelMember

Precision = Literal["float32", "bfloat16"]


_NARROWEST, _WIDEST = 0.1, 512.0
"""Of what a network sees, from black to white: mean and std on another scale than the values are an oversight."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecognizerConfig:
    """All that must be known of a recognizer to use it, and to say in a report what was used.

    A network sees `(low + x * (high - low) - mean) / std` of pixels x in [0, 1] in its own channel order.

    Attributes:
        name: what users type.
        input_size: side of its square input, in pixels.
        channels: the order that the network wants.
        value_range: what black and white become before `mean` and `std`.
        mean, std: one value, or one a channel; kept as tuples, whether given as such, as lists or as single numbers.
        alignment: where it wants the five landmarks; scaled to `input_size`.
        embedding_size: length of an embedding.
        parameters: number of trainable values without a classifier, as published; 0 if not known.
        licence: of the weights, as their publisher states it.
        origin: publication or place that the network and its input convention come from.
        weights: the file; None if there is none, because the caller or a registered builder brings the network.
        uses_yaw: whether `Recognizer.embed` looks at `yaw`.

    Raises:
        ValueError: a value makes no sense; names it.
    """

    name: str
    input_size: int
    alignment: AlignmentTemplate
    embedding_size: int
    licence: str
    origin: str
    channels: Literal["RGB", "BGR", "grey"] = "RGB"
    value_range: tuple[float, float] = (0.0, 1.0)
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    parameters: int = 0
    weights: WheelMember | UserFile | None = None
    uses_yaw: bool = False

    def __post_init__(self) -> None:
        if self.channels not in ("RGB", "BGR", "grey"):
            raise ValueError(f"recognizer {self.name!r}: channels is {self.channels!r}, not 'RGB', 'BGR' or 'grey'")
        for field in ("input_size", "embedding_size"):
            value = getattr(self, field)
            # 0 while the free size of an ONNX file is not known.
            if not isinstance(value, Integral) or isinstance(value, bool) or value < 0:
                raise ValueError(f"recognizer {self.name!r}: {field} is {value!r}, not a whole number")
        if not isinstance(self.alignment, AlignmentTemplate):
            raise ValueError(
                f"recognizer {self.name!r}: alignment is {self.alignment!r}, not an AlignmentTemplate such as "
                "pifr.faces.ARCFACE_112"
            )
        for field in ("mean", "std", "value_range"):
            value = getattr(self, field)
            value = tuple(value) if isinstance(value, list) else (value,) if isinstance(value, Real) else value
            if not isinstance(value, tuple) or not all(isinstance(x, Real) and isfinite(x) for x in value):
                raise ValueError(f"recognizer {self.name!r}: {field} is {value!r}, not a tuple of numbers")
            object.__setattr__(self, field, value)
        if len(self.value_range) != 2 or self.value_range[0] == self.value_range[1] or 0 in self.std:
            raise ValueError(f"recognizer {self.name!r}: value_range needs two different numbers, std none that is 0")
        low, high = sorted(self.value_range)
        for mean in self.mean:
            # Such a network would see an almost constant picture, and take everybody for one person.
            if not low - (high - low) <= mean <= high + (high - low):
                raise ValueError(
                    f"recognizer {self.name!r}: mean {mean:g} lies outside value_range ({low:g}, {high:g})"
                    + (": give value_range=(0, 255)" if 0 <= mean <= 255 else "")
                )
        allowed = (1,) if self.channels == "grey" else (1, 3)
        if len(self.mean) not in allowed or len(self.std) not in allowed:
            raise ValueError(f"recognizer {self.name!r}: mean and std need one value, or one a channel")
        widths = [(high - low) / abs(std) for std in self.std]
        if not _NARROWEST <= min(widths) <= max(widths) <= _WIDEST:
            raise ValueError(
                f"recognizer {self.name!r}: value_range {self.value_range} divided by std {self.std} is a range of "
                f"{min(widths):.3g} to {max(widths):.3g}, which no network is trained with: give both on one scale"
            )

    @property
    def input_settings(self) -> str:
        """All that `normalise` looks at, as a part of fingerprints."""
        return f"{self.channels}{self.value_range}{self.mean}{self.std}"

    def normalise(self, batch: Tensor) -> Tensor:
        """B x 3 x S x S float32 RGB in [0, 1] to what the network sees: B x C x S x S float32.

        Raises:
            ValueError: the batch has another shape or type.
        """
        wanted = (3, self.input_size, self.input_size)
        if batch.ndim != 4 or tuple(batch.shape[1:]) != wanted or batch.dtype != torch.float32:
            raise ValueError(
                f"recognizer {self.name!r} takes float32 B x {' x '.join(map(str, wanted))}, "
                f"not {batch.dtype} {' x '.join(map(str, batch.shape))}"
            )
        if self.channels == "BGR":
            batch = batch.flip(1)
        elif self.channels == "grey":
            luma = batch.new_tensor([0.299, 0.587, 0.114])  # ITU-R BT.601, as Pillow and OpenCV
            batch = (batch * luma[:, None, None]).sum(1, keepdim=True)
        low, high = self.value_range
        mean, std = (batch.new_tensor(value).view(1, -1, 1, 1) for value in (self.mean, self.std))
        return (low + batch * (high - low) - mean) / std


class Recognizer(Protocol):
    """Turns aligned faces into embeddings. Everything in `feature_extractors` is one."""

    config: RecognizerConfig
    fingerprint: str
    """Name, weight hash and input settings; two recognizers with one fingerprint give the same embeddings."""

    def embed(self, batch: Tensor, yaw: Tensor | None = None) -> Tensor:
        """Embeddings of a batch.

        Args:
            batch: B x 3 x S x S float32 RGB in [0, 1], aligned to `config.alignment` at S = `config.input_size`.
            yaw: B float32 in degrees, NaN where unknown; looked at only if `config.uses_yaw`. Of a mirror image it is
                that before it was mirrored: only |yaw| says how far the face on it is turned.

        Returns:
            B x D float32 on the device of `batch`, compared by the cosine; not normalised.
        """
        ...


class ModuleRecognizer:
    """Any torch network as a recognizer.

    Args:
        network: takes what `config.normalise` gives (and yaw, B degrees without NaN, if `config.uses_yaw`), in its
            parameters' dtype; returns B x D. It is moved to the device and put into evaluation mode, by `embed` again
            if it is found in training mode, where embeddings would depend on the batch and change its statistics.
        config: its input and its name.
        fingerprint: name and weight hash, to which the input settings are added; by default a hash of all parameters
            and buffers is taken. It does not see the network's code: give one where that alone changes.
        device: where it runs.
        precision: "bfloat16" runs it under autocast, about twice as fast on CPUs with AMX and on GPUs.

    Raises:
        ConfigError: the device cannot be used here.
    """

    def __init__(
        self,
        network: nn.Module,
        config: RecognizerConfig,
        fingerprint: str | None = None,
        device: str | torch.device = "cpu",
        precision: Precision = "float32",
    ) -> None:
        self.config = config
        if precision not in get_args(Precision):
            raise ValueError(f"recognizer {config.name!r}: precision is {precision!r}, not 'float32' or 'bfloat16'")
        if not isinstance(network, nn.Module):
            raise TypeError(
                f"recognizer {config.name!r}: the network is a {type(network).__name__}, not a torch module"
            )
        self.device = usable_device(device)
        self.network = network.eval().to(self.device)
        self.precision = precision
        floats = (value.dtype for value in network.parameters() if value.is_floating_point())
        self._dtype = next(floats, torch.float32)  # networks in half or double precision are shown their own kind
        weights = fingerprint or f"{config.name}-{_state_sha256(network)[:16]}"
        self.fingerprint = f"{weights}-{config.input_settings}{'-yaw' if config.uses_yaw else ''}"
        if precision != "float32":
            self.fingerprint += f"-{precision}"

    @inference()
    def embed(self, batch: Tensor, yaw: Tensor | None = None) -> Tensor:
        if not len(batch):
            return batch.new_zeros(0, self.config.embedding_size)
        if self.network.training:
            self.network.eval()
        inputs = [self.config.normalise(batch.to(self.device)).to(self._dtype)]
        if self.config.uses_yaw:
            yaw = batch.new_zeros(len(batch)) if yaw is None else yaw
            inputs.append(yaw.to(self.device, self._dtype).nan_to_num(0.0))
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            features = self.network(*inputs)
        wanted = (len(batch), self.config.embedding_size)
        if not isinstance(features, Tensor) or tuple(features.shape) != wanted:
            found = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
            raise ValueError(f"the network of {self.config.name!r} returns {found}, not a tensor {wanted}")
        return features.float().to(batch.device)

    def embed_with_gradients(self, batch: Tensor) -> Tensor:
        """As `embed`, for training what makes the images: gradients reach the batch, and the network unless frozen.

        The recognizer moves to the batch's device, and runs in the precision of the caller's autocast. There is no yaw:
        networks that look at one are not for this.
        """
        self.device = batch.device
        network = self.network.to(self.device).eval()
        return network(self.config.normalise(batch).to(self._dtype))

    def activations(self, batch: Tensor, layer: str) -> Tensor:
        """What a layer gives for a batch, float32 of the layer's shape; gradients and device as `embed_with_gradients`.

        What lies behind the layer is not computed.

        Args:
            batch: as `embed` takes it.
            layer: its name among `network.named_modules()`.

        Raises:
            ConfigError: the network has no such layer, or does not pass through it.
        """
        modules = dict(self.network.named_modules())
        if layer not in modules:
            names = ", ".join(filter(None, modules))
            raise ConfigError(f"recognizer {self.config.name!r} has no layer {layer!r}; it has {names}")

        class Reached(Exception):
            """Carries the layer's output."""

        def stop(module: nn.Module, inputs: object, output: Tensor) -> None:
            raise Reached(output)

        hook = modules[layer].register_forward_hook(stop)
        try:
            self.embed_with_gradients(batch)
        except Reached as reached:
            return reached.args[0].float()
        finally:
            hook.remove()
        raise ConfigError(f"recognizer {self.config.name!r} does not pass through its layer {layer!r}")


def _state_sha256(network: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        digest.update(name.encode())
        if not isinstance(tensor, Tensor):  # quantised layers keep types, and weights packed with their scales
            digest.update(repr(tensor).encode())
            continue
        if tensor.is_quantized:
            tensor = tensor.dequantize()
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
