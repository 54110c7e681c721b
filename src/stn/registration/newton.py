"""Levenberg-Marquardt for warps that are matrices, where the loss is a sum of squares: "mse", and "ncc" by its residual.

A residual depends on the entries of a matrix P through the gradient g of the moving image at x' = P (x, 1) / w. A step
needs no more than the products of these columns J with each other, with the warped values a, the fixed values b and 1,
summed over pixels: the Gram matrix of [J, a, b, 1]. The loss, its slope and the Gauss-Newton matrix are functions of it.
The chain rule then goes from P to theta.

ncc is half the squared distance between a and b, each without its mean and of length 1 (Evangelidis and Psarakis 2008).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from stn.grid import lattice
from stn.ops import affine_sample, projective_sample
from stn.ops.context import coordinate_dtype
from stn.registration.losses import Pair

CHUNK = 2**13  # pixels that are summed in float32; their sums are added in float64
OVERLAP = 0.1  # share of the fixed image below which a warp counts as no solution
DAMPING, LEAST_DAMPING, MOST_DAMPING = 1e-2, 1e-6, 1e6
RISE = 1e-2  # relative rise of the loss that a step below SHORT pixels may have: the loss is noisy, the slope less so
SHORT = 0.25


class Quadratic(NamedTuple):
    """A loss near a position: (B,), (B, P), (B, P, P)."""

    loss: Tensor
    slope: Tensor
    curvature: Tensor


class Samples:
    """A pair of a level, at every `stride`-th pixel of the fixed image along each axis."""

    def __init__(self, pair: Pair, stride: int, *, scales: bool) -> None:
        moving, fixed = pair.moving, pair.fixed
        self.ndim = d = fixed.ndim - 2
        precise = coordinate_dtype(fixed.device)
        place = (slice(None), slice(None), *[slice(stride // 2, None, stride)] * d)
        self.size = tuple(fixed[place].shape[2:])
        self.to_fixed = self._to_fixed(tuple(fixed.shape[2:]), stride).to(fixed.device, precise)
        x = lattice(self.size, dtype=precise, device=fixed.device).flatten(0, -2)  # normalized in the sampled lattice
        x = x * self.to_fixed.diagonal()[:-1] + self.to_fixed[:-1, -1]
        self.x = torch.cat([x, torch.ones_like(x[:, :1])], dim=1).mT.to(fixed.dtype)  # (d+1, n)
        axes = tuple(range(2, fixed.ndim))
        shift, scale = _spread(fixed, axes)
        self.unit = torch.ones_like(scale) if scales else scale
        own = _spread(moving, axes) if scales else (shift, scale)
        self.moving = features((moving - own[0]) / own[1], pair.moving_mask)
        self.fixed = ((fixed[place] - shift) / scale).flatten(2)  # (N, C, n)
        mask = pair.fixed_mask
        self.weight = torch.ones_like(self.fixed[:, :1]) if mask is None else mask[place].flatten(2)  # (N, 1, n)
        self.scales = scales

    def _to_fixed(self, full: tuple[int, ...], stride: int) -> Tensor:
        """Return the matrix (d+1, d+1) from normalized points of the sampled lattice to those of the fixed image."""
        pairs = list(zip(reversed(full), reversed(self.size), strict=True))
        steps = [*(stride * m / n for n, m in pairs), 1.0]
        square = torch.diag(torch.tensor(steps, dtype=torch.float64, device="cpu"))
        offset = [(2 * (stride // 2) + stride * (m - 1) + 1) / n - 1 for n, m in pairs]
        square[:-1, -1] = square.new_tensor(offset)
        return square

    def gram(self, matrix: Tensor) -> Tensor:  # (N, K, rows, d+1) -> (N, K, C, E + 3, E + 3)
        """Sum the products of [J, a, b, 1] over pixels."""
        d, rows = self.ndim, matrix.shape[-2]
        theta = (matrix @ self.to_fixed).to(self.moving.dtype)
        sample = affine_sample if rows == d else projective_sample
        found = sample(self.moving, theta, self.size).flatten(3)  # (N, K, C (1 + d) + 1, n)
        inside = found[:, :, -1:]  # the share of the kernel inside the image and its mask
        value = found[:, :, :-1].unflatten(2, (-1, 1 + d)) / inside.unsqueeze(3).clamp_min(1e-6)  # (N, K, C, 1 + d, n)
        root = (inside * self.weight.unsqueeze(1)).clamp_min(0).sqrt().unsqueeze(3)  # (N, K, 1, 1, n)
        weighted = value * root
        a, g = weighted[..., :1, :], weighted[..., 1:, :]
        x = self.x
        if rows > d:  # dx'/dP = (e_i - x' e_w) (x, 1) / w
            mapped = (matrix.to(x.dtype) @ x).unsqueeze(2)  # (N, K, 1, d+1, n)
            w = mapped[..., -1:, :]
            w = torch.where(w.abs() < 1e-6, 1e-6, w)
            g = g / w
            g = torch.cat([g, -(g * mapped[..., :-1, :] / w).sum(dim=-2, keepdim=True)], dim=-2)
        columns = (g.unsqueeze(-2) * x).flatten(-3, -2)  # (N, K, C, E, n)
        ones = root.expand_as(a)
        table = torch.cat([columns, a, self.fixed[:, None, :, None] * ones, ones], dim=-2)
        total = torch.zeros((), dtype=coordinate_dtype(table.device), device=table.device)
        for part in table.split(CHUNK, dim=-1):
            total = total + (part @ part.mT).to(total.dtype)
        return total

    def quadratic(self, matrix: Tensor) -> Quadratic:  # by the E entries of the matrix
        gram = self.gram(matrix)
        jj, ja, jb, j1 = gram[..., :-3, :-3], *gram[..., :-3, -3:].unbind(dim=-1)
        aa, ab, bb = gram[..., -3, -3], gram[..., -3, -2], gram[..., -2, -2]
        a1, b1, count = gram[..., -3, -1], gram[..., -2, -1], gram[..., -1, -1].clamp_min(1e-12)
        if self.scales:
            aa, ab, bb = (v - p * q / count for v, p, q in ((aa, a1, a1), (ab, a1, b1), (bb, b1, b1)))
            ja, jb = (v - j1 * (m / count).unsqueeze(-1) for v, m in ((ja, a1), (jb, b1)))
            jj = jj - _outer(j1) / count[..., None, None]
            aa, bb = aa.clamp_min(0) + 1e-5 * count, bb.clamp_min(0) + 1e-5 * count  # as FLAT in the loss
            norm = (aa * bb).sqrt()
            r = ab / norm
            loss = 1 - r
            slope = ja * (r / aa).unsqueeze(-1) - jb / norm.unsqueeze(-1)
            curvature = (jj - _outer(ja) / aa[..., None, None]) / aa[..., None, None]
        else:
            factor = (self.unit.to(count.dtype).flatten(1).square().unsqueeze(1) / count).unsqueeze(-1)
            loss = (aa - 2 * ab + bb).clamp_min(0) * factor.squeeze(-1)
            slope, curvature = 2 * (ja - jb) * factor, 2 * jj * factor.unsqueeze(-1)
        enough = count[:, :, 0] > OVERLAP * self.weight.sum(dim=(1, 2)).unsqueeze(1)
        return Quadratic(torch.where(enough, loss.mean(dim=2), torch.inf), slope.mean(dim=2), curvature.mean(dim=2))


def _spread(image: Tensor, axes: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Return the mean and the standard deviation of each channel, the latter positive."""
    deviation, mean = torch.std_mean(image, dim=axes, keepdim=True, correction=0)
    return mean, torch.where(deviation > 0, deviation, 1)


def _outer(v: Tensor) -> Tensor:
    return v.unsqueeze(-1) * v.unsqueeze(-2)


def features(image: Tensor, mask: Tensor | None) -> Tensor:  # (N, C, *size), (N, 1, *size) -> (N, C (1 + d) + 1, *size)
    """Return the values, their central differences per half width, and 1, all times the mask.

    Sampled with zeros outside and divided by the last, they are those of the nearest pixels of the image and the mask.
    Noise that is equal in a central difference and a value averages out; in the slope of the interpolated image it does
    not, and would pull the solution to the middle between pixels.
    """
    axes = list(range(image.ndim - 1, 1, -1))
    spacing = [2 / image.shape[axis] for axis in axes]
    slopes = [
        torch.gradient(image, spacing=step, dim=axis)[0] if image.shape[axis] > 1 else torch.zeros_like(image)
        for step, axis in zip(spacing, axes, strict=True)
    ]
    values = torch.stack([image, *slopes], dim=2).flatten(1, 2)
    if mask is None:
        return torch.cat([values, torch.ones_like(image[:, :1])], dim=1)
    return torch.cat([values * mask, mask.expand(len(image), *mask.shape[1:])], dim=1)


class Damped:
    """Levenberg-Marquardt steps on many small problems at once: x (N, K, P), whose problems have K starts.

    Evaluate the `Quadratic` at `trial`, and call `update`. A problem whose last step moved no point by `least` is at rest.
    """

    def __init__(self, x: Tensor, pixel: float, most: float, least: float) -> None:
        self.x, self.pixel, self.most, self.least = x, pixel, most, least
        self.step = torch.zeros_like(x)
        self.loss = x.new_full(x.shape[:2], torch.inf)
        self.slope, self.curvature = torch.zeros_like(x), x.new_zeros(*x.shape, x.shape[-1])
        self.damping = torch.full_like(self.loss, DAMPING)
        self.at_rest = torch.zeros_like(self.loss, dtype=torch.bool)

    @property
    def trial(self) -> Tensor:
        return self.x + self.step

    def update(self, found: Quadratic) -> None:
        moved = self.step.abs().amax(dim=-1)
        known = self.loss.isfinite()
        limit = torch.where(moved < SHORT * self.pixel, self.loss + RISE * self.loss.abs(), self.loss)
        fell = (found.loss <= limit) & found.slope.isfinite().all(dim=-1) & ~self.at_rest
        row = fell.unsqueeze(-1)
        self.x = torch.where(row, self.trial, self.x)
        self.loss = torch.where(fell, found.loss, self.loss)
        self.slope = torch.where(row, found.slope, self.slope)
        self.curvature = torch.where(row.unsqueeze(-1), found.curvature, self.curvature)
        factor = torch.where(fell & known, 0.1, torch.where(fell, 1.0, 10.0))
        self.damping = (self.damping * factor).clamp(LEAST_DAMPING, MOST_DAMPING)
        lost = ~self.loss.isfinite()  # a start where the images hardly overlap
        self.at_rest = self.at_rest | lost | (known & (moved < self.least * self.pixel))
        self.step = torch.where(self.at_rest.unsqueeze(-1), 0, self._solved())

    def _solved(self) -> Tensor:
        """Return -(C + damping diag C)^-1 slope, no entry above `most` pixels."""
        diagonal = self.curvature.diagonal(dim1=-2, dim2=-1)
        floor = 1e-9 * diagonal.amax(dim=-1, keepdim=True) + 1e-30
        matrix = self.curvature + torch.diag_embed(self.damping.unsqueeze(-1) * diagonal + floor)
        step = -torch.linalg.solve_ex(matrix, self.slope.unsqueeze(-1))[0].squeeze(-1)
        step = torch.where(step.isfinite(), step, 0)
        longest = step.abs().amax(dim=-1, keepdim=True).clamp_min(1e-30)
        return step * (self.most * self.pixel / longest).clamp_max(1.0)

    def keep(self, count: int) -> None:
        """Keep the best `count` starts of each problem."""
        best = self.loss.topk(count, dim=1, largest=False).indices
        for name in ("x", "step", "loss", "slope", "curvature", "damping", "at_rest"):
            value = getattr(self, name)
            index = best.view(*best.shape, *(1,) * (value.ndim - 2)).expand(*best.shape, *value.shape[2:])
            setattr(self, name, value.gather(1, index))
