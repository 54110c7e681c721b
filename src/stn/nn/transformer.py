"""SpatialTransformer: the layer that learns where to look (Jaderberg et al. 2015, section 3)."""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from stn import _check
from stn.nn.localization import localization_for
from stn.ops.context import unrounded
from stn.ops.sampling import SamplingOptions, check_options
from stn.transforms import Family, MatrixWarp, Warp, family
from stn.transforms.base import identity_of, trainable

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack


class SpatialTransformer(nn.Module):
    """Localise, make the warp, sample: (N, C, *in) -> (N, C, *size), or (N, K, C, *size) with num_transforms = K > 1.

    localization: a module (N, C, *in) -> (N, F) with an attribute `out_features` = F, or give `features` = F.
    The layer adds the regression to theta, with zero weights and the identity as bias: at the start it returns its input.
    transform: a name ("affine", "tps", .. : `stn.transforms.FAMILIES`) or a family, such as `stn.BSpline(shape=(9, 9))`.
    size: output size, one number for a square; None: as the input.
    start: where the first looks are, an affine matrix (d, d+1), or (K, d, d+1): theta acts within. None: the image.
    options: mode, padding_mode, fill_value, align_corners, antialias, gradient (`stn.affine_sample`).

    Raises: InputError, which names the argument.
    """

    def __init__(
        self,
        localization: nn.Module,
        transform: str | Family = "affine",
        size: int | Sequence[int] | None = None,
        *,
        num_transforms: int = 1,
        features: int | None = None,
        start: Tensor | None = None,
        **options: Unpack[SamplingOptions],
    ) -> None:
        super().__init__()
        num_transforms = _check.at_least("num_transforms", num_transforms, 1)
        check_options(options)
        self.family = family(transform)
        self.size = None if size is None else _check.lengths("size", size, self.family.ndim)
        self.num_transforms = num_transforms
        self.options = options
        if start is not None:
            _check.start("start", start, self.family.ndim, num_transforms)
            start = trainable(start)
        self.register_buffer("start", start, persistent=False)
        self.start: Tensor | None
        self.localization = localization
        self.regression = nn.Linear(_check.features(localization, features), num_transforms * self.family.num_params)
        self.reset_to_identity()

    @classmethod
    def for_input(
        cls,
        in_shape: Sequence[int],  # (C, H, W)
        transform: str | Family = "affine",
        size: int | Sequence[int] | None = None,
        *,
        num_transforms: int = 1,
        start: Tensor | None = None,
        **options: Unpack[SamplingOptions],
    ) -> Self:
        """The layer with a localisation network that suits images of this shape, from digits to photographs."""
        return cls(localization_for(in_shape), transform, size, num_transforms=num_transforms, start=start, **options)

    @torch.no_grad()
    def reset_to_identity(self) -> None:
        """Zero weights, identity bias: every look is the first one, whatever the localisation network says."""
        self.regression.weight.zero_()
        self.regression.bias.copy_(identity_of(self.family, self.regression.bias).repeat(self.num_transforms))

    def localize(self, x: Tensor) -> Tensor:
        """theta: (N, P), or (N, K, P)."""
        features = self.localization(x)
        _check.localized(features, x, self.regression.in_features)
        with unrounded(x.device):
            theta = self.regression(features.to(self.regression.weight.dtype))
        return theta if self.num_transforms == 1 else theta.unflatten(-1, (self.num_transforms, -1))

    def forward(self, x: Tensor, return_warp: bool = False) -> Any:  # Tensor, or (Tensor, Warp)
        warp = self.from_start(self.family(self.localize(x)))
        y = warp.sample(x, self.size, **self.options)
        return (y, warp) if return_warp else y

    def composed(self, thetas: Sequence[Tensor]) -> Warp:
        """The warp (N, K) of what the regression predicted, (N, K P) each: once, or at every step of a layer of steps."""
        return self.from_start(self.composed_within(thetas))

    def composed_within(self, thetas: Sequence[Tensor]) -> Warp:
        """The same within the first look: the identity, where nothing has been learned."""
        warps: list[Warp] = [self.family(theta.unflatten(-1, (self.num_transforms, -1))) for theta in thetas]
        return functools.reduce(operator.matmul, warps)

    def from_start(self, warp: Warp) -> Warp:
        """A warp within the first look -> the same of the image."""
        return warp if self.start is None else MatrixWarp(self.start.expand(*warp.batch, -1, -1)).after(warp)

    def param_groups(self, lr: float, localization_lr: float) -> list[dict[str, Any]]:
        """`param_groups` of this layer alone, for a network that builds its own groups."""
        return param_groups(self, lr, localization_lr)

    def extra_repr(self) -> str:
        parts = [repr(self.family), f"size={self.size}", f"num_transforms={self.num_transforms}"]
        return ", ".join(parts + [f"{key}={value!r}" for key, value in self.options.items()])


def param_groups(model: nn.Module, lr: float, localization_lr: float) -> list[dict[str, Any]]:
    """Optimiser groups of a network that holds spatial transformers: the localisation learns at a rate of its own.

    The regression to theta is never decayed: decay would pull its bias from the identity to the all-zero matrix,
    a look at one point. Groups without parameters are left out.
    """
    layers = [module for module in model.modules() if isinstance(module, SpatialTransformer)]
    regression = [p for layer in layers for p in layer.regression.parameters()]
    localization = [p for layer in layers for p in layer.localization.parameters()]
    taken = {id(p) for p in regression + localization}
    groups: list[dict[str, Any]] = [
        {"params": [p for p in model.parameters() if id(p) not in taken], "lr": lr},
        {"params": list(dict.fromkeys(localization)), "lr": localization_lr},
        {"params": list(dict.fromkeys(regression)), "lr": localization_lr, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
