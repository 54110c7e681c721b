"""Memory layout of tensors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def is_channels_last(image: Tensor) -> bool:
    """Return True if the result keeps this format: the image has it, and no other."""
    form = torch.channels_last if image.ndim == 4 else torch.channels_last_3d
    return image.shape[1] > 1 and not image.is_contiguous() and image.is_contiguous(memory_format=form)


def order_of(ndim: int, lead: int, last: bool) -> Sequence[int]:
    """Return the axes of (.., C, *size), with `lead` axes before C, slowest first, for torch.empty_permuted."""
    before, channels, spatial = range(lead), lead, range(lead + 1, lead + 1 + ndim)
    return (*before, *spatial, channels) if last else (*before, channels, *spatial)


def plain(tensor: Tensor) -> Tensor:
    """Detach, and apply a pending negation: the memory of `x.conj().imag` holds the negative of its values."""
    return tensor.detach().resolve_neg()
