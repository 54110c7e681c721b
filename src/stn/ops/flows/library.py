"""The operators `stn::<flow>_flow` and their gradients in torch's registry, with their shapes and derivatives.

As in `ops/library.py`. Second and forward derivatives are those of the reference.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from stn.ops import torch_private as private
from stn.ops.derivatives import Function, Pull, autograd_allowed, pulled_back, pulled_within, pushed_forward
from stn.ops.flows import FLOWS
from stn.ops.flows.base import Flow
from stn.ops.flows.dispatch import by_kernel, call, call_gradient, gradient_by_kernel, has_kernels
from stn.ops.operator import Operator


def oracle_gradient(flow: Flow, need: Sequence[bool], pull: Pull = pulled_back) -> Function:
    """Return the needed gradients in data and xy from (grad, data, xy), with the reference."""

    def gradient(grad: Tensor, data: Tensor, xy: Tensor) -> tuple[Tensor, ...]:
        found = pull(lambda data, xy: (flow.displacements(data, xy),), (data, xy), (grad,))
        return tuple(g for g, needed in zip(found, need, strict=True) if needed)

    return gradient


class Follow(Operator):
    """stn::<flow>_flow."""

    def __init__(self, flow: type[Flow]) -> None:
        self.flow = flow
        super().__init__(f"{flow.name}_flow", f"Tensor data, Tensor xy, {flow.schema}", "Tensor")

    def body(self, data: Tensor, xy: Tensor, *arguments: Any) -> Tensor:
        flow = self.flow.of(arguments)
        return by_kernel(flow, data, xy) if has_kernels(data) else flow.displacements(data, xy)

    def shape(self, data: Tensor, xy: Tensor, *arguments: Any) -> Tensor:
        return data.new_empty((data.shape[0], *xy.shape[1:]))

    def pull(self, needed: Sequence[bool], grads: Any, data: Tensor, xy: Tensor, *arguments: Any) -> tuple[Any, ...]:
        return call_gradient(self.flow.of(arguments), grads[0], data, xy, needed[:2])

    def push(self, tangents: Any, data: Tensor, xy: Tensor, *arguments: Any) -> Tensor:
        flow = self.flow.of(arguments)
        return pushed_forward(lambda data, xy: (flow.displacements(data, xy),), (data, xy), tangents[:2])[0]

    def batch(self, info: Any, in_dims: Any, data: Tensor, xy: Tensor, *arguments: Any) -> tuple[Tensor, int]:
        """The mapped dimension becomes part of the batch. Points for all stay so if they are not mapped."""
        size = info.batch_size
        data = _mapped_first(data, in_dims[0], size)  # (B, N, ..)
        shared = in_dims[1] is None and xy.shape[0] == 1
        points = xy if shared else _for_each(xy, in_dims[1], size, data.shape[1]).flatten(0, 1)
        return call(self.flow.of(arguments), data.flatten(0, 1), points).unflatten(0, (size, -1)), 0


class FollowGradient(Operator):
    """stn::<flow>_flow_backward. A gradient that is not needed is an empty tensor."""

    def __init__(self, flow: type[Flow]) -> None:
        self.flow = flow
        arguments = f"Tensor grad, Tensor data, Tensor xy, bool[] need, {flow.schema}"
        super().__init__(f"{flow.name}_flow_backward", arguments, "(Tensor, Tensor)")

    def body(self, grad: Tensor, data: Tensor, xy: Tensor, need: Sequence[bool], *arguments: Any) -> tuple[Tensor, Tensor]:
        flow = self.flow.of(arguments)
        if has_kernels(data):
            return _both(data, xy, gradient_by_kernel(flow, grad, data, xy, need))
        with autograd_allowed(), torch.no_grad():
            found = iter(oracle_gradient(flow, need)(grad, data, xy))
        return _both(data, xy, [next(found) if needed else None for needed in need])

    def shape(self, grad: Tensor, data: Tensor, xy: Tensor, need: Sequence[bool], *arguments: Any) -> tuple[Tensor, Tensor]:
        return data.new_empty(data.shape if need[0] else 0), xy.new_empty(xy.shape if need[1] else 0)

    def pull(self, needed: Sequence[bool], grads: Any, grad: Tensor, data: Tensor, xy: Tensor, *rest: Any) -> Any:
        need, *arguments = rest
        weights = [g for g, n in zip(grads, need, strict=True) if n]
        pull = pulled_within if private.in_torch_func() else pulled_back
        return pull(oracle_gradient(self.flow.of(arguments), need, pull), (grad, data, xy), weights)

    def push(self, tangents: Any, grad: Tensor, data: Tensor, xy: Tensor, *rest: Any) -> Any:
        need, *arguments = rest
        gradient = oracle_gradient(self.flow.of(arguments), need)
        found = iter(pushed_forward(gradient, (grad, data, xy), tangents[:3]))
        return _both(data, xy, [next(found) if needed else None for needed in need])

    def batch(self, info: Any, in_dims: Any, grad: Tensor, data: Tensor, xy: Tensor, *rest: Any) -> Any:
        (need, *arguments), size = rest, info.batch_size
        grad, data = (_mapped_first(tensor, dim, size) for tensor, dim in zip((grad, data), in_dims[:2], strict=True))
        points = _for_each(xy, in_dims[2], size, data.shape[1])
        grad, data, points = (tensor.flatten(0, 1) for tensor in (grad, data, points))
        in_data, in_xy = call_gradient(self.flow.of(arguments), grad, data, points, need)
        in_data = None if in_data is None else in_data.unflatten(0, (size, -1))
        in_xy = None if in_xy is None else in_xy.unflatten(0, (size, -1))
        if in_xy is not None and xy.shape[0 if in_dims[2] != 0 else 1] == 1:  # points for all
            in_xy = in_xy.sum(dim=1, keepdim=True)
        return _both(data, xy, (in_data, in_xy)), tuple(0 if needed else None for needed in need)


def _mapped_first(tensor: Tensor, dim: int | None, size: int) -> Tensor:
    return tensor.expand(size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)


def _for_each(xy: Tensor, dim: int | None, size: int, count: int) -> Tensor:  # -> (B, N, P, d)
    points = _mapped_first(xy, dim, size)
    return points.expand(size, count, *points.shape[2:])


def _both(data: Tensor, xy: Tensor, found: Sequence[Tensor | None]) -> tuple[Tensor, Tensor]:
    in_data, in_xy = found
    return data.new_empty(0) if in_data is None else in_data, xy.new_empty(0) if in_xy is None else in_xy


for _flow in FLOWS:
    Follow(_flow)
    FollowGradient(_flow)
