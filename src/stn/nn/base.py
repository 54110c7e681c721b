"""AbstractSpatialTransformer: the parts of every layer. A localization network, a regression to theta, a first look."""

from __future__ import annotations

import functools
import operator
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast, overload

import torch
from torch import Tensor, nn

from stn import _check
from stn.nn.meaning import decoded, encoded, of_layer, warn_if_other
from stn.nn.recording import recording, refuse_script
from stn.nn.regression import GivenTheta, ThetaRegression
from stn.nn.start import warn_if_lost
from stn.ops.context import observed
from stn.ops.options import PARSED, SamplingOptions, check_options, parse
from stn.ops.sampling import Sampling
from stn.transforms import Family, MatrixWarp, Warp, family
from stn.transforms.aspect import of_part
from stn.transforms.base import Constants, identity_of

if TYPE_CHECKING:
    from typing_extensions import Unpack


ParamGroup = dict[str, list[nn.Parameter] | float]  # of an optimizer: "params", "lr" and perhaps "weight_decay"


class LayerCall(Protocol):
    """The type of the call of a layer. Torch itself types every call as Any."""

    @overload
    def __call__(
        self, x: Tensor, *condition: Any, image: Tensor | None = None, return_warp: Literal[False] = False
    ) -> Tensor: ...
    @overload
    def __call__(
        self, x: Tensor, *condition: Any, image: Tensor | None = None, return_warp: Literal[True]
    ) -> tuple[Tensor, Warp]: ...
    @overload
    def __call__(
        self, x: Tensor, *condition: Any, image: Tensor | None = None, return_warp: bool
    ) -> Tensor | tuple[Tensor, Warp]: ...


class AbstractSpatialTransformer(nn.Module, ABC):
    """A layer that finds theta from its input, and samples the input through the warp of theta.

    It is the base of `SpatialTransformer`, whose arguments it has, of `InverseCompositionalTransformer` and of
    `SharedTrunkTransformer`. No concrete layer is the base of another one. Each layer defines in `_output_and_warp` how it
    samples its input.

    Example:
        >>> model = nn.Sequential(stn.SpatialTransformer.for_input((1, 28, 28)), nn.Flatten())
        >>> [type(layer).__name__ for layer in model.modules() if isinstance(layer, stn.nn.AbstractSpatialTransformer)]
        ['SpatialTransformer']
    """

    __call__: LayerCall
    warns: bool = True  # whether a training pass may still warn that the layer is lost; False to silence it
    _passes: int = 0  # in training

    def __init__(
        self,
        localization: nn.Module,
        transform: str | Family = "affine",
        size: int | Sequence[int] | None = None,
        *,
        num_transforms: int = 1,
        features: int | None = None,
        start: Tensor | None = None,
        regress: bool = True,
        **options: Unpack[SamplingOptions],
    ) -> None:
        super().__init__()
        num_transforms = _check.at_least("num_transforms", num_transforms, 1)
        check_options(options)
        self.family = family(transform)
        self.size = None if size is None else _check.lengths("size", size, self.family.ndim)
        self.num_transforms = num_transforms
        self.options = options
        self._set_start(start)
        self.localization = localization
        if regress:
            self.regression = ThetaRegression(_check.features(localization, features), self.family, num_transforms)
        else:  # it has no parameters; few users touch them
            self.regression = cast(ThetaRegression, GivenTheta(self.family, num_transforms))

    @abstractmethod
    def _output_and_warp(self, x: Tensor, condition: Sequence[Any], image: Tensor | None) -> tuple[Tensor, Warp]:
        """Return the output for images (N, C, *in), and the warp through which they, or `image`, were sampled last."""

    @overload
    def forward(
        self, x: Tensor, *condition: Any, image: Tensor | None = None, return_warp: Literal[False] = False
    ) -> Tensor: ...
    @overload
    def forward(
        self, x: Tensor, *condition: Any, image: Tensor | None = None, return_warp: Literal[True]
    ) -> tuple[Tensor, Warp]: ...
    @overload
    def forward(
        self, x: Tensor, *condition: Any, image: Tensor | None = None, return_warp: bool
    ) -> Tensor | tuple[Tensor, Warp]: ...
    def forward(
        self, x: Tensor, *condition: Any, image: Tensor | None = None, return_warp: bool = False
    ) -> Tensor | tuple[Tensor, Warp]:
        """Transform images.

        Args:
            x: Images (N, C, *in).
            *condition: Further inputs of the localization network, after x.
            image: The images to sample, (N, C', *any): of another size, of other features, or of another modality. Both
                span [-1, 1], whatever their sizes. None: x.
            return_warp: Also return the warp through which the images were sampled last.

        Returns:
            The output of the layer, or a pair of it and the warp.

        Raises:
            InputError: An input has a wrong shape. TypeError: the images are not floating point.
        """
        _check.condition(condition)
        source = x if image is None else image
        with recording():
            _check.sampled_image("x" if image is None else "image", source, self.family.ndim)
            y, warp = self._output_and_warp(x, condition, image)
        if self.training and not observed(source) and not source.is_meta:
            self._watch(warp, source)
        return (y, warp) if return_warp else y

    def __prepare_scriptable__(self) -> None:
        refuse_script(self)

    def _watch(self, warp: Warp, x: Tensor) -> None:
        """Warn once if the layer is lost. It looks in the passes 1, 2, 4, 8, .., because each look waits for the device."""
        if x.is_cuda and torch.cuda.is_current_stream_capturing():
            return
        self._passes += 1
        if self.warns and self._passes & (self._passes - 1) == 0:
            identity = identity_of(self.family, torch.empty(0, dtype=warp.working_dtype, device=warp.device))
            looks = (1, -1) if self.num_transforms == 1 else (1, self.num_transforms, -1)
            self.warns = not warn_if_lost(warp, self.from_start(self.family(identity.expand(looks))), x)

    @property
    def start(self) -> Tensor | None:
        """The first looks, (d, d+1) or (K, d, d+1), or None: a constant, which moves with the regression, not a buffer.

        `to_empty`, which materializes layers of the meta device, would lose the numbers of a buffer outside the state dict.
        """
        return None if self._start is None else self._start.first()

    @start.setter
    def start(self, start: Tensor | None) -> None:
        self._set_start(start)

    def _set_start(self, start: Tensor | None) -> None:
        if start is not None:
            _check.start("start", start, self.family.ndim, self.num_transforms)
        self._start = None if start is None else Constants(start)

    def get_extra_state(self) -> Tensor:
        """Return what the numbers of theta mean, for the state dict: see `stn.nn.meaning`."""
        return encoded(self._meaning())

    def set_extra_state(self, state: object) -> None:
        """Warn if the numbers come from a layer in which they mean another transform.

        Args:
            state: As `get_extra_state` returns it.
        """
        warn_if_other(decoded(state), self._meaning())

    def _meaning(self) -> dict[str, Any]:
        return of_layer(self.family, self.num_transforms, self.start, bool(self.options.get("align_corners", False)))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Load state dicts without extra state too: older ones, and those of other networks."""
        super()._load_from_state_dict(state_dict, prefix, *args)
        missing: list[str] = args[2]
        missing[:] = [key for key in missing if key != f"{prefix}_extra_state"]

    @property
    def sampling(self) -> Sampling:
        """The meaning of `options`, except for the fill value.

        Not an attribute: a kernel may be a function without a name, which would keep the layer from being pickled. `parse`
        keeps what it has parsed.
        """
        return parse(**{key: value for key, value in self.options.items() if key in PARSED})  # type: ignore[arg-type]  # checked above

    def reset_to_identity(self) -> None:
        """Set zero weights and the identity as bias: the layer samples through `start`, whatever the features are."""
        self.regression.reset_parameters()

    def localize(self, x: Tensor, *condition: Any) -> Tensor:
        """Find theta: (N, P), or (N, K, P) with num_transforms = K > 1.

        Args:
            x: Images (N, C, *in).
            *condition: Further inputs of the localization network.

        Raises:
            InputError: x has a wrong shape, or the localization network does not return (N, F).
        """
        if not condition:
            _check.network_input(x, self.localization, self.family.ndim)
        found = self.localization(x, *condition)
        _check.localized(found, x, getattr(self.regression, "in_features", None))
        theta: Tensor = self.regression(found)
        return theta if self.num_transforms == 1 else theta.unflatten(-1, (self.num_transforms, -1))

    def composed(self, thetas: Sequence[Tensor]) -> Warp:
        """Compose the warp (N, K) from the outputs of the regression in one forward pass.

        Args:
            thetas: (N, K P) each: one for a single pass, or one for each step.
        """
        return self.from_start(self.composed_within(thetas))

    def composed_within(self, thetas: Sequence[Tensor]) -> Warp:
        """Return the same warp without `start`: the identity, where nothing has been learned."""
        warps: list[Warp] = [self.family(theta.unflatten(-1, (self.num_transforms, -1))) for theta in thetas]
        return functools.reduce(operator.matmul, warps)

    def from_start(self, warp: Warp) -> Warp:
        """Convert a warp within `start` to the same warp of the whole image. It keeps its theta."""
        if self._start is None:
            return warp
        (start,) = self._start.on(warp.device)
        whole = MatrixWarp(start.expand(*warp.batch, -1, -1)).after(warp)
        whole.theta = warp.theta
        return whole

    def param_groups(self, lr: float, localization_lr: float) -> list[ParamGroup]:
        """Return the `stn.param_groups` of this layer alone, for a network that builds its own groups."""
        return param_groups(self, lr, localization_lr)

    def extra_repr(self) -> str:
        parts = [repr(self.family), f"size={self.size}", f"num_transforms={self.num_transforms}"]
        return ", ".join(parts + [f"{key}={value!r}" for key, value in self.options.items()])


def family_for(transform: str | Family, in_shape: Sequence[int], start: Tensor | None) -> Family:
    """Return the family of a layer for signals or images (C, *in), of whose part `start` it has the shape."""
    if start is not None:
        _check.start("start", start, len(in_shape) - 1, len(start) if getattr(start, "ndim", 0) else 1)
    return family(transform, len(in_shape) - 1, aspect=of_part(in_shape[1:], start))


def param_groups(model: nn.Module, lr: float, localization_lr: float) -> list[ParamGroup]:
    """Make optimizer groups of a network with spatial transformers: localization networks learn at a rate of their own.

    The regression to theta has no weight decay: decay would pull its bias from the identity to the all-zero matrix, a
    look at one point. Groups without parameters are left out.

    Args:
        model: A network that contains layers of `stn.nn`, or is one.
        lr: Learning rate of the rest.
        localization_lr: Learning rate of the localization networks and of the regression to theta.

    Returns:
        Groups for an optimizer of `torch.optim`: the rest, the localization networks, the regressions.

    Example:
        >>> layer = stn.SpatialTransformer.for_input((1, 28, 28))
        >>> model = nn.Sequential(layer, nn.Flatten(), nn.Linear(784, 10))
        >>> optimizer = torch.optim.SGD(stn.param_groups(model, lr=0.1, localization_lr=0.01), weight_decay=1e-4)
        >>> for group in optimizer.param_groups:
        ...     print(group["lr"], group["weight_decay"])
        0.1 0.0001
        0.01 0.0001
        0.01 0.0
    """
    _check.made("model", model, nn.Module, "nn.Sequential(layer, ..)")
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
