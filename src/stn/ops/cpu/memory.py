"""Memory for large results, handed on from those that are no more.

The first touch of each page of fresh memory is a trap into the kernel, and the C library gives large blocks back as soon as
they are free: a training step would pay for the same pages again and again. Forward at 8x64x56x56, channels last: 0.7 ms of
sampling, 2 ms of traps. So a result of a megabyte or more takes the block of an earlier one of its size, once nothing refers
to that one any more. At most KEPT bytes wait for this, on large pages where Linux has them.
"""

from __future__ import annotations

import math
import mmap
import weakref
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from stn.ops.layout import order_of

LEAST = 1 << 20  # bytes of a result for which this is done: below, the C library keeps memory itself
KEPT = 1 << 28  # bytes that wait at most: the oldest go first

_waiting: list[mmap.mmap] = []


def empty_permuted(shape: Sequence[int], order: Sequence[int], dtype: torch.dtype) -> Tensor:
    """As torch.empty_permuted."""
    nbytes = math.prod(shape) * dtype.itemsize
    if nbytes < LEAST or not hasattr(mmap, "MAP_ANONYMOUS"):
        return torch.empty_permuted(tuple(shape), tuple(order), dtype=dtype, device="cpu")
    block = _take(-(-nbytes // mmap.PAGESIZE) * mmap.PAGESIZE)
    owner = np.frombuffer(block, np.uint8, nbytes)  # lives as long as the tensor's storage
    weakref.finalize(owner, _give_back, block).atexit = False
    strides = torch.empty_permuted(tuple(shape), tuple(order), dtype=dtype, device="meta").stride()
    # set_, not a view: forward-mode autograd refuses a view as the result of a Function.
    return torch.empty(0, dtype=dtype, device="cpu").set_(
        torch.from_numpy(owner).untyped_storage(), 0, tuple(shape), strides
    )


def new_image(like: Tensor, size: tuple[int, ...], last: bool) -> Tensor:
    """As many images and channels of another size, not yet filled."""
    return empty_permuted((*like.shape[:2], *size), order_of(like.ndim - 2, 1, last), like.dtype)


def _take(size: int) -> mmap.mmap:
    for block in list(_waiting):
        if len(block) == size:
            try:
                _waiting.remove(block)
            except ValueError:  # another thread took it
                continue
            return block
    block = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        block.madvise(mmap.MADV_HUGEPAGE)
    return block


def _give_back(block: mmap.mmap) -> None:
    _waiting.append(block)
    while sum(map(len, list(_waiting))) > KEPT:
        del _waiting[:1]
