"""SpatialTransformer: the layer of Jaderberg et al. 2015, section 3."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from stn import _check
from stn.nn.base import AbstractSpatialTransformer, family_for
from stn.nn.localization import localization_for
from stn.ops.options import SamplingOptions
from stn.transforms import Family, Warp

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack


class SpatialTransformer(AbstractSpatialTransformer):
    """The layer of Jaderberg et al. 2015: localize, make the warp, sample: (N, C, *in) -> (N, C, *size).

    The layer adds the regression to theta, with zero weights and the identity as bias: at the start it returns its
    input.

    Args:
        localization: A module (N, C, *in) -> (N, F) with an attribute `out_features` = F; otherwise give `features`. It
            reads the further inputs of a call too: `layer(x, *condition)`.
        transform: A name ("affine", "tps", .. : `stn.transforms.FAMILIES`) or a family, such as `stn.BSpline(shape=(9,
            9))`.
        size: Output size in pixels, one number for a square. None: as the sampled image.
        num_transforms: K, the number of looks at each image. With K > 1 the output is (N, K, C, *size).
        features: F, for a localization network without `out_features`.
        start: First looks, an affine matrix (d, d+1), or (K, d, d+1), normalized: theta acts within. None: the whole
            image.
        regress: Whether the layer regresses theta from the features. False: the localization network returns theta itself,
            (N, P), (N, K, P), or a map (N, K d, *shape) for families on a lattice. It then decides where the layer starts.
        **options: mode, padding_mode, fill_value, align_corners, antialias, gradient: see `stn.affine_sample`.

    Raises:
        InputError: An argument has a wrong shape or value, which the message names. TypeError: a wrong type.

    Source: Jaderberg et al. 2015, section 3.

    Example:
        >>> layer = stn.SpatialTransformer(stn.nn.DigitLocalization((1, 28, 28)), "similarity")
        >>> x = torch.rand(8, 1, 28, 28)
        >>> y, warp = layer(x, return_warp=True)
        >>> y.equal(x), warp.matrix.shape  # it starts as the identity
        (True, torch.Size([8, 2, 3]))
    """

    @classmethod
    def for_input(
        cls,
        in_shape: Sequence[int],  # (C, H, W) or (C, L)
        transform: str | Family = "affine",
        size: int | Sequence[int] | None = None,
        *,
        num_transforms: int = 1,
        start: Tensor | None = None,
        **options: Unpack[SamplingOptions],
    ) -> Self:
        """Make the layer with a localization network that suits images of this shape, from digits to photographs,
        or signals.

        Args:
            in_shape: (C, H, W) of the images, or (C, L) of signals.
            transform: As in the class. Rotations keep shapes in images of this aspect: see `stn.Rigid`.
            size: As in the class.
            num_transforms: As in the class.
            start: As in the class.
            **options: As in the class.

        Example:
            >>> layer = stn.SpatialTransformer.for_input((3, 128, 128), "attention", size=32, num_transforms=2)
            >>> layer(torch.rand(4, 3, 128, 128)).shape
            torch.Size([4, 2, 3, 32, 32])
        """
        in_shape = _check.input_shape("in_shape", in_shape, signals=True)
        own = family_for(transform, in_shape, start)
        return cls(localization_for(in_shape), own, size, num_transforms=num_transforms, start=start, **options)

    def _output_and_warp(self, x: Tensor, condition: Sequence[Any], image: Tensor | None) -> tuple[Tensor, Warp]:
        warp = self.from_start(self.family(self.localize(x, *condition)))
        return warp.sample(x if image is None else image, self.size, **self.options), warp
