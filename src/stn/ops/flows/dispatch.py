"""Choose the code for a flow: the CPU's kernels, the operator in the registry of torch, or the reference.

As in `ops/dispatch.py`: the reference serves other devices and exports, a recorded call (`context.observed`) becomes one
operator of `flows/library.py`, and any other call goes directly to the kernels, as the autograd node `Follow` if it may need
a gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from stn.ops.context import differentiated, export_target, observed, refuse_lost_tangents
from stn.ops.flows.base import Flow


def has_kernels(data: Tensor) -> bool:
    return data.device.type == "cpu"


def displacements(flow: Flow, data: Tensor, xy: Tensor) -> Tensor:
    """Follow points xy, (N, P, d) or (1, P, d), under the velocities (N, ..): (N, P, d). Both have one dtype."""
    if xy.shape[-1] == 1:  # kernels know two and three dimensions
        return displacements(flow, flow.lifted(data), pad(xy, (0, 1)))[..., :1]
    refuse_lost_tangents()
    if export_target() is not None or not has_kernels(data):
        return flow.displacements(data, xy)
    if observed(data, xy):
        return call(flow, data, xy)
    if not differentiated(data, xy):
        return by_kernel(flow, data, xy)
    out: Tensor = Follow.apply(data, xy, flow)
    return out


class Follow(torch.autograd.Function):
    """A plain eager call, with first derivatives."""

    @staticmethod
    def forward(ctx: Any, data: Tensor, xy: Tensor, flow: Flow) -> Tensor:
        ctx.save_for_backward(data, xy)
        ctx.flow = flow
        return by_kernel(flow, data, xy)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        data, xy = ctx.saved_tensors  # read only once: activation checkpointing returns them only once
        need = tuple(ctx.needs_input_grad[:2])
        if observed(grad, data, xy) or differentiated(grad, data, xy):
            return *call_gradient(ctx.flow, grad, data, xy, need), None
        return *gradient_by_kernel(ctx.flow, grad, data, xy, need), None


def by_kernel(flow: Flow, data: Tensor, xy: Tensor) -> Tensor:
    from stn.ops.cpu import flows  # which loads Numba

    return flows.follow(flow, data, xy)


def gradient_by_kernel(
    flow: Flow, grad: Tensor, data: Tensor, xy: Tensor, need: Sequence[bool]
) -> tuple[Tensor | None, Tensor | None]:
    from stn.ops.cpu import flows

    return flows.gradient(flow, grad, data, xy, need)


# ---- the operators that `library.py` registers ----


def call(flow: Flow, data: Tensor, xy: Tensor) -> Tensor:
    """Run torch.ops.stn.<flow>_flow."""
    out: Tensor = getattr(torch.ops.stn, f"{flow.name}_flow")(data, xy, *flow.arguments)
    return out


def call_gradient(flow: Flow, grad: Tensor, data: Tensor, xy: Tensor, need: Sequence[bool]) -> tuple[Tensor | None, ...]:
    """Run torch.ops.stn.<flow>_flow_backward: return the needed gradients in data and xy."""
    operator = getattr(torch.ops.stn, f"{flow.name}_flow_backward")
    found = operator(grad, data, xy, list(need), *flow.arguments)
    return tuple(g if needed else None for g, needed in zip(found, need, strict=True))
