"""The flow of a velocity that is a cubic B-spline, in plain PyTorch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from stn.ops.flows.base import Flow, runge_kutta
from stn.ops.rules.lattice import cubic_weights


@dataclass(frozen=True)
class Splines(Flow):
    """Data: (N, *shape, d), the control points of v = (v_x, v_y[, v_z]). The image spans their inner n - 3 intervals."""

    steps: int

    name = "splines"
    schema = "int steps"
    least = 4

    @property
    def arguments(self) -> tuple[Any, ...]:
        return (self.steps,)

    def velocity(self, data: Tensor, xy: Tensor) -> Tensor:
        """Return v at points (N, P, d). Beyond the image it is that of the nearest point of its border."""
        coordinates, shape = xy.unbind(dim=-1)[::-1], data.shape[1:-1]
        first, *others = (cubic_weights(x, n) for x, n in zip(coordinates, shape, strict=True))  # (N, P, n) each
        v = first @ data.flatten(2)
        for weights in others:
            v = (weights.unsqueeze(-1) * v.unflatten(-1, (weights.shape[-1], -1))).sum(dim=-2)
        return v

    def displacements(self, data: Tensor, xy: Tensor) -> Tensor:
        return runge_kutta(lambda x: self.velocity(data, x), xy.expand(data.shape[0], *xy.shape[1:]), self.steps)
