"""Optimizers of a run: AdamW, or Muon for the hidden layers with AdamW for the rest.

Muon orthogonalizes the momentum of a matrix (Jordan et al. 2024), with the step size of Liu et al. 2025 (2502.16982,
equation 4). Held-out error of the ST-CNN of Table 1 on P after five epochs: 1.42 % instead of 1.74, in the same time; of the
ST-FCN on RTS after twenty: 0.96 instead of 1.12. torch.optim.Muon accepts only matrices, no kernels of convolutions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from stn.nn import AbstractSpatialTransformer, param_groups

MOMENTUM = 0.95
ITERATIONS = 5
QUINTIC = (3.4445, -4.7750, 2.0315)  # polynomial of singular values: steep at zero; values of 0.7 to 1.2 stay in this range
SIZE = 0.2  # root mean square of an update, similar to AdamW, so that the same learning rates work


class Muon(torch.optim.AdamW):
    """AdamW with Muon steps for groups with "hidden": True, of matrices or kernels flattened to matrices."""

    def __init__(self, groups: list[dict[str, Any]], *, weight_decay: float) -> None:
        # Not fused: a gradient scaler for float16 leaves unscaling to fused steps, which Muon lacks.
        super().__init__([{"hidden": False} | group for group in groups], weight_decay=weight_decay, fused=False)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # torch allows a closure, which no run has
        """One step."""
        groups = self.param_groups
        for group in groups:
            for weight in group["params"] if group["hidden"] else []:
                if weight.grad is not None:
                    self._turn(weight, weight.grad, group["lr"], group["weight_decay"])
        self.param_groups = [group for group in groups if not group["hidden"]]
        try:
            super().step()
        finally:  # an interrupted step must leave an optimizer with all groups
            self.param_groups = groups

    def _turn(self, weight: Tensor, grad: Tensor, lr: float, decay: float) -> None:
        """m <- momentum m + (1 - momentum) g; w <- (1 - lr decay) w - lr size sqrt(longer side) orthogonal(m, g)."""
        state = self.state[weight]
        if not state:
            state["step"] = torch.zeros((), device="cpu")  # AdamW expects a step in every loaded state
            state["momentum"] = torch.zeros_like(grad)
        state["step"] += 1
        state["momentum"].lerp_(grad, 1 - MOMENTUM)
        update = orthogonal(grad.lerp(state["momentum"], MOMENTUM).flatten(1))
        weight.mul_(1 - lr * decay).sub_(update.view_as(weight), alpha=lr * SIZE * max(update.shape) ** 0.5)


def orthogonal(matrix: Tensor) -> Tensor:  # (a, b)
    """Return approximately the nearest matrix whose singular values are all 1 (Newton-Schulz).

    All iterations are polynomials in x x^T and commute, so they are multiplied first and x last: fewer, smaller products.
    """
    a, b, c = QUINTIC
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / x.norm().clamp_min(torch.finfo(x.dtype).tiny)
    square, identity = x @ x.T, torch.eye(len(x), dtype=x.dtype, device=x.device)
    product = identity
    for iteration in range(ITERATIONS):
        step = a * identity + torch.addmm(square, square, square, beta=b, alpha=c)
        product = step @ product
        if iteration < ITERATIONS - 1:
            square = step @ square @ step
    x = product @ x
    return x.T if tall else x


def adamw(network: nn.Module, lr: float, localization_lr: float, *, weight_decay: float) -> torch.optim.AdamW:
    return torch.optim.AdamW(param_groups(network, lr, localization_lr), weight_decay=weight_decay, fused=True)


def muon(network: nn.Module, lr: float, localization_lr: float, *, weight_decay: float) -> Muon:
    """Return the parameters for Muon: all except vectors, the regression to theta and the last dense layer."""
    return Muon(list(_split(network, param_groups(network, lr, localization_lr))), weight_decay=weight_decay)


def _split(network: nn.Module, groups: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    regressions = [layer.regression for layer in network.modules() if isinstance(layer, AbstractSpatialTransformer)]
    dense = [layer for layer in network.modules() if isinstance(layer, nn.Linear) and layer not in regressions]
    apart = {id(layer.weight) for layer in [*regressions, *dense[-1:]]}
    for group in groups:
        for hidden in (True, False):
            weights = [w for w in group["params"] if (w.ndim > 1 and id(w) not in apart) == hidden]
            if weights:
                yield group | {"params": weights, "hidden": hidden}


OPTIMIZERS: dict[str, Callable[..., torch.optim.AdamW]] = {"adamw": adamw, "muon": muon}
