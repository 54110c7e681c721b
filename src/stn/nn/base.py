"""AbstractSpatialTransformer: the parts of every layer. A localization network, a regression to theta, a first look."""

from __future__ import annotations

import functools
import operator
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, Protocol, overload

import torch
from torch import Tensor, nn

from stn import _check
from stn.ops.context import unrounded
from stn.ops.sampling import PARSED, Sampling, SamplingOptions, check_options, parse
from stn.transforms import Family, MatrixWarp, Warp, family
from stn.transforms.base import identity_of, trainable

if TYPE_CHECKING:
    from typing_extensions import Unpack


ParamGroup = dict[str, list[nn.Parameter] | float]  # of an optimizer: "params", "lr" and perhaps "weight_decay"


class LayerCall(Protocol):
    """The call of a module that returns its warp on request. Annotate `__call__` with it: for torch a call returns Any."""

    @overload
    def __call__(self, x: Tensor, return_warp: Literal[False] = False) -> Tensor: ...
    @overload
    def __call__(self, x: Tensor, return_warp: Literal[True]) -> tuple[Tensor, Warp]: ...
    @overload
    def __call__(self, x: Tensor, return_warp: bool) -> Tensor | tuple[Tensor, Warp]: ...


class AbstractSpatialTransformer(nn.Module, ABC):
    """A layer that finds theta from its input, and samples the input through the warp of theta.

    A layer is abstract or concrete: no concrete layer is the base of another. Each says in `_output_and_warp` how it looks.
    Arguments: as in `SpatialTransformer`.
    """

    __call__: LayerCall

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

    @abstractmethod
    def _output_and_warp(self, x: Tensor) -> tuple[Tensor, Warp]:
        """The output for images (N, C, *in), and the warp through which they were sampled last."""

    @overload
    def forward(self, x: Tensor, return_warp: Literal[False] = False) -> Tensor: ...
    @overload
    def forward(self, x: Tensor, return_warp: Literal[True]) -> tuple[Tensor, Warp]: ...
    @overload
    def forward(self, x: Tensor, return_warp: bool) -> Tensor | tuple[Tensor, Warp]: ...
    def forward(self, x: Tensor, return_warp: bool = False) -> Tensor | tuple[Tensor, Warp]:
        y, warp = self._output_and_warp(x)
        return (y, warp) if return_warp else y

    @property
    def sampling(self) -> Sampling:
        """The meaning of `options`, except for the fill value.

        Not an attribute: a kernel may be a function without a name, which would keep the layer from being pickled. `parse`
        keeps what it has parsed.
        """
        return parse(**{key: value for key, value in self.options.items() if key in PARSED})  # type: ignore[arg-type]  # checked above

    @torch.no_grad()
    def reset_to_identity(self) -> None:
        """Zero weights, identity bias: the layer samples through `start`, whatever the localization network returns."""
        self.regression.weight.zero_()
        self.regression.bias.copy_(identity_of(self.family, self.regression.bias).repeat(self.num_transforms))

    def localize(self, x: Tensor) -> Tensor:
        """theta: (N, P), or (N, K, P)."""
        features = self.localization(x)
        _check.localized(features, x, self.regression.in_features)
        with unrounded(x.device):
            theta = self.regression(features.to(self.regression.weight.dtype))
        return theta if self.num_transforms == 1 else theta.unflatten(-1, (self.num_transforms, -1))

    def composed(self, thetas: Sequence[Tensor]) -> Warp:
        """The warp (N, K) of all that the regression returned in a forward pass, (N, K P) each: once, or once a step."""
        return self.from_start(self.composed_within(thetas))

    def composed_within(self, thetas: Sequence[Tensor]) -> Warp:
        """The same warp without `start`: the identity, where nothing has been learned."""
        warps: list[Warp] = [self.family(theta.unflatten(-1, (self.num_transforms, -1))) for theta in thetas]
        return functools.reduce(operator.matmul, warps)

    def from_start(self, warp: Warp) -> Warp:
        """A warp within `start` -> the same of the whole image."""
        return warp if self.start is None else MatrixWarp(self.start.expand(*warp.batch, -1, -1)).after(warp)

    def param_groups(self, lr: float, localization_lr: float) -> list[ParamGroup]:
        """`param_groups` of this layer alone, for a network that builds its own groups."""
        return param_groups(self, lr, localization_lr)

    def extra_repr(self) -> str:
        parts = [repr(self.family), f"size={self.size}", f"num_transforms={self.num_transforms}"]
        return ", ".join(parts + [f"{key}={value!r}" for key, value in self.options.items()])


def param_groups(model: nn.Module, lr: float, localization_lr: float) -> list[ParamGroup]:
    """Optimizer groups of a network with spatial transformers: the localization networks learn at a rate of their own.

    The regression to theta is never decayed: decay would pull its bias from the identity to the all-zero matrix,
    a look at one point. Groups without parameters are left out.
    """
    layers = [module for module in model.modules() if isinstance(module, AbstractSpatialTransformer)]
    regression = [p for layer in layers for p in layer.regression.parameters()]
    localization = [p for layer in layers for p in layer.localization.parameters()]
    taken = {id(p) for p in regression + localization}
    groups: list[ParamGroup] = [
        {"params": [p for p in model.parameters() if id(p) not in taken], "lr": lr},
        {"params": list(dict.fromkeys(localization)), "lr": localization_lr},
        {"params": list(dict.fromkeys(regression)), "lr": localization_lr, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
