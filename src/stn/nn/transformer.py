"""SpatialTransformer: the layer that learns where to look (Jaderberg et al. 2015, section 3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from stn.nn.base import AbstractSpatialTransformer
from stn.nn.localization import localization_for
from stn.ops.sampling import SamplingOptions
from stn.transforms import Family, Warp

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack


class SpatialTransformer(AbstractSpatialTransformer):
    """Localize, make the warp, sample: (N, C, *in) -> (N, C, *size), or (N, K, C, *size) with num_transforms = K > 1.

    localization: a module (N, C, *in) -> (N, F) with an attribute `out_features` = F, or give `features` = F.
    The layer adds the regression to theta, with zero weights and the identity as bias: at the start it returns its input.
    transform: a name ("affine", "tps", .. : `stn.transforms.FAMILIES`) or a family, such as `stn.BSpline(shape=(9, 9))`.
    size: output size, one number for a square; None: as the input.
    start: where the first looks are, an affine matrix (d, d+1), or (K, d, d+1): theta acts within. None: the image.
    options: mode, padding_mode, fill_value, align_corners, antialias, gradient (`stn.affine_sample`).

    Raises: InputError, which names the argument.
    """

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
        """The layer with a localization network that suits images of this shape, from digits to photographs."""
        return cls(localization_for(in_shape), transform, size, num_transforms=num_transforms, start=start, **options)

    def _output_and_warp(self, x: Tensor) -> tuple[Tensor, Warp]:
        warp = self.from_start(self.family(self.localize(x)))
        return warp.sample(x, self.size, **self.options), warp
