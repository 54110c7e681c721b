"""Gradient descent on many small problems at once, each at its own pace."""

from __future__ import annotations

import torch
from torch import Tensor

MEMORY = 8  # steps whose curvature is remembered
ARMIJO = 1e-4  # the share of the fall that the slope promises with which a step is content
BACK = 0.3  # of a step that fell too little, what is tried next
RESTS = 2  # short steps in a row after which a row is at rest: one may be an accident


class Descent:
    """L-BFGS (Nocedal 1980) with backtracking, on each row of x by itself: no row's path depends on another's.

    Ask for `trial`, find the losses and gradients there, and `update`. No number of x moves by more than `most` in a
    step; a row whose steps are shorter than `least` is at rest.
    """

    def __init__(self, x: Tensor, most: float, least: float) -> None:  # (N, P)
        self.x, self.most, self.least = x, most, least
        self.loss = x.new_full((len(x),), torch.inf)
        self.gradient, self.direction = torch.zeros_like(x), torch.zeros_like(x)
        self.length, self.rests = x.new_ones(len(x)), x.new_zeros(len(x))
        self.steps, self.bends = x.new_zeros(2, MEMORY, *x.shape)  # of x and of its gradient, the newest first

    @property
    def trial(self) -> Tensor:
        return self.x + self.length.unsqueeze(1) * self.direction

    @property
    def at_rest(self) -> Tensor:  # (N,)
        return self.rests >= RESTS

    def update(self, loss: Tensor, gradient: Tensor) -> None:  # (N,), (N, P): at the trial
        slope = (self.direction * self.gradient).sum(dim=1)
        fell = (loss <= self.loss + ARMIJO * self.length * slope) & gradient.isfinite().all(dim=1) & ~self.at_rest
        step = self.trial - self.x
        moved = step.abs().amax(dim=1)
        known = self.loss.isfinite()  # all but the first
        self._remember(step, gradient - self.gradient, fell & known)
        row = fell.unsqueeze(1)
        self.x, self.gradient = torch.where(row, self.trial, self.x), torch.where(row, gradient, self.gradient)
        self.loss = torch.where(fell, loss, self.loss)
        self.rests = torch.where(known, torch.where(moved < self.least, self.rests + 1, 0.0), self.rests)
        self.direction = torch.where(row, self._downhill(), self.direction)
        self.length = torch.where(fell, 1.0, BACK * self.length)

    def _remember(self, step: Tensor, bend: Tensor, rows: Tensor) -> None:
        """A pair without positive curvature says nothing of the valley's shape."""
        rows = rows & ((step * bend).sum(dim=1) > 1e-8 * step.norm(dim=1) * bend.norm(dim=1))
        for name, new in (("steps", step), ("bends", bend)):
            old = getattr(self, name)
            setattr(self, name, torch.where(rows[:, None], torch.cat([new[None], old[:-1]]), old))

    def _downhill(self) -> Tensor:
        """-H g by the two loops over the memory, an empty place of which counts for nothing; not further than `most`."""
        product = (self.steps * self.bends).sum(dim=-1, keepdim=True)  # (MEMORY, N, 1)
        inverse = torch.where(product > 0, 1 / product, 0.0)
        q, shares = self.gradient, []
        for s, y, rho in zip(self.steps, self.bends, inverse, strict=True):
            shares.append(rho * (s * q).sum(dim=1, keepdim=True))
            q = q - shares[-1] * y
        square = self.bends[0].square().sum(dim=1, keepdim=True)
        steepest = self.most / q.abs().amax(dim=1, keepdim=True).clamp_min(1e-30)
        q = q * torch.where(square > 0, product[0] / square.clamp_min(1e-30), steepest)
        for s, y, rho, share in reversed(list(zip(self.steps, self.bends, inverse, shares, strict=True))):
            q = q + s * (share - rho * (y * q).sum(dim=1, keepdim=True))
        return -q * (self.most / q.abs().amax(dim=1, keepdim=True).clamp_min(1e-30)).clamp_max(1.0)
