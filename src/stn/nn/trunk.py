"""SharedTrunkTransformer: theta from the classifier's own features, and the input warped (Finnveden et al. 2020)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from stn import _check
from stn.nn.base import family_for
from stn.nn.localization import DenseLocalization, localization_for
from stn.nn.recurrent import AbstractSteppedTransformer
from stn.ops.options import SamplingOptions
from stn.transforms import Family, Warp

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack


class SharedTrunkTransformer(AbstractSteppedTransformer):
    """A layer that shares its localization features with the classifier: (N, C, *in) -> trunk of (N, C, *size).

    A warped feature map is not the feature map of the warped input: in general no warp of features undoes a transform
    of the image. Theta is therefore found from deep features, with the weights that classify, but the input is warped,
    and the same trunk reads the result. Both passes train the trunk, which learns at the rate of the network, not at
    that of the localization.

    Args:
        trunk: A module (N, C, *size) -> features, which the rest of the classifier reads.
        localization: A module features -> (N, F) with an attribute `out_features` = F; otherwise give `features`.
        transform: A name ("affine", "tps", .. : `stn.transforms.FAMILIES`) or a family, such as `stn.BSpline(shape=(9,
            9))`.
        size: Output size in pixels, one number for a square. None: as the input.
        steps: How often theta is found and composed, as in `InverseCompositionalTransformer`; at least 1.
        features: F, for a localization network without `out_features`.
        start: Part of the image from which the steps begin: an affine matrix (d, d+1), normalized. None: the whole
            image.
        regress: As in `SpatialTransformer`.
        **options: mode, padding_mode, fill_value, align_corners, antialias, gradient: see `stn.affine_sample`.

    Raises:
        InputError: An argument has a wrong shape or value, which the message names. TypeError: a wrong type.

    Source: Finnveden, Jansson & Lindeberg 2020, section 5 (STN-SL).

    Example:
        >>> trunk = nn.Sequential(nn.Conv2d(1, 8, 5, stride=2), nn.ReLU())
        >>> layer = stn.SharedTrunkTransformer.for_input((1, 28, 28), trunk)
        >>> layer(torch.rand(2, 1, 28, 28)).shape  # features of the warped input
        torch.Size([2, 8, 12, 12])
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
        regress: bool = True,
        **options: Unpack[SamplingOptions],
    ) -> None:
        super().__init__(
            localization, transform, size, steps=steps, features=features, start=start, regress=regress, **options
        )
        self.trunk = _check.made("trunk", trunk, nn.Module, "nn.Conv2d(3, 16, 5)")

    @classmethod
    def for_input(
        cls,
        in_shape: Sequence[int],  # (C, H, W) or (C, L)
        trunk: nn.Module,
        transform: str | Family = "affine",
        size: int | Sequence[int] | None = None,
        *,
        steps: int = 1,
        start: Tensor | None = None,
        **options: Unpack[SamplingOptions],
    ) -> Self:
        """Make the layer with a localization network that suits the trunk's features of images of this shape.

        It has convolutions for feature maps, dense layers for all other features, and the trunk's device and dtype.

        Args:
            in_shape: (C, H, W) of the images, or (C, L) of signals.
            trunk: As in the class.
            transform: As in the class. Rotations keep shapes in images of this aspect: see `stn.Rigid`.
            size: As in the class.
            steps: As in the class.
            start: As in the class.
            **options: As in the class.

        Raises:
            InputError: The trunk does not return features (N, ..), or an argument has a wrong value.
        """
        channels, *sides = _check.input_shape("in_shape", in_shape, signals=True)
        seen = sides if size is None else _check.lengths("size", size, len(sides))
        _check.made("trunk", trunk, nn.Module, "nn.Conv2d(3, 16, 5)")
        features = look_at_zeros("trunk", trunk, (channels, *seen))
        shape = tuple(features.shape[1:])
        own = family_for(transform, (channels, *sides), start)
        with features.device:
            is_map = len(shape) == len(in_shape)
            localization = localization_for(shape) if is_map else DenseLocalization(math.prod(shape), norm=True)
            layer = cls(trunk, localization.to(features.dtype), own, size, steps=steps, start=start, **options)
        layer.regression.to(torch.promote_types(features.dtype, torch.float32))
        return layer

    def localize(self, x: Tensor, *condition: Any) -> Tensor:
        """Find theta (N, P) from the trunk's features.

        Args:
            x: Looks (N, C, *size).
            *condition: Further inputs of the localization network.
        """
        return super().localize(self.trunk(x), *condition)

    def _output_and_warp(self, x: Tensor, condition: Sequence[Any], image: Tensor | None) -> tuple[Tensor, Warp]:
        """Return the trunk's features of the last look, and the warp of that look."""
        look, warp = self.last_look(x, *condition, image=image)
        return self.trunk(look), warp


@torch.no_grad()
def look_at_zeros(name: str, network: nn.Module, in_shape: Sequence[int]) -> Tensor:  # (2, ..)
    """Return the features of two black images, for their shape and dtype.

    The network is in evaluation mode meanwhile, so that running means stay unchanged. The mode of each module is
    restored.
    """
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
