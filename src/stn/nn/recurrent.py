"""InverseCompositionalTransformer: alignment in several small steps (IC-STN, Lin & Lucey 2017)."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from stn import _check
from stn.nn.base import AbstractSpatialTransformer, family_for
from stn.nn.localization import localization_for
from stn.ops import Pyramid
from stn.ops.options import CallOptions, SamplingOptions, reads_levels
from stn.transforms import Family, MatrixWarp, Warp
from stn.transforms.base import identity_of

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack


class AbstractSteppedTransformer(AbstractSpatialTransformer):
    """A layer that composes its warp p in `steps` steps: p <- p o dp, with dp from the look through p.

    Other arguments: as in `SpatialTransformer`, without num_transforms.
    """

    def __init__(
        self,
        localization: nn.Module,
        transform: str | Family = "affine",
        size: int | Sequence[int] | None = None,
        *,
        steps: int = 4,
        features: int | None = None,
        start: Tensor | None = None,
        regress: bool = True,
        **options: Unpack[SamplingOptions],
    ) -> None:
        steps = _check.at_least("steps", steps, 1)
        super().__init__(localization, transform, size, features=features, start=start, regress=regress, **options)
        self.steps = steps

    def looks(self, x: Tensor, *condition: Any, image: Tensor | None = None) -> Iterator[tuple[Tensor, Warp]]:
        """Iterate over the looks before each step and after the last one: steps + 1 of them, each with its warp.

        Args:
            x: Images (N, C, *in).
            *condition: Further inputs of the localization network in each step.
            image: The images of the last look. None: x.
        """
        warp = self.first_warp(x.shape[0], x)
        options: CallOptions = {**self.options, "pyramid": self._pyramid(x)}
        whole = self._start is None and self.size in (None, tuple(x.shape[2:]))
        look = x if whole else warp.sample(x, self.size, **options)
        yield look, warp
        for step in range(self.steps):
            change: Warp = self.family(self.localize(look, *condition))
            warp = warp.after(change) if step else self.from_start(change)
            if image is None or step < self.steps - 1:
                look = warp.sample(x, self.size, **options)
            else:
                look = warp.sample(image, self.size, **self.options)
            yield look, warp

    def first_warp(self, count: int, like: Tensor | None = None) -> Warp:
        """Return the initial warp (`start`, or the identity) for `count` images.

        Args:
            count: Number of images.
            like: A tensor with the device of the warp. None: the regression's weight.
        """
        known: Tensor | None = getattr(self.regression, "weight", like)
        as_given = torch.empty(0) if known is None else known
        if self._start is not None:
            (start,) = self._start.on(as_given.device)
            return MatrixWarp(start.expand(count, -1, -1))
        warp: Warp = self.family(identity_of(self.family, as_given).expand(count, -1))
        return warp

    def last_look(self, x: Tensor, *condition: Any, image: Tensor | None = None) -> tuple[Tensor, Warp]:
        """Return the look after the last step, and its warp: see `looks`."""
        ((look, warp),) = deque(self.looks(x, *condition, image=image), maxlen=1)
        return look, warp

    def _pyramid(self, x: Tensor) -> Pyramid | None:
        """Return the pyramid that all looks share, or None if the options read none."""
        how = self.sampling
        if not reads_levels(how):
            return None
        return Pyramid(x, align_corners=how.align_corners, padding_mode=how.padding.name)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, steps={self.steps}"


class InverseCompositionalTransformer(AbstractSteppedTransformer):
    """A layer that aligns in several small steps: (N, C, *in) -> (N, C, *size).

    In each step one localization network reads the look through the current warp p and returns a change dp: p <- p o
    dp. The image itself is sampled through the composed warp, so no step blurs the input of the next one, and pixels
    outside a look are not lost. Every family can be used: matrices are multiplied, other warps are applied one after
    the other.

    Args:
        localization: A module (N, C, *size) -> (N, F) with an attribute `out_features` = F; otherwise give `features`.
            It reads looks, which have the output size.
        transform: A name ("affine", "tps", .. : `stn.transforms.FAMILIES`) or a family, such as `stn.BSpline(shape=(9,
            9))`.
        size: Output size in pixels, one number for a square. None: as the input.
        steps: Number of steps, at least 1.
        features: F, for a localization network without `out_features`.
        start: Part of the image from which the steps begin: an affine matrix (d, d+1), normalized. None: the whole
            image.
        regress: As in `SpatialTransformer`.
        **options: mode, padding_mode, fill_value, align_corners, antialias, gradient: see `stn.affine_sample`.

    Raises:
        InputError: An argument has a wrong shape or value, which the message names. TypeError: a wrong type.

    Source: Lin & Lucey 2017 (IC-STN), section 4.

    Example:
        >>> layer = stn.InverseCompositionalTransformer.for_input((1, 28, 28), "affine", steps=3)
        >>> [look.shape[-1] for look, warp in layer.looks(torch.rand(8, 1, 28, 28))]  # before each step, and the last
        [28, 28, 28, 28]
    """

    @classmethod
    def for_input(
        cls,
        in_shape: Sequence[int],  # (C, H, W) or (C, L)
        transform: str | Family = "affine",
        size: int | Sequence[int] | None = None,
        *,
        steps: int = 4,
        start: Tensor | None = None,
        **options: Unpack[SamplingOptions],
    ) -> Self:
        """Make the layer with a localization network that suits its looks at images of this shape.

        Args:
            in_shape: (C, H, W) of the images, or (C, L) of signals.
            transform: As in the class. Rotations keep shapes in images of this aspect: see `stn.Rigid`.
            size: As in the class.
            steps: As in the class.
            start: As in the class.
            **options: As in the class.
        """
        channels, *sides = _check.input_shape("in_shape", in_shape, signals=True)
        seen = sides if size is None else _check.lengths("size", size, len(sides))
        own = family_for(transform, (channels, *sides), start)
        return cls(localization_for((channels, *seen)), own, size, steps=steps, start=start, **options)

    def _output_and_warp(self, x: Tensor, condition: Sequence[Any], image: Tensor | None) -> tuple[Tensor, Warp]:
        return self.last_look(x, *condition, image=image)
