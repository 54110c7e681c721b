"""Warps of a flat list, each of which looks at one image of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

import torch
from torch import Tensor

from stn import _check
from stn.ops.context import observed
from stn.ops.options import CallOptions
from stn.ops.sample import Sampled
from stn.transforms.warp import Warp


class IndexedWarp(Warp):
    """M warps of which warp i samples image index[i]: `sample` of N images gives (M, C, *size). No image is copied."""

    def __init__(self, warp: Warp, index: Tensor) -> None:
        self.warp, self.index = warp, index  # (M,)
        self.batch, self.ndim, self.dtype, self.device = warp.batch, warp.ndim, warp.dtype, warp.device

    def _details(self) -> Sequence[str]:
        return (f"{type(self.warp).__name__} with an index",)

    def inverse(self) -> Warp:
        """Return the inverse, which samples M patches, one for each warp."""
        return self.warp.inverse()

    def after(self, inner: Warp) -> IndexedWarp:
        return IndexedWarp(self.warp.after(inner), self.index)

    def before(self, outer: Warp) -> IndexedWarp:
        return IndexedWarp(outer.after(self.warp), self.index)

    def map(self, xy: Tensor) -> Tensor:
        return self.warp.map(xy)

    def _jacobian(self, xy: Tensor) -> Tensor:
        return self.warp._jacobian(xy)

    def _linearized(self, xy: Tensor) -> tuple[Tensor, Tensor]:
        return self.warp._linearized(xy)

    def _check_image(self, image: Tensor) -> None:
        _check.warp_fits((1,), image, self.ndim)
        if not observed(self.index):
            _check.indexed_images(self.index, image.shape[0])

    def _sample(self, image: Tensor, size: tuple[int, ...], return_mask: bool, options: CallOptions) -> Sampled:
        """Sample image by image, as K looks at each. A graph, which cannot read the index, copies an image for each."""
        if observed(self.index) or len(self.index) == 0:
            return self.warp._sample(image.index_select(0, self.index), size, return_mask, options)
        order = self.index.argsort(stable=True)
        parts: list[Sampled] = []
        for n, rows in enumerate(order.split(self.index.bincount(minlength=image.shape[0]).tolist())):
            if len(rows):
                looks = self.warp[rows]._changed(lambda t: t.unsqueeze(0), (1, len(rows)))
                parts.append(looks._sample(image[n : n + 1], size, return_mask, options.copy()))
        back = order.argsort()
        if return_mask:
            values, masks = zip(*parts, strict=True)
            return torch.cat(values, dim=1).squeeze(0)[back], torch.cat(masks, dim=1).squeeze(0)[back]
        return torch.cat(parts, dim=1).squeeze(0)[back]  # type: ignore[arg-type]  # without masks these are tensors

    def write(self, *arguments: object, **options: object) -> NoReturn:
        """A list of warps has no canvas for each image: write the patches of K looks, or of `warp.inverse()`."""
        _check.fail("the warp must have a batch (N,) or (N, K) to write; got a list of warps with an index of images")

    def apply(self, *arguments: object, **inputs: object) -> NoReturn:
        """As `write`."""
        _check.fail("the warp must have a batch (N,) or (N, K) to apply; got a list of warps with an index of images")
