"""Thin-plate splines: the smoothest warp that moves given control points by given offsets."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from stn import _check
from stn.ops.reference import coordinate_dtype
from stn.transforms.base import Family
from stn.transforms.warp import Basis, BasisWarp, Warp

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
        self._basis = ThinPlateBasis(self.control_points, self.smoothing)

    def __repr__(self) -> str:
        return f"ThinPlateSpline(control_points=<{len(self.control_points)} points>, smoothing={self.smoothing})"

    @property
    def num_params(self) -> int:
        return self.control_points.numel()

    def identity(self) -> Tensor:
        return torch.zeros(self.num_params)

    def _warp(self, theta: Tensor) -> Warp:
        return BasisWarp(self._basis, theta.unflatten(-1, (-1, 2)))


class ThinPlateBasis(Basis):
    """b_j(x): how far x moves when control point j alone moves by one.

    With U(r) = r^2 log r, K_ij = U(|p_i - p_j|) and P = (1, p), the spline of offsets c is f(x) = (U(|x - p|), 1, x) w, and
    its weights w solve

        | K + smoothing I   P |       | c |
        | P^T               0 | w  =  | 0 |

    The system depends on the control points alone. It is inverted here, once, in float64; the pseudo-inverse answers
    coincident points with the mean of their offsets.
    """

    def __init__(self, control_points: Tensor, smoothing: float) -> None:
        count = len(control_points)
        phi = _radial_and_linear(control_points, control_points)  # (T, T+3)
        system = phi.new_zeros(count + 3, count + 3)
        system[:count] = phi
        system[count:, :count] = phi[:, count:].mT
        system[:count, :count] += smoothing * torch.eye(count, dtype=phi.dtype)
        weights = torch.linalg.pinv(system, hermitian=True, rtol=RANK_TOLERANCE)[:, :count]
        # One copy a device, made when first needed: a family is no module, and nothing here belongs in a state dict.
        self._on_device = {phi.device: (control_points, weights)}

    def __call__(self, xy: Tensor) -> Tensor:
        control_points, weights = self._on(xy.device)
        return _radial_and_linear(xy, control_points.to(xy.dtype)) @ weights.to(xy.dtype)

    def _on(self, device: torch.device) -> tuple[Tensor, Tensor]:
        if device not in self._on_device:
            control_points, weights = next(iter(self._on_device.values()))
            dtype = coordinate_dtype(device)
            self._on_device[device] = control_points.to(device, dtype), weights.to(device, dtype)
        return self._on_device[device]


def _radial_and_linear(xy: Tensor, control_points: Tensor) -> Tensor:
    """(U(|x - p_1|), .., U(|x - p_T|), 1, x, y): (.., 2) -> (.., T+3)."""
    r2 = (xy.unsqueeze(-2) - control_points).square().sum(dim=-1)
    r2 = torch.where(r2 == 0, 1.0, r2)  # U(0) = 0 = U(1); the value and the gradient of log 0 must not enter
    return torch.cat([0.5 * r2 * r2.log(), torch.ones_like(xy[..., :1]), xy], dim=-1)


def _place(control_points: Sequence[int] | Tensor) -> Tensor:
    if isinstance(control_points, Tensor):
        _check.control_points("control_points", control_points)
        return control_points.detach().to("cpu", torch.float64)
    rows, columns = _check.lattice_shape("control_points", control_points)
    y = torch.linspace(-1, 1, rows, dtype=torch.float64)
    x = torch.linspace(-1, 1, columns, dtype=torch.float64)
    return torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], dim=-1).flatten(0, 1)
