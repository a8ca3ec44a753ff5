"""Recognizers in ONNX form, run by onnxruntime: SFace, and files of the user's own."""

import hashlib
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from feature_extractors.base import Precision, RecognizerConfig
from feature_extractors.registry import register
from pifr.errors import CheckpointError, ConfigError
from pifr.geometry.alignment import ARCFACE_112, TEMPLATES, AlignmentTemplate
from pifr.zoo import ZOO

_CHANNELS = (1, 3)
"""Grey and colour. An input whose last axis has that length is B x S x S x C, as TensorFlow's are."""

_LAYERS = ("Conv", "QLinearConv", "Gemm", "MatMul")
"""Beginnings of the operators before which a graph may normalise its input."""

_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
"""Of inputs, as onnxruntime calls them."""


class OnnxRecognizer:
    """A network in ONNX form as a recognizer.

    Args:
        model: the file's content, as `read_model` repairs it.
        config: its input and its name.
        fingerprint: name and weight hash, to which the input settings are added.
        device: "cuda" needs onnxruntime-gpu.

    Attributes:
        one_by_one: whether faces are run singly, as a batch size of 1 that is part of the network asks for.
    """

    def __init__(
        self, model: bytes, config: RecognizerConfig, fingerprint: str, device: str | torch.device = "cpu"
    ) -> None:
        self.config = config
        self.fingerprint = f"{fingerprint}-{config.input_settings}"
        self.device = torch.device(device)
        self.one_by_one = False
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
        inputs = self.config.normalise(batch.detach().cpu())
        features = [self._run(faces) for faces in inputs.split(1 if self.one_by_one else len(inputs))]
        return torch.from_numpy(np.concatenate(features)).to(batch.device)

    def try_out(self) -> None:
        """Runs two black faces, which tells the embedding's length and whether faces have to be run one by one.

        Raises:
            CheckpointError: neither two faces can be run at once nor one.
        """
        import onnxruntime

        quiet = onnxruntime.RunOptions()
        quiet.log_severity_level = 4  # or onnxruntime would print what is dealt with here
        faces = self.config.normalise(torch.zeros(2, 3, *[self.config.input_size] * 2, dtype=torch.float32))
        errors: list[Exception] = []
        for count in (2, 1):
            try:
                features = self._run(faces[:count], quiet)
                if features.ndim != 2 or len(features) != count:
                    raise ValueError(f"{count} faces gave {' x '.join(map(str, features.shape))}")
            except Exception as error:  # onnxruntime's errors have no common base
                errors.append(error)
                continue
            self.one_by_one = count == 1
            self.config = replace(self.config, embedding_size=features.shape[1])
            return
        raise CheckpointError(
            f"{self.config.name!r} can run neither two {self.config.channels} faces at once nor one: {errors[0]}"
        ) from errors[0]

    def _run(self, faces: Tensor, options=None) -> np.ndarray:  # type: ignore[no-untyped-def]
        """B x C x S x S float32, normalised, to B x D float32."""
        wanted = self._session.get_inputs()[0]
        if wanted.shape[-1] in _CHANNELS:
            faces = faces.permute(0, 2, 3, 1)
        given = faces.contiguous().numpy().astype(_TYPES[wanted.type], copy=False)
        (features,) = self._session.run(None, {wanted.name: given}, options)
        return np.asarray(features, np.float32)

    def __getstate__(self) -> dict[str, object]:
        # A session cannot be sent to a worker process; it makes its own.
        return {name: value for name, value in self.__dict__.items() if name != "_session"}


def read_model(file: Path):  # type: ignore[no-untyped-def]  # onnx has no types
    """Read an ONNX file and make it run with batches of any size.

    SFace's int8 file also lists among the graph's inputs its weights, and names that nothing reads since the weights
    are int8; onnxruntime then refuses to load it. They are taken off that list. A fixed batch size becomes a free one.

    Returns:
        onnx.ModelProto with one input and one output, B x C x S x S or B x S x S x C -> B x D.

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
            f"'{file}' is not a recognizer: it needs one float32 or float16 input B x C x S x S or B x S x S x C (C is "
            f"1 or 3) and one output B x D, and has {', '.join(map(_described, inputs))} -> "
            f"{', '.join(map(_described, graph.output))}: wrap it by python:FILE.py:FUNCTION"
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
    from onnx import TensorProto

    channels, height, width = _face(inputs[0])
    kind = inputs[0].type.tensor_type.elem_type
    return channels in (0, *_CHANNELS) and height == width and kind in (TensorProto.FLOAT, TensorProto.FLOAT16)


def _face(value) -> tuple[int, int, int]:  # type: ignore[no-untyped-def]
    """Channels, height and width of a graph's input, 0 where free."""
    _, *sides = _shape(value)
    channels, height, width = (sides[2], *sides[:2]) if sides[2] in _CHANNELS else sides
    return channels, height, width


def _shape(value) -> list[int]:  # type: ignore[no-untyped-def]
    """Dimensions of a graph's input or output, 0 where free."""
    return [dimension.dim_value for dimension in value.type.tensor_type.shape.dim]


def _described(value) -> str:  # type: ignore[no-untyped-def]
    import onnx

    kind = onnx.TensorProto.DataType.Name(value.type.tensor_type.elem_type).lower()
    return f"{kind} {' x '.join(str(side or '?') for side in _shape(value))}"


def read_config(file: Path, model) -> RecognizerConfig:  # type: ignore[no-untyped-def]
    """The configuration of a user's ONNX file.

    Sizes are read from the file. The rest is what InsightFace's files want (RGB, ArcFace's template, -1..1, or 0..255
    for a graph that begins by subtracting and scaling, 0..1 if by less than 2) unless a file of the same name with the
    suffix .yaml or .yml says otherwise; it may hold the keys `channels`, `value_range`, `mean`, `std`, `licence` and
    `origin` of `RecognizerConfig`, `alignment`, one of `TEMPLATES` or a table of `AlignmentTemplate`'s, and
    `input_size` where the network takes any.

    Raises:
        ConfigError: the YAML file has another key or a wrong value, or there is no input size; says which.
    """
    channels, size, _ = _face(model.graph.input[0])
    _, length = _shape(model.graph.output[0])
    config = RecognizerConfig(
        name=f"onnx:{file.name}",
        input_size=size,
        alignment=ARCFACE_112,
        embedding_size=length,
        channels="grey" if channels == 1 else "RGB",
        licence="the user's own",
        origin=str(file),
        **_scaling(model.graph),
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


def _scaling(graph) -> dict[str, tuple[float, ...]]:  # type: ignore[no-untyped-def]
    """What a graph wants pixels to be: -1..1, unless it subtracts and scales before its first layer.

    It then takes 0..255, or 0..1 if what it subtracts is of that size.
    """
    from onnx import numpy_helper

    constants = {weight.name: weight for weight in graph.initializer}
    constants |= {node.output[0]: node.attribute[0].t for node in graph.node if node.op_type == "Constant"}
    subtracted, scales = 0.0, False
    for node in graph.node:
        if node.op_type.startswith(_LAYERS):
            break
        if node.op_type == "Sub" and node.input[1] in constants:
            subtracted = float(np.abs(numpy_helper.to_array(constants[node.input[1]])).max())
        scales |= node.op_type in ("Mul", "Div")
    if not (subtracted and scales):
        return {"mean": (0.5,), "std": (0.5,)}
    return {"value_range": (0.0, 255.0 if subtracted > 2 else 1.0)}


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
            if isinstance(alignment, str):
                if alignment not in TEMPLATES:
                    raise ValueError(f"there is no alignment {alignment!r}, but {', '.join(TEMPLATES)}")
                alignment = asdict(TEMPLATES[alignment])
            if not isinstance(alignment, dict) or set(alignment) != {"name", "size", "points"}:
                raise ValueError("alignment is a table of name, size and points")
            changes["alignment"] = AlignmentTemplate(**alignment | {"points": tuple(map(tuple, alignment["points"]))})
        return replace(config, **changes)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"'{sidecar}': {error}") from error


def load_onnx(file: Path | str, device: str | torch.device = "cpu") -> OnnxRecognizer:
    """The recognizer in a user's ONNX file, tried on black faces; raises CheckpointError or ConfigError."""
    file = Path(file)
    if not file.is_file():
        raise CheckpointError(f"'{file}' is no file" if file.exists() else f"'{file}' does not exist")
    model = read_model(file)
    config = read_config(file, model)
    content = model.SerializeToString()
    recognizer = OnnxRecognizer(content, config, f"onnx-{_digest(content)}", device)
    recognizer.try_out()
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
    (channels, size, _), (_, length) = _face(model.graph.input[0]), _shape(model.graph.output[0])
    wanted = (1 if config.channels == "grey" else 3, config.input_size, config.embedding_size)
    found = tuple(value or known for value, known in zip((channels, size, length), wanted, strict=True))
    if found != wanted:
        raise CheckpointError(
            f"'{file}' does not fit {config.name!r}: channels, input size and embedding size are {found}, not {wanted}"
        )
    content = model.SerializeToString()
    recognizer = OnnxRecognizer(content, config, f"{config.name}-{_digest(content)}", device)
    recognizer.try_out()
    return recognizer


def _digest(content: bytes) -> str:
    """Of all that runs, weights that lie in a file of their own beside the model included."""
    return hashlib.sha256(content).hexdigest()[:16]
