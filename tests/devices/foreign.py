"""A device without hardware: shows on any machine what a GPU would refuse because tensors lie on different devices.

`register` adds the device "foreign" to torch (an open registration of the PrivateUse1 backend). Its tensors compute on
the CPU, so their results are the CPU's up to rounding, but torch and the code under test see another device: what mixes
its tensors with those of the CPU fails, where and as CUDA makes it fail, and numpy cannot read them.
Kernels, precision and speed of a real device are not shown.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import cache, partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils import backend_registration

NAME = "foreign"

_CROSSING = {"copy_", "_to_copy", "_copy_from", "_copy_from_and_resize"}
"""Operators that take tensors from one device to the other."""

_INDEXING = {"index", "_unsafe_index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index_put"}
"""Operators whose indices may lie on the CPU, wherever the indexed tensor lies."""

_SCALARS = {"fill", "fill_", "masked_fill", "masked_fill_", *_INDEXING}
"""Operators that take a value from the CPU if it has no axes, beside those that torch calls pointwise."""

_FACTORIES = (
    "arange",
    "arange.start",
    "arange.start_step",
    "eye",
    "eye.m",
    "linspace",
    "logspace",
    "randperm",
    "randperm.generator",
    "range",
    "range.step",
    "tril_indices",
    "triu_indices",
)
"""Operators that torch would compose of an empty tensor that is then resized, which `ForeignTensor` cannot be."""


class ForeignTensor(torch.Tensor):
    """A tensor on the device "foreign"; `_values` is the tensor on the CPU that it stands for."""

    _values: Tensor

    @staticmethod
    def __new__(cls, values: Tensor) -> "ForeignTensor":
        return torch.Tensor._make_wrapper_subclass(
            cls,
            values.shape,
            strides=values.stride(),
            storage_offset=values.storage_offset(),
            dtype=values.dtype,
            device=torch.device(NAME, 0),
        )

    def __init__(self, values: Tensor) -> None:
        self._values = values

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, op: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        return _compute(op, args, kwargs or {})

    def __repr__(self) -> str:
        return f"{self.cpu()!r} on {self.device}"

    @property
    def data(self) -> Tensor:
        return self.detach()

    @data.setter
    def data(self, other: "ForeignTensor") -> None:
        # Modules take on another memory format so.
        torch.Tensor.data.__set__(self, other)
        self._values = other._values

    def numpy(self, *, force: bool = False) -> np.ndarray:
        if not force:
            raise TypeError(f"can't convert {self.device} device type tensor to numpy. Use Tensor.cpu() first.")
        return self.detach().cpu().numpy()

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def __reduce_ex__(self, protocol: int) -> Any:
        # As torch.load(..., map_location="cpu") gives a tensor back.
        return self.detach().cpu().__reduce_ex__(protocol)


_LIBRARIES: list[torch.library.Library] = []  # definitions live as long as their library object


@cache
def register() -> torch.device:
    """The device "foreign", made known to this process: torch has no way to forget it again.

    Skips the test where this torch cannot have devices that are written in Python.
    """
    if not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"):
        pytest.skip("this torch takes no device that is written in Python")
    module = backend_registration._DummyBackendModule()  # `torch.foreign`
    module.get_amp_supported_dtype = lambda: [torch.bfloat16, torch.float16]
    backend_registration._setup_privateuseone_for_python_backend(NAME, backend_module=module)
    everything, aten = torch.library.Library("_", "IMPL"), torch.library.Library("aten", "IMPL")

    def called(op: Any, *args: Any, **kwargs: Any) -> Any:
        return _compute(op, args, kwargs)

    everything.fallback(called, "PrivateUse1")
    # A fallback is not asked while torch builds tensors from Python's numbers, and not where operators are composed.
    for name in ("copy_", *_FACTORIES):
        packet, _, overload = name.partition(".")
        op = getattr(getattr(torch.ops.aten, packet), overload or "default")
        aten.impl(name, partial(called, op), "PrivateUse1")
    _LIBRARIES.extend((everything, aten))
    return torch.device(NAME)


def _compute(op: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    """Calls an operator on the CPU for tensors of which one, or the result, is foreign."""
    if _is_composed(op):  # in inference mode, torch leaves that to us
        return op.decompose(*args, **kwargs)
    tensors = list(_tensors((*args, *kwargs.values())))
    foreign = {id(tensor._values): tensor for tensor in tensors if isinstance(tensor, ForeignTensor)}
    plain = [tensor for tensor in tensors if not isinstance(tensor, ForeignTensor)]
    device, stays = kwargs.get("device"), False
    generator = kwargs.get("generator")
    if generator is not None and generator.device.type == "cpu" and (foreign or device is not None):
        raise RuntimeError(f"Expected a '{NAME}' device type for generator but found 'cpu' ({op})")
    if foreign and plain:
        _check_strays(op, args, kwargs, plain)
    if device is not None:
        stays = torch.device(device).type == "cpu"
        kwargs = kwargs | {"device": torch.device("cpu")}
    result = op(*_each(_values, args), **_each(_values, kwargs))
    if op._schema.is_mutable:
        for tensor in foreign.values():
            if (tensor.shape, tensor.stride()) != (tensor._values.shape, tensor._values.stride()):
                raise NotImplementedError(f"{op} resizes a tensor in place, which foreign ones cannot be")
    changed = {id(tensor): tensor for tensor in plain} | foreign

    def placed(value: Tensor) -> Tensor:
        """A result on its device; what was changed in place is the argument itself."""
        if stays:
            return value
        if id(value) in changed:
            return changed[id(value)]
        if value.is_inference() == torch.is_inference_mode_enabled():
            return ForeignTensor(value)
        with torch.inference_mode(value.is_inference()):  # a view is what its base is, whatever mode it is made in
            return ForeignTensor(value)

    return _each(placed, result)


@cache
def _is_composed(op: Any) -> bool:
    return op.has_kernel_for_dispatch_key(torch._C.DispatchKey.CompositeImplicitAutograd)


def _check_strays(op: Any, args: tuple, kwargs: dict[str, Any], strays: list[Tensor]) -> None:
    """Raises what CUDA raises where tensors of the CPU (`strays`) meet foreign ones."""
    name, schema = op.overloadpacket.__name__, op._schema
    if name in _CROSSING:
        return
    if name in _INDEXING:
        if not isinstance(args[0], ForeignTensor):
            raise RuntimeError(f"indices should be either on cpu or on the same device as the indexed tensor ({op})")
        indices = {id(index) for index in args[1]}
        strays = [tensor for tensor in strays if id(tensor) not in indices]
    given = dict(zip((argument.name for argument in schema.arguments), args, strict=False)) | kwargs
    written = _tensors(
        given.get(argument.name)
        for argument in schema.arguments
        if argument.alias_info and argument.alias_info.is_write
    )
    changed = {id(tensor) for tensor in written}
    # One number may lie on the CPU, unless it is to be changed.
    scalars = (torch.Tag.pointwise in op.tags or name in _SCALARS) and len(strays) < 2
    if not all(scalars and not stray.ndim and id(stray) not in changed for stray in strays):
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but found at least two devices, {NAME}:0 and cpu! ({op})"
        )


def _values(value: Tensor) -> Tensor:
    return value._values if isinstance(value, ForeignTensor) else value


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


def _each(of_tensor: Callable[[Tensor], Tensor], value: Any) -> Any:
    """A value with each tensor in it replaced."""
    if isinstance(value, Tensor):
        return of_tensor(value)
    if isinstance(value, list | tuple):
        return type(value)([_each(of_tensor, item) for item in value])
    if isinstance(value, dict):
        return {key: _each(of_tensor, item) for key, item in value.items()}
    return value
