"""Support the vmap behind `torch.autograd.grad(is_grads_batched=True)` and `jacobian(vectorize=True)`.

It is older than torch.func's and separate from it. A rule can be registered only under its dispatch key, "Batched", and its
tensors can be unwrapped only by private functions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from torch import Tensor

from stn.ops import torch_private as private


class Info(NamedTuple):
    """The first argument of a rule for torch.library.register_vmap."""

    batch_size: int


def through(rule: Callable[..., tuple[Any, Any]], inputs: Sequence[Any]) -> Any:
    """Apply a vmap rule, (info, in_dims, *inputs) -> (outputs, out_dims), to inputs some of which are batched."""
    with _one_level_down() as level:
        plain = [_unwrapped(value, level) for value in inputs]
        size = max(value.shape[0] for value in plain if isinstance(value, Tensor))
        in_dims = [0 if isinstance(value, Tensor) and value.shape[0] == size else None for value in plain]
        given = [v[0] if isinstance(v, Tensor) and dim is None else v for v, dim in zip(plain, in_dims, strict=True)]
        outputs, out_dims = rule(Info(size), tuple(in_dims), *given)
    if isinstance(outputs, Tensor):
        return _wrapped(outputs, out_dims, level)
    return tuple(_wrapped(out, dim, level) for out, dim in zip(outputs, out_dims, strict=True))


def folded(function: Callable[[Tensor], Tensor], batch: Tensor) -> Tensor:
    """Apply a function of (N, ..) to a tensor that may be batched: its mapped dimension is folded into N."""
    if not private.is_legacy_batched(batch):
        return function(batch)

    def rule(info: Info, in_dims: Any, batch: Tensor) -> tuple[Tensor, int]:
        return folded(function, batch.flatten(0, 1)).unflatten(0, (info.batch_size, -1)), 0

    out: Tensor = through(rule, (batch,))
    return out


@contextmanager
def _one_level_down() -> Iterator[int]:
    """Leave the innermost vmap level temporarily and yield its number. Operators called here run at the next outer level."""
    level: int = private.leave_legacy_vmap() + 1
    try:
        yield level
    finally:
        private.enter_legacy_vmap()


def _unwrapped(value: Any, level: int) -> Any:
    """Move the mapped dimension to the front; a tensor that is not batched at this level gets one of length 1."""
    return private.remove_batch_dim(value, level, 1, 0) if isinstance(value, Tensor) else value


def _wrapped(value: Any, dim: int | None, level: int) -> Any:
    return value if dim is None else private.add_batch_dim(value, dim, level)
