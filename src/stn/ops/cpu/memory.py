"""Memory for large results, used again once nothing refers to them.

The first touch of each page of fresh memory is a trap into the kernel, and the C library gives large blocks back as soon as
they are free: a training step would pay for the same pages again and again. Forward at 8x64x56x56, channels last: 0.7 ms of
sampling, 2 ms of traps. So a pool keeps the storages of the latest large results, of KEPT bytes at most, whether somebody
still uses them or not. A new result takes a storage of its size that only the pool refers to.

The storages come from torch's own allocator, so the caller can resize, share or replace them like any other. The pool
passes on no storage that another process can reach, or that torch no longer resizes because somebody called
`Tensor.numpy()`: the kernels themselves make their arrays with `flat`.
"""

from __future__ import annotations

import math
import sys
import threading
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stn.ops.layout import order_of
from stn.ops.torch_private import storage_use_count

LEAST = 1 << 20  # bytes of a result that goes through the pool: the C library keeps smaller blocks itself
KEPT = 1 << 28  # bytes in the pool at most: the oldest storages leave first

KINDS = {torch.float32: np.dtype(np.float32).str, torch.float64: np.dtype(np.float64).str}

_pool: list[torch.UntypedStorage] = []  # the latest is the last
_lock = threading.Lock()


def empty_permuted(shape: Sequence[int], order: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Do the same as torch.empty_permuted on the CPU, with memory of the pool."""
    return empty_strided(tuple(shape), strides(shape, order), dtype)


def strides(shape: Sequence[int], order: Sequence[int]) -> tuple[int, ...]:
    """Return the strides of a dense tensor whose axes have this order, the slowest first."""
    found, step = [0] * len(shape), 1
    for axis in reversed(order):
        found[axis], step = step, step * max(shape[axis], 1)
    return tuple(found)


def empty_strided(
    shape: tuple[int, ...], strides: tuple[int, ...], dtype: torch.dtype, device: torch.device | str = "cpu"
) -> Tensor:
    """Do the same as torch.empty_strided for a dense tensor on the CPU, with memory of the pool."""
    nbytes = math.prod(shape) * dtype.itemsize
    # Nobody waits for the lock: the garbage collector can run a destructor that samples, in the thread that holds it.
    if not LEAST <= nbytes <= KEPT or storage_use_count is None or not _lock.acquire(blocking=False):
        return torch.empty_strided(shape, strides, dtype=dtype, device=device)
    try:
        # set_, not a view: forward-mode autograd refuses a view as the result of a Function.
        return torch.empty(0, dtype=dtype, device=device).set_(_storage(nbytes), 0, shape, strides)
    finally:
        _lock.release()


def new_image(like: Tensor, size: tuple[int, ...], last: bool) -> Tensor:
    """Make an uninitialized tensor of another size, with the same numbers of images and channels."""
    return empty_permuted((*like.shape[:2], *size), order_of(like.ndim - 2, 1, last), like.dtype)


def flat(tensor: Tensor, last: bool = False) -> Any:
    """View (N, C, *in) as one array of numbers: planes one after the other, or channels last.

    Through NumPy's array interface, because `Tensor.numpy()` would forbid torch to resize the storage ever again.
    """
    tensor = (tensor.movedim(1, -1) if last else tensor).reshape(-1)
    numbers: Any = _Numbers()
    numbers.tensor = tensor
    place = {"version": 3, "shape": tensor.shape, "typestr": KINDS[tensor.dtype], "data": (tensor.data_ptr(), False)}
    numbers.__array_interface__ = place
    return np.asarray(numbers)


class _Numbers:
    """The memory of a tensor, which lives as long as the array."""

    __slots__ = ("__array_interface__", "tensor")


def _storage(nbytes: int) -> torch.UntypedStorage:
    """Return an unused storage of this size, from the pool or new. Only with the lock."""
    for i in reversed(range(len(_pool))):  # the latest may still be in a cache
        if _pool[i].nbytes() == nbytes and _is_unused(i):
            _pool.append(_pool.pop(i))
            return _pool[-1]
    _pool[:] = [storage for storage in _pool if _is_ordinary(storage)]
    _pool.append(torch.UntypedStorage(nbytes, device="cpu"))
    # max: the caller may have emptied a storage, and the pool must not become long.
    while sum(max(storage.nbytes(), LEAST) for storage in _pool) > KEPT:
        del _pool[0]
    return _pool[-1]


def _is_unused(i: int) -> bool:
    """Return True if only the pool refers to its storage i: no tensor in C++, and no variable in Python.

    `sys.getrefcount` counts the list and its own argument.
    """
    assert storage_use_count is not None
    alone = storage_use_count(_pool[i]._cdata) == 1 and sys.getrefcount(_pool[i]) == 2
    return alone and weakref.getweakrefcount(_pool[i]) == 0 and _is_ordinary(_pool[i])


def _is_ordinary(storage: torch.UntypedStorage) -> bool:
    return storage.resizable() and not storage.is_shared()


# ---- the kernels' own ----


LINE = 64  # bytes of a cache line


class Block:
    """Memory for the tiles of a call."""

    def __init__(self, nbytes: int) -> None:
        self.nbytes, self.numbers = nbytes, np.empty(nbytes + LINE, np.uint8)
        self.address = -(-self.numbers.ctypes.data // LINE) * LINE


class _Own(threading.local):
    block = Block(0)


own = _Own()  # each thread's


def block(nbytes: int) -> Block:
    """This thread's, as large as its largest call asked for. The caller holds it until the kernel has ended: a destructor
    that the garbage collector runs meanwhile may sample too, and put a larger one in its place."""
    if own.block.nbytes < nbytes:
        own.block = Block(nbytes)
    return own.block
