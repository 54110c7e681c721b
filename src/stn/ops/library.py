"""The operators in torch's registry: `stn::<rule>_sample` and its gradient, with their shapes and derivatives.

Compilers, tracers and fake tensors record these operators in their graphs. torch.func, forward mode and batched gradients
use their rules. Plain eager calls skip the registry: `dispatch.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from stn import _check
from stn.ops import reference
from stn.ops import torch_private as private
from stn.ops.derivatives import autograd_allowed, oracle_gradient, pulled_back, pulled_within, pushed_forward
from stn.ops.dispatch import call, call_gradient, kernels_for
from stn.ops.layout import is_channels_last, order_of
from stn.ops.operator import Operator
from stn.ops.rules import RULES, Rule
from stn.ops.sampling import Sampling, named

TENSORS = "Tensor image, Tensor data, Tensor fill"
SAMPLING = "str mode, str padding_mode, bool align_corners"  # `Sampling.names`


def parsed(rule: type[Rule], constants: Sequence[Any]) -> tuple[Rule, Sampling]:
    """`rule.arguments` and `sampling.names` as an operator receives them."""
    arguments, names = constants[:-3], constants[-3:]
    return rule.of(arguments), named(*names)


class Sample(Operator):
    """stn::<rule>_sample."""

    def __init__(self, rule: type[Rule]) -> None:
        self.rule = rule
        super().__init__(f"{rule.name}_sample", f"{TENSORS}, {rule.schema}, {SAMPLING}", "Tensor")

    def body(self, image: Tensor, data: Tensor, fill: Tensor, *constants: Any) -> Tensor:
        rule, sampling = parsed(self.rule, constants)
        kernels = kernels_for(rule, image, data, sampling)
        if kernels is None:
            return reference.sample(rule, image, data, fill, sampling)
        return kernels.sample(rule, image, data, fill, sampling)

    def shape(self, image: Tensor, data: Tensor, fill: Tensor, *constants: Any) -> Tensor:
        size = parsed(self.rule, constants)[0].out_size(data)
        order = order_of(len(size), 2, is_channels_last(image))
        shape = image.shape[0], data.shape[1], image.shape[1], *size
        return torch.empty_permuted(shape, tuple(order), dtype=image.dtype, device=image.device)

    def differentiable(self, keys: Any, image: Tensor, data: Tensor, fill: Tensor, *constants: Any) -> Any:
        """Use the reference if the fill value needs a gradient, which the kernels lack."""
        if fill.requires_grad and torch.is_grad_enabled():
            rule, sampling = parsed(self.rule, constants)
            return reference.sample(rule, image, data, fill, sampling)
        return super().differentiable(keys, image, data, fill, *constants)

    def pull(
        self, needed: Sequence[bool], grads: Any, image: Tensor, data: Tensor, fill: Tensor, *constants: Any
    ) -> tuple[Tensor | None, ...]:
        if grads[0] is None:  # undefined, which stands for zeros
            return None, None
        rule, sampling = parsed(self.rule, constants)
        return call_gradient(rule, grads[0], image, data, fill, needed[:2], sampling)

    def push(self, tangents: Any, image: Tensor, data: Tensor, fill: Tensor, *constants: Any) -> Tensor:
        _check_constant(tangents[3:])
        rule, sampling = parsed(self.rule, constants)

        def value(image: Tensor, data: Tensor, fill: Tensor) -> tuple[Tensor, ...]:
            return (reference.sample(rule, image, data, fill, sampling),)

        return pushed_forward(value, (image, data, fill), tangents[:3])[0]

    def batch(
        self, info: Any, in_dims: Any, image: Tensor, data: Tensor, fill: Tensor, *constants: Any
    ) -> tuple[Tensor, int]:
        """The mapped dimension becomes looks if only `data` is mapped, else part of the batch."""
        _check_unmapped(in_dims[2:])
        size, (rule, sampling) = info.batch_size, parsed(self.rule, constants)
        if in_dims[0] is None:  # more looks at the same image, which is not copied
            looks = data.movedim(in_dims[1], 1)  # (N, B, K, ..)
            return call(rule, image, looks.flatten(1, 2), fill, sampling).unflatten(1, (size, looks.shape[2])), 1
        folded = [_folded(tensor, dim, size) for tensor, dim in zip((image, data), in_dims[:2], strict=True)]
        return call(rule, folded[0], folded[1], fill, sampling).unflatten(0, (size, -1)), 0


class SampleGradient(Operator):
    """stn::<rule>_sample_backward. A gradient that is not needed is an empty tensor."""

    def __init__(self, rule: type[Rule]) -> None:
        self.rule = rule
        arguments = f"Tensor grad, {TENSORS}, bool[] need, {rule.schema}, {SAMPLING}"
        super().__init__(f"{rule.name}_sample_backward", arguments, "(Tensor, Tensor)")

    def body(
        self, grad: Tensor, image: Tensor, data: Tensor, fill: Tensor, need: Sequence[bool], *constants: Any
    ) -> tuple[Tensor, Tensor]:
        rule, sampling = parsed(self.rule, constants)
        kernels = kernels_for(rule, image, data, sampling)
        if kernels is None:
            with autograd_allowed(), torch.no_grad():
                found = iter(oracle_gradient(rule, fill, need, sampling)(grad, image, data))
            return self._both(image, data, [next(found) if needed else None for needed in need])
        return self._both(image, data, kernels.gradient(rule, grad, image, data, fill, sampling, need))

    @staticmethod
    def _both(image: Tensor, data: Tensor, found: Sequence[Tensor | None]) -> tuple[Tensor, Tensor]:
        in_image, in_data = found
        return image.new_empty(0) if in_image is None else in_image, data.new_empty(0) if in_data is None else in_data

    def shape(
        self, grad: Tensor, image: Tensor, data: Tensor, fill: Tensor, need: Sequence[bool], *constants: Any
    ) -> tuple[Tensor, Tensor]:
        order = tuple(order_of(image.ndim - 2, 1, is_channels_last(image)))
        like_image = torch.empty_permuted(image.shape, order, dtype=image.dtype, device=image.device)
        return like_image if need[0] else image.new_empty(0), data.new_empty(data.shape if need[1] else 0)

    def pull(
        self, needed: Sequence[bool], grads: Any, grad: Tensor, image: Tensor, data: Tensor, fill: Tensor, *rest: Any
    ) -> tuple[Tensor | None, ...]:
        need, *constants = rest
        rule, sampling = parsed(self.rule, constants)
        if list(need) == [True, False] and grads[0] is not None:
            return self._pull_splat(needed, grads[0], grad, data, torch.zeros_like(fill), rule, sampling)
        weights = [g for g, n in zip(grads, need, strict=True) if n]
        pull = pulled_within if private.in_torch_func() else pulled_back
        return pull(oracle_gradient(rule, fill, need, sampling, pull), (grad, image, data), weights)

    @staticmethod
    def _pull_splat(
        needed: Sequence[bool], weight: Tensor, grad: Tensor, data: Tensor, fill: Tensor, rule: Rule, sampling: Sampling
    ) -> tuple[Tensor | None, ...]:
        """Pull back the gradient in the image alone, see `splat.py`: operators again, and not the reference."""
        in_grad = call(rule, weight, data, fill, sampling) if needed[0] else None
        in_data = call_gradient(rule, grad, weight, data, fill, (False, True), sampling)[1] if needed[2] else None
        return in_grad, None, in_data

    def push(self, tangents: Any, grad: Tensor, image: Tensor, data: Tensor, fill: Tensor, *rest: Any) -> Any:
        need, *constants = rest
        _check_constant(tangents[5:])
        rule, sampling = parsed(self.rule, constants)

        def gradient(grad: Tensor, image: Tensor, data: Tensor, fill: Tensor) -> tuple[Tensor, ...]:
            return oracle_gradient(rule, fill, need, sampling)(grad, image, data)

        found = iter(pushed_forward(gradient, (grad, image, data, fill), tangents[:4]))
        return self._both(image, data, [next(found) if needed else None for needed in need])

    def batch(
        self, info: Any, in_dims: Any, grad: Tensor, image: Tensor, data: Tensor, fill: Tensor, *rest: Any
    ) -> tuple[tuple[Tensor, ...], tuple[int | None, ...]]:
        need, *constants = rest
        _check_unmapped(in_dims[3:])
        size, (rule, sampling) = info.batch_size, parsed(self.rule, constants)
        grad, image, data = (_folded(t, dim, size) for t, dim in zip((grad, image, data), in_dims[:3], strict=True))
        found = call_gradient(rule, grad, image, data, fill, need, sampling)
        parts = [None if g is None else g.unflatten(0, (size, -1)) for g in found]
        return self._both(image, data, parts), tuple(0 if needed else None for needed in need)


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


for _rule in RULES:
    Sample(_rule)
    SampleGradient(_rule)
