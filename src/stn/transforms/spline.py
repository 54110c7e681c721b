"""Thin-plate splines: the smoothest warp that moves given control points by given offsets."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from stn import _check
from stn.ops.reference import coordinate_dtype, radial_and_linear
from stn.transforms.base import Family
from stn.transforms.warp import ThinPlateWarp, Warp

# Singular values of the spline's system below this share of the largest are zero: two control points that coincide, or
# points on one line. The system of 400 scattered points reaches down to 1e-8, that of 16 to 1e-3.
RANK_TOLERANCE = 1e-12


class ThinPlateSpline(Family):
    """x' = x + f(x), where f takes the value theta_j at control point j and bends least (Bookstein 1989).

    theta = offsets (dx, dy) of the control points, point by point, normalised; zeros are the identity exactly.
    control_points: lattice (rows, columns) over the image, or points (T, 2), T >= 3. smoothing: the weight of bending
    against reaching the offsets (scipy's `RBFInterpolator(smoothing=)`); 0 reaches them. Where control points coincide
    their offsets are averaged.
    """

    def __init__(self, ndim: int = 2, *, control_points: Sequence[int] | Tensor = (4, 4), smoothing: float = 0.0) -> None:
        self.ndim = _check.dimension(ndim, (2,), "ThinPlateSpline")
        _check.not_negative("smoothing", smoothing)
        self.control_points = _place(control_points)  # (T, 2) float64
        self.smoothing = float(smoothing)
        solution = coefficients_of_offsets(self.control_points, self.smoothing)
        # One copy a device, made when first needed: a family is no module, and nothing here belongs in a state dict.
        self._on_device = {solution.device: (self.control_points, solution)}

    def __repr__(self) -> str:
        return f"ThinPlateSpline(control_points=<{len(self.control_points)} points>, smoothing={self.smoothing})"

    @property
    def num_params(self) -> int:
        return self.control_points.numel()

    def identity(self) -> Tensor:
        return torch.zeros(self.num_params)

    def _warp(self, theta: Tensor) -> Warp:
        control_points, solution = self._on(theta.device)
        offsets = theta.unflatten(-1, (-1, 2))
        return ThinPlateWarp(control_points, solution @ offsets.to(solution.dtype), theta.dtype)

    def _on(self, device: torch.device) -> tuple[Tensor, Tensor]:
        if device not in self._on_device:
            dtype = coordinate_dtype(device)
            points, solution = next(iter(self._on_device.values()))
            self._on_device[device] = points.to(device, dtype), solution.to(device, dtype)
        return self._on_device[device]


def coefficients_of_offsets(control_points: Tensor, smoothing: float) -> Tensor:  # (T, 2) -> (T+3, T)
    """The matrix from offsets c to the coefficients w of `thin_plate_sample`, which solve

        | K + smoothing I   P |       | c |
        | P^T               0 | w  =  | 0 |,     K_ij = U(|p_i - p_j|), P = (1, p).

    The system depends on the control points alone. It is inverted here, once, in float64; the pseudo-inverse answers
    coincident points with the mean of their offsets.
    """
    count = len(control_points)
    phi = radial_and_linear(control_points, control_points)  # (T, T+3)
    system = phi.new_zeros(count + 3, count + 3)
    system[:count] = phi
    system[count:, :count] = phi[:, count:].mT
    system[:count, :count] += smoothing * torch.eye(count, dtype=phi.dtype)
    inverse: Tensor = torch.linalg.pinv(system, hermitian=True, rtol=RANK_TOLERANCE)
    return inverse[:, :count]


def _place(control_points: Sequence[int] | Tensor) -> Tensor:
    if isinstance(control_points, Tensor):
        _check.control_points("control_points", control_points)
        _check.finite("control_points", control_points)
        return control_points.detach().to("cpu", torch.float64)
    rows, columns = _check.lattice_shape("control_points", control_points)
    y = torch.linspace(-1, 1, rows, dtype=torch.float64)
    x = torch.linspace(-1, 1, columns, dtype=torch.float64)
    return torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], dim=-1).flatten(0, 1)
