"""SharedTrunkTransformer: theta from the classifier's own features, and the input warped (Finnveden et al. 2020)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from stn import _check
from stn.nn.localization import DenseLocalization, localization_for
from stn.nn.recurrent import AbstractSteppedTransformer
from stn.ops.sampling import SamplingOptions
from stn.transforms import Family, Warp

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack


class SharedTrunkTransformer(AbstractSteppedTransformer):
    """Features of the warped input: (N, C, *in) -> trunk of (N, C, *size), which the rest of the classifier reads.

    A warped map of features is not the map of the warped input: in general no warp of features undoes a transform of the
    image. So theta is found from deep features, with the weights that classify, but it is the input that is warped, and the
    same trunk reads it. Both readings train the trunk, which learns at the rate of the network, not of the localization.
    trunk: a module (N, C, *size) -> features. localization: features -> (N, F), as in SpatialTransformer.
    steps: how often theta is found and composed, as in InverseCompositionalTransformer; so are size, start and options.

    Raises: InputError, which names the argument. Source: Finnveden, Jansson & Lindeberg 2020, section 5 (STN-SL).
    """

    def __init__(
        self,
        trunk: nn.Module,
        localization: nn.Module,
        transform: str | Family = "affine",
        size: int | Sequence[int] | None = None,
        *,
        steps: int = 1,
        features: int | None = None,
        start: Tensor | None = None,
        **options: Unpack[SamplingOptions],
    ) -> None:
        super().__init__(localization, transform, size, steps=steps, features=features, start=start, **options)
        self.trunk = trunk

    @classmethod
    def for_input(
        cls,
        in_shape: Sequence[int],  # (C, H, W)
        trunk: nn.Module,
        transform: str | Family = "affine",
        size: int | Sequence[int] | None = None,
        *,
        steps: int = 1,
        start: Tensor | None = None,
        **options: Unpack[SamplingOptions],
    ) -> Self:
        """The layer with a localization network that suits the trunk's features of images of this shape: convolutions of
        maps, dense layers of all else. It is where the trunk is, and of its dtype."""
        channels, *sides = _check.input_shape("in_shape", in_shape)
        seen = sides if size is None else _check.lengths("size", size, 2)
        features = look_at_zeros("trunk", trunk, (channels, *seen))
        shape = tuple(features.shape[1:])
        with features.device:
            localization = localization_for(shape) if len(shape) == 3 else DenseLocalization(math.prod(shape), norm=True)
            start = None if start is None else start.to(features.device)
            layer = cls(trunk, localization.to(features.dtype), transform, size, steps=steps, start=start, **options)
        layer.regression.to(torch.promote_types(features.dtype, torch.float32))
        return layer

    def localize(self, x: Tensor) -> Tensor:
        """theta: (N, P)."""
        return super().localize(self.trunk(x))

    def _output_and_warp(self, x: Tensor) -> tuple[Tensor, Warp]:
        """The trunk's features of the last look, and the warp of that look."""
        look, warp = self.last_look(x)
        return self.trunk(look), warp


@torch.no_grad()
def look_at_zeros(name: str, network: nn.Module, in_shape: Sequence[int]) -> Tensor:  # (2, ..)
    """The features of two black images, for their shape and dtype. The network is in evaluation mode meanwhile, so that no
    running mean moves, and each of its modules in its own mode afterwards."""
    weight = next((p for p in network.parameters() if p.is_floating_point()), torch.empty(0))
    modes = {module: module.training for module in network.modules()}
    try:
        features = network.eval()(torch.zeros(2, *in_shape, dtype=weight.dtype, device=weight.device))
    finally:
        for module, training in modes.items():
            module.training = training
    _check.network_features(name, features, 2)
    assert isinstance(features, Tensor)
    return features
