"""Watch the transformers of a network: their thetas, the gradients of theta, and collapsed looks."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from stn.lab.experiments.folder import Row
from stn.nn import AbstractSpatialTransformer, identity_loss, look_diagnostics, off_image_loss
from stn.transforms import Warp

# Far beyond the values of any look that learns its task; `results/table1.md` has the final values of Table 1.
MOST_OFF_IMAGE, SCALES, MOST_FOLDS = 0.75, (0.05, 5.0), 0.5


class CollapseWarning(UserWarning):
    """The looks of a spatial transformer have collapsed."""


class Watch:
    """Keep the warps of the last forward pass of a network, and sum the squared gradients of theta in `squares`."""

    def __init__(self, network: nn.Module) -> None:
        self.layers = [module for module in network.modules() if isinstance(module, AbstractSpatialTransformer)]
        self._thetas: dict[AbstractSpatialTransformer, list[Tensor]] = {layer: [] for layer in self.layers}
        for layer in self.layers:
            layer.warns = False  # the rows say when it has collapsed
            layer.register_forward_pre_hook(lambda layer, _: self._thetas[layer].clear())
            layer.regression.register_forward_hook(lambda _, __, theta, layer=layer: self._see(layer, theta))
        self.squares = torch.zeros(())

    def _see(self, layer: AbstractSpatialTransformer, theta: Tensor) -> None:
        self._thetas[layer].append(theta)
        if theta.requires_grad:
            theta.register_hook(self._add)

    def _add(self, gradient: Tensor) -> None:
        self.squares = self.squares.to(gradient.device) + gradient.square().sum()

    def thetas(self, layer: AbstractSpatialTransformer) -> Tensor:
        """Return (S, N, K P): one theta per step of a layer; S = 1 unless it is recurrent."""
        return torch.stack(self._thetas[layer])

    def warps(self) -> list[Warp]:
        return [layer.composed(thetas) for layer, thetas in self._seen()]

    def _seen(self) -> list[tuple[AbstractSpatialTransformer, list[Tensor]]]:
        return [(layer, thetas) for layer, thetas in self._thetas.items() if thetas]

    def penalty(self, *, identity: float, off_image: float) -> Tensor | float:
        """Return the regularization loss of the last forward pass."""
        loss: Tensor | float = 0.0
        for layer, thetas in self._seen() if identity or off_image else []:
            warp = layer.composed_within(thetas)
            loss = loss + identity * identity_loss(warp) + off_image * off_image_loss(layer.from_start(warp))
        return loss

    def diagnostics(self) -> dict[str, Tensor]:
        """Return the mean `look_diagnostics` of the last forward pass over layers; {} without a transformer."""
        each = [look_diagnostics(warp) for warp in self.warps()]
        return {key: torch.stack([one[key] for one in each]).mean() for key in (each[0] if each else ())}


def collapse(row: Row) -> str | None:
    """Return a sentence about the collapsed looks of a row, or None."""
    if "mean_scale" not in row:
        return None
    off, scale, folds = row["off_image_share"], row["mean_scale"], row["fold_share"]
    signs: dict[str, Any] = {
        f"{100 * off:.0f} % of its sampling points lie outside the image": not off <= MOST_OFF_IMAGE,
        f"its mean scale is {scale:.3g}, a single point": not scale >= SCALES[0],
        f"its mean scale is {scale:.3g}, many times the image": not (scale <= SCALES[1] or math.isnan(scale)),
        f"{100 * folds:.0f} % of its sampling points are folded": not folds <= MOST_FOLDS,
        "theta gets no gradient": row.get("theta_gradient", 1) == 0,
    }
    seen = [sign for sign, shown in signs.items() if shown]
    if not seen:
        return None
    return (
        f"the spatial transformer has collapsed: {', '.join(seen)} (epoch {row['epoch']}). Lower localization_lr, set "
        "clip_norm, off_image_weight or identity_weight, or choose a family with fewer parameters"
    )
