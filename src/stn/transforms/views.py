"""Parts and copies of a batch of warps, by what all warps have: tensors that begin with the batch."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor
from typing_extensions import Self

from stn import _check
from stn.ops.options import CallOptions
from stn.ops.sample import Sampled

if TYPE_CHECKING:
    from typing_extensions import Unpack

Rows = int | slice | Tensor


class Batch(ABC):
    """A batch of maps: its attributes are tensors (*batch, ..), other batches, and settings."""

    batch: tuple[int, ...]  # (N,), or (N, K): K looks at each image
    ndim: int
    dtype: torch.dtype
    device: torch.device
    theta: Tensor | None = None  # (N, P) or (N, K, P): given to the family that made the warp; None for all other warps
    _shared: ClassVar[tuple[str, ...]] = ()  # tensors without a batch
    _bends: ClassVar[bool] = True  # whether a straight line may become a curve
    _is_search: ClassVar[bool] = False  # whether the map is found by the search for an inverse

    @abstractmethod
    def map(self, xy: Tensor) -> Tensor:
        """Map points of the output to points of the image. A warp of your own defines this, by operations of torch.

        Args:
            xy: (*batch, P, d) with the warp's own batch, normalized. `points` takes other shapes, and checks them.

        Returns:
            (*batch, P, d).
        """

    def _kinks(self) -> tuple[Tensor, ...] | None:
        """Return the coordinates along x, y[, z] of a stored lattice, or None for a smooth map."""
        return None

    def detach(self) -> Self:
        """Return the warp without its graph: theta, and the network that found it, get no gradient from it."""
        return self._changed(Tensor.detach, self.batch, shared=True)

    def flatten(self) -> Self:
        """Return K looks at N images as one batch of N K warps, those of an image side by side: (N, K) -> (N K,)."""
        if len(self.batch) == 1:
            return self
        return self._changed(lambda t: t.flatten(0, 1), (self.batch[0] * self.batch[1],))

    def repeat(self, count: int) -> Self:
        """Return the batch `count` times, one after the other: (count N,), or (count N, K). One warp is not copied."""
        count = _check.at_least("count", count, 0)
        n, *looks = self.batch
        if n == 1:
            return self._changed(lambda t: t.expand(count, *t.shape[1:]), (count, *looks))
        return self._changed(lambda t: t.repeat(count, *(1,) * (t.ndim - 1)), (count * n, *looks))

    def __getitem__(self, index: Rows | tuple[Rows, int | slice]) -> Self:
        """Return some of the warps: of samples `warp[i]`, or of looks `warp[:, k]`. One sample is a batch of one."""
        rows, look = index if isinstance(index, tuple) else (index, slice(None))
        if isinstance(index, tuple) and len(self.batch) == 1:
            raise IndexError(f"the warp has no looks to choose from; its batch is {self.batch}")
        rows, count = _rows(rows, self.batch[0])
        if len(self.batch) == 1:
            return self._changed(lambda t: t[rows], (count,))
        looks, kept = _rows(look, self.batch[1])
        if isinstance(look, slice):
            return self._changed(lambda t: t[rows][:, looks], (count, kept))
        return self._changed(lambda t: t[rows][:, looks].squeeze(1), (count,))

    def __iter__(self) -> Iterator[Self]:
        """Iterate over the samples, each a batch of one."""
        return (self[i] for i in range(self.batch[0]))

    def _changed(self, change: Callable[[Tensor], Tensor], batch: tuple[int, ...], *, shared: bool = False) -> Self:
        """Return a copy of this batch, whose tensors are changed to the same values of another one."""
        new = copy.copy(self)
        for name, value in vars(self).items():
            if isinstance(value, Batch):
                setattr(new, name, value._broadcast(self.batch)._changed(change, batch, shared=shared))
            elif isinstance(value, Tensor) and (shared or name not in self._shared):
                setattr(new, name, change(value))
        new.batch = batch
        return new

    def _broadcast(self, batch: Sequence[int]) -> Self:
        """Return the same maps for a larger batch: a length of 1, or a missing K, is repeated."""
        own, batch = self.batch, tuple(batch)
        if own == batch:
            return self
        missing = len(batch) - len(own)

        def expanded(t: Tensor) -> Tensor:
            rest = t.shape[len(own) :]
            return t.reshape(*own, *(1,) * missing, *rest).expand(*batch, *rest)

        return self._changed(expanded, batch)


class Mapped(Batch):
    """The part of a warp that writing to a canvas, and moving points and boxes, is built on."""

    @abstractmethod
    def points(
        self, xy: Tensor, *, pixels: tuple[Sequence[int], Sequence[int]] | None = None, align_corners: bool = False
    ) -> Tensor: ...

    @abstractmethod
    def grid(self, size: int | Sequence[int], *, align_corners: bool = False) -> Tensor: ...

    @abstractmethod
    def sample(
        self,
        image: Tensor,
        size: int | Sequence[int] | None = None,
        *,
        return_mask: bool = False,
        **options: Unpack[CallOptions],
    ) -> Sampled: ...

    @abstractmethod
    def inverse(self) -> Mapped: ...

    @abstractmethod
    def fold_share(self, size: int | Sequence[int], *, align_corners: bool = False) -> Tensor: ...

    @abstractmethod
    def _jacobian(self, xy: Tensor) -> Tensor:
        """(*batch, P, d) -> (*batch, P, d, d)."""

    @abstractmethod
    def _linearized(self, xy: Tensor) -> tuple[Tensor, Tensor]:
        """Return `map` and `_jacobian` of the same points."""


def _rows(index: object, length: int) -> tuple[slice | Tensor, int]:
    """Return an index that keeps the dimension, and the number of what it chooses."""
    if isinstance(index, slice):
        return index, len(range(*index.indices(length)))
    if isinstance(index, Tensor) and index.ndim == 1:
        return index, int(index.sum()) if index.dtype == torch.bool else len(index)
    at = _check.integer(index)
    if at is None:
        raise TypeError(f"a warp is indexed by integers, slices and tensors (n,); got {type(index).__name__}")
    if not -length <= at < length:
        raise IndexError(f"index {at} must be less than the length {length} of the batch")
    return slice(at % length, at % length + 1), 1
