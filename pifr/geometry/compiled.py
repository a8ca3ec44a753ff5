"""Compiled loops (numba) beside torch operations: when they may be used, and running them on all threads.

Where torch would write a dozen intermediate maps of a whole batch to memory, a loop over images keeps them in the
processor's cache. Every such loop stands beside torch operations that give the same result, on other devices, for
gradients and for ONNX.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numba
import torch
from torch import Tensor


def compiled(function: Callable[..., Any] | None = None, **options: Any) -> Any:
    """Decorator: compiles a loop at its first call, and keeps the result beside the source or in the user's cache.

    Where neither can be written (a read-only image run by an unknown user), each process compiles for itself.

    Args:
        function: the loop.
        options: of `numba.njit`.
    """
    if function is None:
        return partial(compiled, **options)
    try:
        return numba.njit(function, cache=True, **options)
    except RuntimeError:  # there is no place for the cache
        return numba.njit(function, **options)


def compilable(*tensors: Tensor) -> bool:
    """Whether loops may read these tensors: float32 on the CPU, no gradient is wanted, no graph is being traced."""
    return not torch.jit.is_tracing() and all(
        tensor.device.type == "cpu"
        and tensor.dtype == torch.float32
        and not (tensor.requires_grad and torch.is_grad_enabled())
        for tensor in tensors
    )


def over_images(loop: Callable[..., None], count: int, *arguments: Any) -> None:
    """Calls `loop(first, last, *arguments)` for ranges that make up `count` images; tensors are passed as arrays.

    Args:
        loop: must release the interpreter; as many threads run it as torch itself would use.
        count: images.
        arguments: what the loop needs; tensors need not be contiguous, but results must be.
    """
    arrays = [item.detach().contiguous().numpy() if isinstance(item, Tensor) else item for item in arguments]
    threads = min(torch.get_num_threads(), count)
    if threads < 2:
        loop(0, count, *arrays)
        return
    bounds = [count * k // threads for k in range(threads + 1)]
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda first, last: loop(first, last, *arrays), bounds[:-1], bounds[1:]))
