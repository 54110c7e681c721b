"""The operators in torch's registry: `stn::<rule>_sample` and its gradient, with their shapes and derivatives.

Compilers, tracers and fake tensors record these operators in their graphs. torch.func, forward mode and batched gradients
use their rules. Plain eager calls skip the registry: `autograd.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from stn import _check
from stn.ops.derivatives import ORACLE, autograd_allowed, oracle_gradient, pulled_back, pulled_within, pushed_forward
from stn.ops.devices import Settings, is_channels_last, kernels_for
from stn.ops.operator import Operator

MATRIX = "SymInt[] size, str mode, str padding_mode, bool align_corners"
SETTINGS = {  # in the order of `devices.Settings`
    "matrix": MATRIX,
    "basis": f"{MATRIX}, Tensor control_points",
    "field": "str mode, str padding_mode, bool align_corners, str units, bool relative",
}
TENSORS = "Tensor image, Tensor where, Tensor fill"


def call(rule: str, image: Tensor, where: Tensor, fill: Tensor, settings: Settings) -> Tensor:
    """torch.ops.stn.<rule>_sample: image (N, C, *in), where (N, K, ..) -> (N, K, C, *size)."""
    out: Tensor = getattr(torch.ops.stn, f"{rule}_sample")(image, where, fill, *settings)
    return out


def call_gradient(
    rule: str, grad: Tensor, image: Tensor, where: Tensor, fill: Tensor, need: Sequence[bool], settings: Settings
) -> tuple[Tensor | None, ...]:
    """torch.ops.stn.<rule>_sample_backward: the gradients in image and where, those that are needed."""
    found = getattr(torch.ops.stn, f"{rule}_sample_backward")(grad, image, where, fill, list(need), *settings)
    return tuple(g if needed else None for g, needed in zip(found, need, strict=True))


class Sample(Operator):
    """stn::<rule>_sample."""

    def __init__(self, rule: str) -> None:
        super().__init__(rule, f"{rule}_sample", f"{TENSORS}, {SETTINGS[rule]}", "Tensor")

    def body(self, image: Tensor, where: Tensor, fill: Tensor, *settings: Any) -> Tensor:
        kernels = kernels_for(self.rule, image, where, settings)
        if kernels is None:
            return ORACLE[self.rule](image, where, fill, settings)
        return kernels.sample(self.rule, image, where, fill, settings)

    def shape(self, image: Tensor, where: Tensor, fill: Tensor, *settings: Any) -> Tensor:
        size = where.shape[2:-1] if self.rule == "field" else settings[0]
        shape, d = (image.shape[0], where.shape[1], image.shape[1], *size), len(size)
        order = (0, 1, *range(3, 3 + d), 2) if is_channels_last(image) else tuple(range(3 + d))
        return torch.empty_permuted(shape, order, dtype=image.dtype, device=image.device)

    def differentiable(self, keys: Any, image: Tensor, where: Tensor, fill: Tensor, *settings: Any) -> Any:
        """Use the oracle where the fill value needs a gradient: the kernels have none for it."""
        if fill.requires_grad and torch.is_grad_enabled():
            return ORACLE[self.rule](image, where, fill, settings)
        return super().differentiable(keys, image, where, fill, *settings)

    def pull(
        self, needed: Sequence[bool], grads: Any, image: Tensor, where: Tensor, fill: Tensor, *settings: Any
    ) -> tuple[Tensor | None, ...]:
        return call_gradient(self.rule, grads[0], image, where, fill, needed[:2], settings)

    def push(self, tangents: Any, image: Tensor, where: Tensor, fill: Tensor, *settings: Any) -> Tensor:
        _check_constant(tangents[3:])

        def value(image: Tensor, where: Tensor, fill: Tensor) -> tuple[Tensor, ...]:
            return (ORACLE[self.rule](image, where, fill, settings),)

        return pushed_forward(value, (image, where, fill), tangents[:3])[0]

    def batch(
        self, info: Any, in_dims: Any, image: Tensor, where: Tensor, fill: Tensor, *settings: Any
    ) -> tuple[Tensor, int]:
        """The mapped dimension becomes looks if only `where` is mapped, else part of the batch."""
        _check_unmapped(in_dims[2:])
        size = info.batch_size
        if in_dims[0] is None:  # more looks at the same image, which is not copied
            looks = where.movedim(in_dims[1], 1)  # (N, B, K, ..)
            return call(self.rule, image, looks.flatten(1, 2), fill, settings).unflatten(1, (size, looks.shape[2])), 1
        folded = [_folded(tensor, dim, size) for tensor, dim in zip((image, where), in_dims[:2], strict=True)]
        return call(self.rule, folded[0], folded[1], fill, settings).unflatten(0, (size, -1)), 0


class SampleGradient(Operator):
    """stn::<rule>_sample_backward. A gradient that is not needed is an empty tensor."""

    def __init__(self, rule: str) -> None:
        arguments = f"Tensor grad, {TENSORS}, bool[] need, {SETTINGS[rule]}"
        super().__init__(rule, f"{rule}_sample_backward", arguments, "(Tensor, Tensor)")

    def body(
        self, grad: Tensor, image: Tensor, where: Tensor, fill: Tensor, need: Sequence[bool], *settings: Any
    ) -> tuple[Tensor, Tensor]:
        kernels = kernels_for(self.rule, image, where, settings)
        if kernels is None:
            with autograd_allowed(), torch.no_grad():
                found = iter(oracle_gradient(self.rule, fill, need, settings)(grad, image, where))
            return self._both(image, where, [next(found) if needed else None for needed in need])
        return self._both(image, where, kernels.gradient(self.rule, grad, image, where, fill, settings, need))

    @staticmethod
    def _both(image: Tensor, where: Tensor, found: Sequence[Tensor | None]) -> tuple[Tensor, Tensor]:
        in_image, in_where = found
        return image.new_empty(0) if in_image is None else in_image, where.new_empty(0) if in_where is None else in_where

    def shape(
        self, grad: Tensor, image: Tensor, where: Tensor, fill: Tensor, need: Sequence[bool], *settings: Any
    ) -> tuple[Tensor, Tensor]:
        order = (0, *range(2, image.ndim), 1) if is_channels_last(image) else tuple(range(image.ndim))
        like_image = torch.empty_permuted(image.shape, order, dtype=image.dtype, device=image.device)
        return like_image if need[0] else image.new_empty(0), where.new_empty(where.shape if need[1] else 0)

    def pull(
        self, needed: Sequence[bool], grads: Any, grad: Tensor, image: Tensor, where: Tensor, fill: Tensor, *rest: Any
    ) -> tuple[Tensor, ...]:
        need, *settings = rest
        weights = [g for g, n in zip(grads, need, strict=True) if n]
        pull = pulled_within if torch._C._are_functorch_transforms_active() else pulled_back
        return pull(oracle_gradient(self.rule, fill, need, tuple(settings), pull), (grad, image, where), weights)

    def push(self, tangents: Any, grad: Tensor, image: Tensor, where: Tensor, fill: Tensor, *rest: Any) -> Any:
        need, *settings = rest
        _check_constant(tangents[5:])

        def gradient(grad: Tensor, image: Tensor, where: Tensor, fill: Tensor) -> tuple[Tensor, ...]:
            return oracle_gradient(self.rule, fill, need, tuple(settings))(grad, image, where)

        found = iter(pushed_forward(gradient, (grad, image, where, fill), tangents[:4]))
        return self._both(image, where, [next(found) if needed else None for needed in need])

    def batch(
        self, info: Any, in_dims: Any, grad: Tensor, image: Tensor, where: Tensor, fill: Tensor, *rest: Any
    ) -> tuple[tuple[Tensor, ...], tuple[int | None, ...]]:
        need, *settings = rest
        _check_unmapped(in_dims[3:])
        size = info.batch_size
        grad, image, where = (_folded(t, dim, size) for t, dim in zip((grad, image, where), in_dims[:3], strict=True))
        found = call_gradient(self.rule, grad, image, where, fill, need, tuple(settings))
        parts = [None if g is None else g.unflatten(0, (size, -1)) for g in found]
        return self._both(image, where, parts), tuple(0 if needed else None for needed in need)


def _folded(tensor: Tensor, dim: int | None, size: int) -> Tensor:
    """The mapped dimension becomes part of the batch: (B, N, ..) -> (B N, ..)."""
    moved = tensor.expand(size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
    return moved.flatten(0, 1)


def _check_unmapped(in_dims: Sequence[Any]) -> None:
    fill, *rest = in_dims
    _check.unmapped("fill_value", fill)
    for dim in rest:
        if isinstance(dim, int):  # a list of numbers has a list of dimensions, all None
            _check.unmapped("control_points", dim)


def _check_constant(tangents: Sequence[Any]) -> None:
    if any(isinstance(tangent, Tensor) for tangent in tangents):
        _check.fail("control_points must not have a tangent: samples are not differentiable in them")


for _rule in SETTINGS:
    Sample(_rule)
    SampleGradient(_rule)
