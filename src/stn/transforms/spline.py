"""Thin-plate splines: the smoothest warp that moves given control points by given offsets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from stn import _check
from stn.grid import pixel_to_normalized
from stn.ops.context import unrounded
from stn.ops.options import CallOptions
from stn.ops.rules import Rule, Spline
from stn.ops.rules.spline import radial_and_linear
from stn.ops.sample import Sampled, sampled
from stn.transforms.base import Constants, Family, trainable
from stn.transforms.fitting import Frame, Pairs
from stn.transforms.matrix import MatrixWarp
from stn.transforms.warp import Warp

# Singular values of the system below this share of the largest count as zero: coincident control points, or points on one
# line. The smallest share for 400 scattered points is 1e-8, for 16 points 1e-3.
RANK_TOLERANCE = 1e-12
RANK = 1e-7  # smallest diagonal entry of the factor R, relative to the largest, of points that determine all offsets


@dataclass(frozen=True, init=False)
class ThinPlateSpline(Family["ThinPlateWarp"]):
    """x' = x + f(x), where f takes the value theta_j at control point j and bends least.

    theta = offsets (dx, dy[, dz]) of the control points, point by point, normalized; zeros are the identity exactly. Where
    control points coincide their offsets are averaged; points on one line bend the image along it alone.

    Args:
        ndim: 2 or 3.
        control_points: Lattice (rows, columns) or (slices, rows, columns) over the image, or normalized points (T, d),
            T > d, such as `text_edges(20)`. None: 4 along each axis.
        smoothing: Weight of bending against reaching the offsets (scipy's `RBFInterpolator(smoothing=)`). 0 reaches
            them.
        parameters: "offsets", or "positions": theta is the points that the control points read, as in ASTER; the
            control points themselves are the identity.

    Raises:
        InputError: An argument has a wrong shape or value, which the message names.

    Source: Bookstein 1989.

    Example:
        >>> family = stn.ThinPlateSpline(control_points=(2, 2))
        >>> theta = torch.tensor([[0.5, 0.25, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]])  # moves the top left one
        >>> family(theta).points(torch.tensor([[-1.0, -1.0], [1.0, 1.0]])).round(decimals=3)
        tensor([[[-0.5000, -0.7500],
                 [ 1.0000,  1.0000]]])
    """

    ndim: int
    control_points: Tensor  # (T, d) float64
    smoothing: float
    kind: str  # "offsets" or "positions"
    _constants: Constants = field(repr=False)

    def __init__(
        self,
        ndim: int = 2,
        *,
        control_points: int | Sequence[int] | Tensor | None = None,
        smoothing: float = 0.0,
        parameters: str = "offsets",
    ) -> None:
        ndim = _check.dimension(ndim, (2, 3), "ThinPlateSpline")
        _check.not_negative("smoothing", smoothing)
        _check.choice("parameters", parameters, ("offsets", "positions"))
        points, smoothing = _place(control_points, ndim), float(smoothing)
        self._set(ndim=ndim, control_points=points, smoothing=smoothing, kind=parameters)
        self._set(_constants=Constants(points, coefficients_of_offsets(points, smoothing)))

    def __repr__(self) -> str:
        points = f"control_points=<{len(self.control_points)} points>"
        points = points if self.ndim == 2 else f"{self.ndim}, {points}"
        return f"ThinPlateSpline({points}, smoothing={self.smoothing}, parameters={self.kind!r})"

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and isinstance(other, ThinPlateSpline) and self._settings() == other._settings()

    def __hash__(self) -> int:
        return hash(self._settings())

    def _settings(self) -> tuple[object, ...]:
        """Return the points as numbers, which can be compared; computed on demand, because fake tensors have no data."""
        return self.ndim, tuple(self.control_points.flatten().tolist()), self.smoothing, self.kind

    @property
    def parameters(self) -> Mapping[str, Sequence[int]]:
        return {self.kind: range(self.control_points.numel())}

    def identity(self) -> Tensor:
        if self.kind == "positions":
            return self.control_points.flatten().to(torch.get_default_device(), torch.float32)
        return torch.zeros(self.num_params)

    def make(self, theta: Tensor) -> ThinPlateWarp:
        control_points, solution = self._constants.on(theta.device)
        offsets = theta.unflatten(-1, (-1, self.ndim))
        if self.kind == "positions":  # float32 as in `identity`, so that its offsets are exactly zero
            offsets = offsets - control_points.float().to(theta.dtype)
        return ThinPlateWarp(control_points, solution @ offsets.to(solution.dtype), theta.dtype)

    def _fewest(self) -> int:
        return len(self.control_points)

    def _fit(self, pairs: Pairs, frame: Frame | None, dtype: torch.dtype) -> tuple[ThinPlateWarp, Tensor]:
        """Solve B theta = y - x, B the spline of a unit offset of each control point at the points: linear in theta."""
        if frame is not None:
            x = pixel_to_normalized(pairs.x, frame.out_size, align_corners=frame.align_corners)
            pairs = Pairs(x, pixel_to_normalized(pairs.y, frame.in_size, align_corners=frame.align_corners), pairs.w)
        control_points, solution = self._constants.on(pairs.x.device)
        basis = radial_and_linear(pairs.x, control_points.to(pairs.x.dtype)) @ solution.to(pairs.x.dtype)
        root = pairs.w.unsqueeze(-1).sqrt()
        q, r = torch.linalg.qr(root * basis)
        theta = torch.linalg.solve_triangular(r, q.mT @ (root * (pairs.y - pairs.x)), upper=True)
        size = r.detach().diagonal(dim1=-2, dim2=-1).abs()
        if self.kind == "positions":
            theta = theta + control_points.to(theta.dtype)
        return self(theta.flatten(-2).to(dtype)), size.amin(dim=-1) > RANK * size.amax(dim=-1)


class ThinPlateWarp(Warp):
    """x' = x + (U_1(x), .., U_T(x), 1, x, y[, z]) w: radial functions around control points, shared by the batch."""

    _shared: ClassVar[tuple[str, ...]] = ("control_points",)

    def __init__(self, control_points: Tensor, coefficients: Tensor, dtype: torch.dtype) -> None:
        self.control_points = control_points  # (T, d)
        self.coefficients = coefficients  # w: (N[, K], T+d+1, d), float64: the terms are large against their sum
        self.batch = tuple(coefficients.shape[:-2])
        self.ndim = coefficients.shape[-1]
        self.dtype, self.device = dtype, coefficients.device

    def _details(self) -> Sequence[str]:
        return (f"{len(self.control_points)} control points",)

    def map(self, xy: Tensor) -> Tensor:
        precise = xy.to(self.coefficients.dtype)
        moved = radial_and_linear(precise, self.control_points.to(precise.dtype)) @ self.coefficients
        return (precise + moved).to(torch.promote_types(self.dtype, xy.dtype))

    def before(self, outer: Warp) -> Warp:
        """Compose with an affine map, which gives a spline: A (x + U w) + t = x + U w A' + (A - I) x + t."""
        if not isinstance(outer, MatrixWarp) or not outer.is_affine or len(outer.batch) > len(self.batch):
            return super().before(outer)
        _check.composable(outer.batch, self.batch, outer.ndim, self.ndim)
        matrix = outer.matrix.to(self.coefficients.dtype)
        matrix = matrix if len(outer.batch) == len(self.batch) else matrix.unsqueeze(1)
        a, t = matrix[..., :-1].mT, matrix[..., None, :, -1]
        with unrounded(self.device):
            bent = self.coefficients @ a
        d = self.ndim
        moved = torch.cat([t, a - torch.eye(d, dtype=a.dtype, device=a.device)], dim=-2).expand(*bent.shape[:-2], -1, -1)
        coefficients = torch.cat([bent[..., : -d - 1, :], bent[..., -d - 1 :, :] + moved], dim=-2)
        return ThinPlateWarp(self.control_points, coefficients, torch.promote_types(self.dtype, outer.dtype))

    def _rule(self, size: tuple[int, ...], align_corners: bool) -> tuple[Rule, Tensor]:
        return Spline(size, self.control_points), self.coefficients

    def _sample(self, image: Tensor, size: tuple[int, ...], return_mask: bool, options: CallOptions) -> Sampled:
        _check.coefficients("coefficients", self.coefficients, self.control_points, image)
        return sampled(image, Spline(size, self.control_points), self.coefficients, return_mask, options)


def coefficients_of_offsets(control_points: Tensor, smoothing: float) -> Tensor:  # (T, d) -> (T+d+1, T)
    """Return the matrix from offsets c to the coefficients w of `thin_plate_sample`, which solve

        | K + smoothing I   P |       | c |
        | P^T               0 | w  =  | 0 |,     K_ij = U(|p_i - p_j|), P = (1, p),

    with -smoothing in 3-D, where the energy of bending is -w' K w.

    The system depends on the control points alone. It is inverted here, once, in float64; the pseudo-inverse gives
    coincident points the mean of their offsets.
    """
    count, d = control_points.shape
    phi = radial_and_linear(control_points, control_points)  # (T, T+d+1)
    system = phi.new_zeros(count + d + 1, count + d + 1)
    system[:count] = phi
    system[count:, :count] = phi[:, count:].mT
    stiff = smoothing if d == 2 else -smoothing
    system[:count, :count] += stiff * torch.eye(count, dtype=phi.dtype, device="cpu")
    inverse: Tensor = torch.linalg.pinv(system, hermitian=True, rtol=RANK_TOLERANCE)
    return inverse[:, :count].contiguous()  # a copy: a view would be saved with its whole base


def text_edges(count: int, *, margin: float = 0.0) -> Tensor:  # (count, 2), float64
    """Place control points along both edges of a line of text, left to right: first the upper edge, then the lower.

    Args:
        count: Number of points; even, at least 4. ASTER uses 20.
        margin: Distance from the image's border, as a share of the image: at least 0, less than 0.5.

    Returns:
        (count, 2) float64, normalized: `control_points` for `ThinPlateSpline`.

    Raises:
        InputError: An argument has a wrong value, which the message names.

    Source: Shi et al. 2016 (RARE), figure 4.

    Example:
        >>> stn.text_edges(4, margin=0.25).tolist()
        [[-0.5, -0.5], [0.5, -0.5], [-0.5, 0.5], [0.5, 0.5]]
    """
    _check.at_least("count", count, 4)
    _check.even("count", count)
    _check.share("margin", margin, 0.5)
    edge = 1 - 2 * margin
    x = torch.linspace(-edge, edge, count // 2, dtype=torch.float64, device="cpu")
    return torch.cat([torch.stack([x, torch.full_like(x, y)], dim=-1) for y in (-edge, edge)])


def _place(control_points: int | Sequence[int] | Tensor | None, ndim: int) -> Tensor:
    if isinstance(control_points, Tensor):
        _check.control_points("control_points", control_points, ndim)
        _check.finite("control_points", control_points)
        return trainable(control_points.to("cpu", torch.float64))
    if isinstance(control_points, list | tuple) and any(isinstance(point, list | tuple) for point in control_points):
        _check.tensor("control_points", control_points)
    shape = _check.lattice_of("control_points", 4 if control_points is None else control_points, ndim, least=2)
    along = [torch.linspace(-1, 1, n, dtype=torch.float64, device="cpu") for n in shape]
    return torch.stack(torch.meshgrid(*along, indexing="ij")[::-1], dim=-1).flatten(0, -2)
