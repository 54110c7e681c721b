"""Gradient descent on many small, independent problems at once."""

from __future__ import annotations

import torch
from torch import Tensor

MEMORY = 8  # number of remembered steps
ARMIJO = 1e-4  # sufficient decrease, relative to the slope
BACK = 0.3  # factor of the next trial after an insufficient decrease
RESTS = 2  # consecutive short steps until a row is at rest


class Descent:
    """L-BFGS (Nocedal 1980) with backtracking, on each row of x independently.

    Evaluate the losses and gradients at `trial`, and call `update`. No entry of x changes by more than `most` in a step.
    A row whose steps are shorter than `least` is at rest.
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
        """Store a step and its change of gradient, if the curvature is positive."""
        rows = rows & ((step * bend).sum(dim=1) > 1e-8 * step.norm(dim=1) * bend.norm(dim=1))
        for name, new in (("steps", step), ("bends", bend)):
            old = getattr(self, name)
            setattr(self, name, torch.where(rows[:, None], torch.cat([new[None], old[:-1]]), old))

    def _downhill(self) -> Tensor:
        """Return -H g by the two-loop recursion over the memory, without its empty entries, limited to `most`."""
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
