"""The kernels of each flow."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from stn.ops.cpu import simplex_flow
from stn.ops.flows import Flow, Simplices

KERNELS = {Simplices: simplex_flow}


def follow(flow: Flow, data: Tensor, xy: Tensor) -> Tensor:
    return KERNELS[type(flow)].follow(flow, data, xy)


def gradient(
    flow: Flow, grad: Tensor, data: Tensor, xy: Tensor, need: Sequence[bool]
) -> tuple[Tensor | None, Tensor | None]:
    return KERNELS[type(flow)].gradient(flow, grad, data, xy, need)
