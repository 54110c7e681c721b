"""The kernels of each flow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from stn.ops.cpu import simplex_flow, spline_flow
from stn.ops.flows import Flow, Simplices, Splines

KERNELS: dict[type[Flow], Any] = {Simplices: simplex_flow, Splines: spline_flow}


def follow(flow: Flow, data: Tensor, xy: Tensor) -> Tensor:
    out: Tensor = KERNELS[type(flow)].follow(flow, data, xy)
    return out


def gradient(
    flow: Flow, grad: Tensor, data: Tensor, xy: Tensor, need: Sequence[bool]
) -> tuple[Tensor | None, Tensor | None]:
    found: tuple[Tensor | None, Tensor | None] = KERNELS[type(flow)].gradient(flow, grad, data, xy, need)
    return found
