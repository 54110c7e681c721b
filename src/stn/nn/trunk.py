"""SharedTrunkTransformer: theta from the classifier's own features, and the input warped (Finnveden et al. 2020)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from stn.nn.recurrent import InverseCompositionalTransformer
from stn.ops.sample import SamplingOptions
from stn.transforms import Family

if TYPE_CHECKING:
    from typing_extensions import Unpack


class SharedTrunkTransformer(InverseCompositionalTransformer):
    """Features of the warped input: (N, C, *in) -> trunk of (N, C, *size), which the rest of the classifier reads.

    A warped map of features is not the map of the warped input: in general no warp of features undoes a transform of the
    image. So theta is found from deep features, with the weights that classify, but it is the input that is warped, and the
    same trunk reads it. Both readings train the trunk, which learns at the rate of the network, not of the localisation.
    trunk: a module (N, C, *size) -> features. localization: features -> (N, F), as in SpatialTransformer.
    steps: how often theta is found and composed, as in InverseCompositionalTransformer; so are size, start and options.

    Raises: InputError, which names the argument. Source: Finnveden, Jansson & Lindeberg 2020, section 5 (STN-SL).
    """

    def __init__(
        self,
        trunk: nn.Module,
        localization: nn.Module,
        transform: str | Family = "affine",
        size: Sequence[int] | None = None,
        *,
        steps: int = 1,
        features: int | None = None,
        start: Tensor | None = None,
        **options: Unpack[SamplingOptions],
    ) -> None:
        super().__init__(localization, transform, size, steps=steps, features=features, start=start, **options)
        self.trunk = trunk

    def localize(self, x: Tensor) -> Tensor:
        """theta: (N, P)."""
        return super().localize(self.trunk(x))

    def forward(self, x: Tensor, return_warp: bool = False) -> Any:  # features, or (features, Warp)
        look, warp = super().forward(x, return_warp=True)
        return (self.trunk(look), warp) if return_warp else self.trunk(look)
