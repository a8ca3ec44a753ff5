"""Recognizers in ONNX form, run by onnxruntime: SFace, and files of the user's own."""

import hashlib
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from feature_extractors.base import Precision, RecognizerConfig
from feature_extractors.registry import register
from pifr.errors import CheckpointError, ConfigError
from pifr.faces import ARCFACE_112, AlignmentTemplate
from pifr.zoo import ZOO


class OnnxRecognizer:
    """A network in ONNX form as a recognizer.

    Args:
        model: the file's content, as `read_model` repairs it.
        config: its input and its name.
        fingerprint: name and weight hash, to which the input settings are added.
        device: "cuda" needs onnxruntime-gpu.
    """

    def __init__(
        self, model: bytes, config: RecognizerConfig, fingerprint: str, device: str | torch.device = "cpu"
    ) -> None:
        self.config = config
        self.fingerprint = f"{fingerprint}-{config.input_settings}"
        self.device = torch.device(device)
        self._provider = self._find_provider()
        self._model = model

    @cached_property
    def _session(self):  # type: ignore[no-untyped-def]  # onnxruntime has no types
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3  # errors; the int8 file has unused initialisers
        where = {"device_id": self.device.index or 0} if self.device.type == "cuda" else {}
        return onnxruntime.InferenceSession(self._model, options, providers=[(self._provider, where)])

    def _find_provider(self) -> str:
        import onnxruntime

        provider = "CUDAExecutionProvider" if self.device.type == "cuda" else "CPUExecutionProvider"
        if provider not in onnxruntime.get_available_providers():
            raise ConfigError(f"device {self.device} for {self.config.name!r}: install onnxruntime-gpu, or use 'cpu'")
        return provider

    def embed(self, batch: Tensor, yaw: Tensor | None = None) -> Tensor:
        if not len(batch):
            return batch.new_zeros(0, self.config.embedding_size)
        inputs = self.config.normalise(batch.detach().cpu()).numpy()
        (features,) = self._session.run(None, {self._session.get_inputs()[0].name: inputs})
        return torch.from_numpy(np.asarray(features, np.float32)).to(batch.device)

    def __getstate__(self) -> dict[str, object]:
        # A session cannot be sent to a worker process; it makes its own.
        return {name: value for name, value in self.__dict__.items() if name != "_session"}


def read_model(file: Path):  # type: ignore[no-untyped-def]  # onnx has no types
    """Read an ONNX file and make it run with batches of any size.

    SFace's int8 file also lists among the graph's inputs its weights, and names that nothing reads since the weights
    are int8; onnxruntime then refuses to load it. They are taken off that list. A fixed batch size becomes a free one.

    Returns:
        onnx.ModelProto with one input and one output, B x C x S x S -> B x D.

    Raises:
        CheckpointError: not an ONNX file, or not a network of that form.
    """
    import onnx

    try:
        model = onnx.load(file)
        graph = model.graph
        weights = {weight.name for weight in graph.initializer}
        read = {name for node in graph.node for name in node.input}
        inputs = [value for value in graph.input if value.name in read - weights]
    except Exception as error:  # protobuf's errors have no common base
        raise CheckpointError(f"'{file}' is not an ONNX file: {error}") from error
    if not _is_recognizer(inputs, list(graph.output)):
        raise CheckpointError(
            f"'{file}' is not a recognizer: it needs one float32 input B x C x S x S (C is 1 or 3) and one output "
            f"B x D, and has {', '.join(map(_described, inputs))} -> {', '.join(map(_described, graph.output))}"
        )
    del graph.input[:]
    graph.input.extend(inputs)
    del graph.value_info[:]  # they may repeat the fixed batch size
    for value in (graph.input[0], graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    return model


def _is_recognizer(inputs: list, outputs: list) -> bool:  # type: ignore[type-arg]  # onnx has no types
    if len(inputs) != 1 or len(outputs) != 1 or len(_shape(inputs[0])) != 4 or len(_shape(outputs[0])) != 2:
        return False
    _, channels, height, width = _shape(inputs[0])
    float32 = 1  # onnx.TensorProto.FLOAT
    return channels in (0, 1, 3) and height == width and inputs[0].type.tensor_type.elem_type == float32


def _shape(value) -> list[int]:  # type: ignore[no-untyped-def]
    """Dimensions of a graph's input or output, 0 where free."""
    return [dimension.dim_value for dimension in value.type.tensor_type.shape.dim]


def _described(value) -> str:  # type: ignore[no-untyped-def]
    import onnx

    kind = onnx.TensorProto.DataType.Name(value.type.tensor_type.elem_type).lower()
    return f"{kind} {' x '.join(str(side or '?') for side in _shape(value))}"


def read_config(file: Path, model) -> RecognizerConfig:  # type: ignore[no-untyped-def]
    """The configuration of a user's ONNX file.

    Sizes are read from the file. The rest is what InsightFace's files want (RGB, -1..1, ArcFace's template) unless a
    file of the same name with the suffix .yaml or .yml says otherwise; it may hold the keys `channels`, `value_range`,
    `mean`, `std`, `licence` and `origin` of `RecognizerConfig`, `alignment`, a table of `AlignmentTemplate`'s, and
    `input_size` where the network takes any.

    Raises:
        ConfigError: the YAML file has another key or a wrong value, or there is no input size; says which.
    """
    _, channels, size, _ = _shape(model.graph.input[0])
    _, length = _shape(model.graph.output[0])
    config = RecognizerConfig(
        name=f"onnx:{file.name}",
        input_size=size,
        alignment=ARCFACE_112,
        embedding_size=length,
        channels="grey" if channels == 1 else "RGB",
        mean=(0.5,),
        std=(0.5,),
        licence="the user's own",
        origin=str(file),
    )
    sidecar = next((path for s in (".yaml", ".yml") if (path := file.with_suffix(s)).is_file()), None)
    if sidecar is not None:
        config = _changed_by(config, sidecar)
    if size and config.input_size != size:
        raise ConfigError(f"'{sidecar}': input_size is {config.input_size}, but '{file}' takes {size} alone")
    if not config.input_size:
        raise ConfigError(
            f"'{file}' takes faces of any size: write 'input_size: 112', or what it was trained with, into "
            f"'{file.with_suffix('.yaml')}'"
        )
    return config


def _changed_by(config: RecognizerConfig, sidecar: Path) -> RecognizerConfig:
    import yaml

    try:
        changes = yaml.safe_load(sidecar.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"'{sidecar}' is not YAML: {error}") from error
    allowed = {"channels", "value_range", "mean", "std", "licence", "origin", "alignment", "input_size"}
    if not isinstance(changes, dict) or (unknown := set(changes) - allowed):
        wrong = f"unknown key {sorted(unknown)[0]!r}" if isinstance(changes, dict) else "not a table of keys"
        raise ConfigError(f"'{sidecar}': {wrong}; there are {', '.join(sorted(allowed))}")
    try:
        if "alignment" in changes:
            alignment = changes["alignment"]
            if not isinstance(alignment, dict) or set(alignment) != {"name", "size", "points"}:
                raise ValueError("alignment is a table of name, size and points")
            changes["alignment"] = AlignmentTemplate(**alignment | {"points": tuple(map(tuple, alignment["points"]))})
        return replace(config, **changes)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"'{sidecar}': {error}") from error


def load_onnx(file: Path | str, device: str | torch.device = "cpu") -> OnnxRecognizer:
    """The recognizer in a user's ONNX file, tried on two black faces; raises CheckpointError or ConfigError."""
    file = Path(file)
    if not file.is_file():
        raise CheckpointError(f"'{file}' is no file" if file.exists() else f"'{file}' does not exist")
    model = read_model(file)
    config = read_config(file, model)
    content = model.SerializeToString()
    recognizer = OnnxRecognizer(content, config, f"onnx-{_digest(content)}", device)
    try:
        tried = recognizer.embed(torch.zeros(2, 3, config.input_size, config.input_size, dtype=torch.float32))
    except Exception as error:  # onnxruntime's errors have no common base
        raise CheckpointError(f"'{file}' cannot run a batch of two {config.channels} faces: {error}") from error
    recognizer.config = replace(config, embedding_size=tried.shape[1])
    return recognizer


SFACE = RecognizerConfig(
    name="sface",
    input_size=112,
    alignment=ARCFACE_112,
    embedding_size=128,
    value_range=(0.0, 255.0),
    licence=ZOO["sface"].licence,
    origin="Zhong et al.: SFace, TIP 2021; OpenCV Zoo, int8",
    weights=ZOO["sface"],
)


@register(SFACE)
def load_sface(
    config: RecognizerConfig, file: Path, device: str | torch.device, precision: Precision
) -> OnnxRecognizer:
    return load_onnx_as(config, file, device)


def load_onnx_as(config: RecognizerConfig, file: Path, device: str | torch.device) -> OnnxRecognizer:
    """The network of an ONNX file under a known configuration; raises CheckpointError if its sizes are others."""
    model = read_model(file)
    (_, channels, size, _), (_, length) = _shape(model.graph.input[0]), _shape(model.graph.output[0])
    wanted = (1 if config.channels == "grey" else 3, config.input_size, config.embedding_size)
    found = tuple(value or known for value, known in zip((channels, size, length), wanted, strict=True))
    if found != wanted:
        raise CheckpointError(
            f"'{file}' does not fit {config.name!r}: channels, input size and embedding size are {found}, not {wanted}"
        )
    content = model.SerializeToString()
    return OnnxRecognizer(content, config, f"{config.name}-{_digest(content)}", device)


def _digest(content: bytes) -> str:
    """Of all that runs, weights that lie in a file of their own beside the model included."""
    return hashlib.sha256(content).hexdigest()[:16]
