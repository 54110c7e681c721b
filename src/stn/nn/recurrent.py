"""InverseCompositionalTransformer: alignment in several small steps (IC-STN, Lin & Lucey 2017)."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from torch import Tensor, nn

from stn import _check
from stn.nn.base import AbstractSpatialTransformer
from stn.nn.localization import localization_for
from stn.ops import Pyramid
from stn.ops.sampling import CallOptions, SamplingOptions
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
        **options: Unpack[SamplingOptions],
    ) -> None:
        steps = _check.at_least("steps", steps, 1)
        super().__init__(localization, transform, size, features=features, start=start, **options)
        self.steps = steps

    def looks(self, x: Tensor) -> Iterator[tuple[Tensor, Warp]]:
        """The looks before each step and after the last one, steps + 1 of them, each with its warp."""
        warp = self.first_warp(len(x))
        options: CallOptions = {**self.options, "pyramid": self._pyramid(x)}
        whole = self.start is None and self.size in (None, tuple(x.shape[2:]))
        look = x if whole else warp.sample(x, self.size, **options)
        yield look, warp
        for step in range(self.steps):
            change: Warp = self.family(self.localize(look))
            warp = warp.after(change) if step else self.from_start(change)
            look = warp.sample(x, self.size, **options)
            yield look, warp

    def first_warp(self, count: int) -> Warp:
        """Return the initial warp (`start`, or the identity) for `count` images."""
        if self.start is not None:
            return MatrixWarp(self.start.expand(count, -1, -1))
        warp: Warp = self.family(identity_of(self.family, self.regression.weight).expand(count, -1))
        return warp

    def last_look(self, x: Tensor) -> tuple[Tensor, Warp]:
        """The look after the last step, and its warp."""
        ((look, warp),) = deque(self.looks(x), maxlen=1)
        return look, warp

    def _pyramid(self, x: Tensor) -> Pyramid | None:
        """The pyramid that all looks share, or None if the options read none."""
        how = self.sampling
        if not how.reads_levels:
            return None
        return Pyramid(x, align_corners=how.align_corners, padding_mode=how.padding.name)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, steps={self.steps}"


class InverseCompositionalTransformer(AbstractSteppedTransformer):
    """Look, localize that look, warp a little further, look again at the image itself: (N, C, *in) -> (N, C, *size).

    p <- p o dp, with dp from one localization network that sees the look through p; `steps` times. The image is sampled
    through the composed warp, so that no step blurs what the next one sees, and nothing that a look leaves out is lost. Any
    family will do: matrices are multiplied, other warps are followed one after the other.
    localization: a module (N, C, *size) -> (N, F), F as in SpatialTransformer; it sees looks, which have that size.
    size, start, options: as in SpatialTransformer. The start is the part of the image from which the steps go out.

    Raises: InputError, which names the argument. Source: Lin & Lucey 2017, section 4.
    """

    @classmethod
    def for_input(
        cls,
        in_shape: Sequence[int],  # (C, H, W)
        transform: str | Family = "affine",
        size: int | Sequence[int] | None = None,
        *,
        steps: int = 4,
        start: Tensor | None = None,
        **options: Unpack[SamplingOptions],
    ) -> Self:
        """The layer with a localization network that suits its looks at images of this shape."""
        channels, *sides = _check.input_shape("in_shape", in_shape)
        seen = sides if size is None else _check.lengths("size", size, 2)
        return cls(localization_for((channels, *seen)), transform, size, steps=steps, start=start, **options)

    def _output_and_warp(self, x: Tensor) -> tuple[Tensor, Warp]:
        return self.last_look(x)
