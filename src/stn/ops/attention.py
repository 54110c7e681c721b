"""The attention of Deformable DETR: weighted sums over points of several feature maps.

Its reference is the formula, on top of `sampled`: compilers, transforms of torch.func, higher derivatives, exports and other
devices use it. Plain calls on a CPU, and their first derivatives, go to kernels of their own (`cpu/attention.py`), which
store nothing of what each point reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from stn import _check
from stn.ops import cpu
from stn.ops.context import differentiated, observed, unrounded
from stn.ops.derivatives import pulled_back
from stn.ops.rules import Field
from stn.ops.sample import sampled

Sizes = Sequence[tuple[int, ...]]


def multi_scale_deformable_attention(
    values: Tensor,  # (N, S, M, D): S pixels of all levels, M heads
    sizes: Sequence[Sequence[int]] | Tensor,  # (H, W) of each of L levels
    locations: Tensor,  # (N, Q, M, L, P, 2), within [0, 1]
    weights: Tensor,  # (N, Q, M, L, P)
) -> Tensor:  # (N, Q, M * D)
    """Compute the attention of Deformable DETR: each query reads P weighted points of each of L feature maps, by M heads.

    It is bilinear sampling with zeros outside, and needs no CUDA extension. The arguments have the order and the shapes of
    the published code, where `sizes` is called value_spatial_shapes.

    Args:
        values: (N, S, M, D): the pixels of all levels one after another, row by row, for M heads of D channels.
        sizes: (H, W) of each of the L levels, or a tensor (L, 2) of integers. S is the sum of H * W.
        locations: (N, Q, M, L, P, 2): points (x, y) of each query, (0, 0) at the top left corner of a map and (1, 1) at the
            bottom right.
        weights: (N, Q, M, L, P): the weight of each point, usually a softmax over the last two axes.

    Returns:
        (N, Q, M * D), in the dtype of values.

    Raises:
        InputError: An argument has a wrong shape, which the message names. TypeError: a wrong type.

    Source: Zhu et al. 2021, eq. 3.

    Example:
        >>> values, sizes = torch.rand(2, 16 * 16 + 8 * 8, 4, 32), [(16, 16), (8, 8)]
        >>> weights = torch.rand(2, 100, 4, 2 * 3).softmax(dim=-1).unflatten(-1, (2, 3))
        >>> stn.multi_scale_deformable_attention(values, sizes, torch.rand(2, 100, 4, 2, 3, 2), weights).shape
        torch.Size([2, 100, 128])
    """
    levels = _check.levels("sizes", sizes)
    _check.attention(values, levels, locations, weights)
    inputs = values, locations, weights
    with unrounded(values.device):
        if not values.is_cpu or observed(*inputs) or any(tensor.dtype not in cpu.DTYPES for tensor in inputs):
            return reference(values, levels, locations, weights)
        if differentiated(*inputs):
            out: Tensor = Attend.apply(*inputs, levels)
            return out
        return by_kernel(values, levels, locations, weights)


def reference(values: Tensor, sizes: Sizes, locations: Tensor, weights: Tensor) -> Tensor:
    """Sample level by level. Heads are images of their own, channels last: the D numbers of a pixel lie side by side."""
    n, _, heads = locations.shape[:3]
    points = (2 * locations - 1).permute(3, 0, 2, 1, 4, 5).flatten(1, 2)  # (L, N * M, Q, P, 2)
    shares = weights.permute(3, 0, 2, 1, 4).flatten(1, 2)  # (L, N * M, Q, P)
    parts = values.split([height * width for height, width in sizes], dim=1)
    total = []
    for part, size, grid, share in zip(parts, sizes, points, shares, strict=True):
        image = part.transpose(1, 2).flatten(0, 1).unflatten(1, size).movedim(-1, 1)  # (N * M, D, H, W)
        found = sampled(image, Field("normalized", False), grid, False, {})
        assert isinstance(found, Tensor)
        total.append((found * share.to(found.dtype).unsqueeze(1)).sum(dim=-1))  # (N * M, D, Q)
    return torch.stack(total).sum(dim=0).unflatten(0, (n, heads)).permute(0, 3, 1, 2).flatten(2).to(values.dtype)


def by_kernel(values: Tensor, sizes: Sizes, locations: Tensor, weights: Tensor) -> Tensor:
    from stn.ops.cpu import attention  # which loads Numba

    return attention.attend(values, sizes, locations, weights).to(values.dtype)


class Attend(torch.autograd.Function):
    """A plain eager call of the kernels, with first derivatives."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, locations: Tensor, weights: Tensor, sizes: Sizes) -> Tensor:
        ctx.save_for_backward(values, locations, weights)
        ctx.sizes = sizes
        return by_kernel(values, sizes, locations, weights)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        from stn.ops.cpu import attention

        inputs, sizes, need = ctx.saved_tensors, ctx.sizes, ctx.needs_input_grad
        if torch.is_grad_enabled() or observed(grad, *inputs):
            found = pulled_back(lambda v, at, w: (reference(v, sizes, at, w),), inputs, (grad,))
        else:
            found = attention.gradient(grad, inputs[0], sizes, inputs[1], inputs[2], need[0])
        return *(g if needed else None for g, needed in zip(found, need, strict=False)), None
