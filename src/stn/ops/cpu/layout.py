"""Images as flat arrays of numbers: planes one after the other, or channels last."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from stn.ops.cpu.memory import empty_permuted


def flat(tensor: Tensor, last: bool) -> Any:
    return (tensor.movedim(1, -1) if last else tensor).reshape(-1).numpy()


def new_image(like: Tensor, size: tuple[int, ...], last: bool) -> Tensor:
    """As many images and channels of another size, not yet filled."""
    order = (0, *range(2, like.ndim), 1) if last else tuple(range(like.ndim))
    return empty_permuted((*like.shape[:2], *size), order, like.dtype)
