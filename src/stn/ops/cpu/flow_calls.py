"""From tensors to the kernels of a flow, and back: the same for every flow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stn.ops.cpu.memory import empty_permuted, flat
from stn.ops.cpu.point_blocks import parts_of
from stn.ops.cpu.threads import run
from stn.ops.layout import plain

COST = 32  # of a point, in pixels of `thread_count`
Prepared = Callable[..., tuple[Any, ...]]  # (kernel, what only it needs) -> the arguments of `run`


def displacements(data: Tensor, xy: Tensor, prepared: Prepared, kernel: Any) -> Tensor:
    """Return the displacements (N, P, d) of points xy (N or 1, P, d) under the data (N, ..)."""
    real = torch.float64 if torch.float64 in (data.dtype, xy.dtype) else torch.float32
    out = empty_permuted((len(data), *xy.shape[1:]), range(3), real)
    if out.numel() > 0:
        run(*prepared(kernel, flat(out)))
    return out


def gradients(
    grad: Tensor, data: Tensor, xy: Tensor, need: Sequence[bool], prepared: Prepared, kernel: Any, shape: tuple[int, ...]
) -> tuple[Tensor | None, Tensor | None]:
    """Return the gradients (N, *shape) in the numbers of the kernel, and in the points, if they are needed."""
    count = len(data)
    sums = np.zeros((count, parts_of(xy.shape[1])[1], *shape))
    in_points = np.empty((count, *xy.shape[1:]) if need[1] else (0, 0, 0))
    if grad.numel() > 0:
        run(*prepared(kernel, plain(grad).double().contiguous().numpy(), sums, in_points))
    in_numbers = torch.from_numpy(sums.sum(axis=1)) if need[0] else None
    if not need[1]:
        return in_numbers, None
    in_xy = torch.from_numpy(in_points).to(xy.dtype)
    return in_numbers, in_xy if len(xy) == count else in_xy.sum(dim=0, keepdim=True)
