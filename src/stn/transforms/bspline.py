"""B-spline free-form deformation: displacements at a lattice of control points, blended by cubic B-splines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from stn import _check
from stn.grid import axis
from stn.ops.options import CallOptions
from stn.ops.rules.lattice import Lattice, cubic_weights, is_served
from stn.ops.sample import Sampled, sampled
from stn.transforms.base import Family, numbers_of_lattice
from stn.transforms.batches import by
from stn.transforms.warp import Warp


@dataclass(frozen=True, init=False)
class BSpline(Family["BSplineWarp"]):
    """x' = x + f(x), f a cubic B-spline: the sum over control points of theta_ij B(u - i) B(v - j).

    theta = displacements (dx, dy[, dz]) of the control points in the order of the lattice, normalized; zeros are the
    identity exactly. The image spans the inner n - 3 intervals of n control points, so that each of its points lies
    between four. Beyond the edges of the image f stays constant.

    Args:
        ndim: 1, 2 or 3.
        shape: Number of control points along each axis, (rows, columns) or (slices, rows, columns), or of a signal; at
            least 4. None: 7.

    Raises:
        InputError: An argument has a wrong shape or value, which the message names.

    Source: Rueckert et al. 1999.

    Example:
        >>> family = stn.BSpline(shape=(4, 6))
        >>> family.num_params
        48
        >>> family(torch.full((1, 48), 0.25)).points(torch.zeros(2))  # equal displacements: a translation
        tensor([[0.2500, 0.2500]])
    """

    ndim: int
    shape: tuple[int, ...]

    def __init__(self, ndim: int = 2, *, shape: int | Sequence[int] | None = None) -> None:
        ndim = _check.dimension(ndim, (1, 2, 3), "BSpline")
        self._set(ndim=ndim, shape=_check.lattice_of("shape", (7,) * ndim if shape is None else shape, ndim, least=4))

    @property
    def parameters(self) -> Mapping[str, Sequence[int]]:
        return {"displacement": numbers_of_lattice(self.shape)}

    def identity(self) -> Tensor:
        return torch.zeros(self.num_params)

    def make(self, theta: Tensor) -> BSplineWarp:
        return BSplineWarp(theta.unflatten(-1, (*self.shape, self.ndim)))


class BSplineWarp(Warp):
    """x' = x + f(x), f a cubic B-spline over a lattice of control points."""

    def __init__(self, coefficients: Tensor) -> None:  # (N[, K], *shape, d)
        self.coefficients = coefficients
        self.ndim = coefficients.shape[-1]
        self.batch = tuple(coefficients.shape[: -self.ndim - 1])
        self.dtype, self.device = coefficients.dtype, coefficients.device

    def _details(self) -> Sequence[str]:
        return (f"{by(self.coefficients.shape[len(self.batch) : -1])} control points",)

    def map(self, xy: Tensor) -> Tensor:
        dtype = torch.promote_types(self.working_dtype, xy.dtype)
        shape, coordinates = self.coefficients.shape[len(self.batch) : -1], xy.to(dtype).unbind(dim=-1)[::-1]
        first, *others = (cubic_weights(x, n) for x, n in zip(coordinates, shape, strict=True))  # (*batch, P, n) each
        moved = first @ self.coefficients.to(dtype).flatten(len(self.batch) + 1)
        for weights in others:
            moved = (weights.unsqueeze(-1) * moved.unflatten(-1, (weights.shape[-1], -1))).sum(dim=-2)
        return (xy.to(dtype) + moved).to(torch.promote_types(self.dtype, xy.dtype))

    def _displacements(self, size: tuple[int, ...], align_corners: bool) -> Tensor:
        """Evaluate axis by axis, with a matrix (pixels of the axis, control points of the axis) per axis."""
        return spread(self.coefficients.to(self.working_dtype), size, align_corners)

    def _sample(self, image: Tensor, size: tuple[int, ...], return_mask: bool, options: CallOptions) -> Sampled:
        if not is_served(image, self.coefficients.shape[-self.ndim - 1 : -1], size):
            return super()._sample(image, size, return_mask, options)
        return sampled(image, Lattice(size, 3), self.coefficients, return_mask, options)


def spread(
    coefficients: Tensor,  # (.., *shape, d)
    size: Sequence[int],
    align_corners: bool,
    *,
    extent: float = 1.0,
) -> Tensor:  # (.., *size, d)
    """Evaluate the spline at every pixel of an image of this size, which is `extent` times as wide as the spline's."""
    # The product with the weights from the left keeps the order of axes. With the axis moved to the end, torch multiplied
    # and copied row by row, which took three times as long for volumes.
    for i, n in enumerate(reversed(size)):
        x = axis(n, align_corners=align_corners, dtype=coefficients.dtype, device=coefficients.device)
        before, after = coefficients.shape[: -2 - i], coefficients.shape[-1 - i :]
        weights = cubic_weights(extent * x, coefficients.shape[-2 - i])  # (pixels, control points)
        coefficients = (weights @ coefficients.flatten(-1 - i)).reshape(*before, n, *after)
    return coefficients
