"""Batches of warps: (N,), or (N, K) with K looks at each image."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Protocol

from torch import Tensor


class Batched(Protocol):
    """The part of a warp that is used here."""

    batch: tuple[int, ...]


def joint_batch(a: Sequence[int], b: Sequence[int]) -> tuple[int, ...]:
    """Return the batch of both, (N,) or (N, K). A length of 1, or a missing K, is taken from the other."""
    longer, shorter = (a, b) if len(a) >= len(b) else (b, a)
    padded = (*shorter, *(1,) * (len(longer) - len(shorter)))
    return tuple(m if n == 1 else n for n, m in zip(longer, padded, strict=True))


def over_batch(warp: Batched, function: Callable[[Tensor], Tensor], xy: Tensor) -> Tensor:
    """Apply a warp's function of points (*batch, P, d) to points (*lead, P, d) of a larger batch.

    The warp's batch broadcasts to the larger one. Samples and looks that share a map are joined into one set of points,
    and the map is not repeated.
    """
    lead = xy.shape[:-2]
    own = (*warp.batch, *(0,) * (len(lead) - len(warp.batch)))  # 0: it has no such dimension
    shared = [i for i, (n, m) in enumerate(zip(own, lead, strict=True)) if n == 0 or (n == 1 and m != 1)]
    if not shared:
        return function(xy)
    order = [i for i in range(len(lead)) if i not in shared] + shared
    back = [order.index(i) for i in range(len(lead))]
    sets = xy.permute(*order, -2, -1)
    count = math.prod(sets.shape[len(lead) - len(shared) : -1])
    out = function(sets.reshape(*warp.batch, count, xy.shape[-1]))
    out = out.reshape(*sets.shape[:-1], *out.shape[len(warp.batch) + 1 :])
    return out.permute(*back, *range(len(lead), out.ndim))


def over_looks(tensor: Tensor, batch: Sequence[int], core: int) -> Tensor:
    """Expand a tensor (.., *core) with a batch of (), (N,) or (N, K), the last `core` axes without, to (*batch, *core)."""
    lead, rest = tensor.shape[: tensor.ndim - core], tensor.shape[tensor.ndim - core :]
    return tensor.reshape(*lead, *(1,) * (len(batch) - len(lead)), *rest).expand(*batch, *rest)


def by(shape: Sequence[int]) -> str:
    """Format a shape for people: 7x7."""
    return "x".join(map(str, shape))
