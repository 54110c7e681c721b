"""Deformable attention at the sizes of Deformable DETR, beside its plain formula in torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from stn.ops import multi_scale_deformable_attention

HEADS, POINTS, LEVELS = 8, 4, 4
Sizes = Sequence[tuple[int, int]]


def calls(shape: Sequence[int], task: str) -> dict[str, Callable[[], Any]]:
    """Return name -> call. shape: (N, C, H, W) of the largest map; every position of every map is a query.

    The task "both" has the gradients in values, locations and weights."""
    n, channels, height, width = shape
    sizes = [(-(-height // 2**level), -(-width // 2**level)) for level in range(LEVELS)]
    generator, count = torch.Generator().manual_seed(0), sum(h * w for h, w in sizes)
    values = torch.randn(n, count, HEADS, channels // HEADS, generator=generator)
    own = torch.cat([centers(*size) for size in sizes]).view(1, count, 1, 1, 1, 2)
    locations = own + 0.05 * torch.randn(n, count, HEADS, LEVELS, POINTS, 2, generator=generator)
    weights = torch.rand(n, count, HEADS, LEVELS * POINTS, generator=generator).softmax(dim=-1)
    inputs = values, locations, weights.unflatten(-1, (LEVELS, POINTS))
    grad = torch.randn(n, count, channels, generator=generator)
    ways: dict[str, Any] = {"stn": multi_scale_deformable_attention, "torch": plain}
    return {name: bound(way, inputs, sizes, grad if task == "both" else None) for name, way in ways.items()}


def centers(height: int, width: int) -> Tensor:  # (H W, 2) within [0, 1]
    y, x = torch.meshgrid((torch.arange(height) + 0.5) / height, (torch.arange(width) + 0.5) / width, indexing="ij")
    return torch.stack([x, y], dim=-1).flatten(0, 1)


def bound(way: Any, inputs: Sequence[Tensor], sizes: Sizes, grad: Tensor | None) -> Callable[[], Any]:
    if grad is None:
        return lambda: way(inputs[0], sizes, *inputs[1:])
    needed = [tensor.clone().requires_grad_() for tensor in inputs]
    return lambda: torch.autograd.grad(way(needed[0], sizes, *needed[1:]), needed, grad)


def plain(values: Tensor, sizes: Sizes, locations: Tensor, weights: Tensor) -> Tensor:
    """One `grid_sample` for each level, as models without the CUDA extension do it."""
    n, _, heads, width = values.shape
    queries, points = locations.shape[1], locations.shape[4]
    parts, found = values.split([h * w for h, w in sizes], dim=1), []
    for level, (height, across) in enumerate(sizes):
        image = parts[level].flatten(2).transpose(1, 2).reshape(n * heads, width, height, across)
        grid = (2 * locations[:, :, :, level] - 1).transpose(1, 2).flatten(0, 1)
        found.append(grid_sample(image, grid, align_corners=False))
    shares = weights.transpose(1, 2).reshape(n * heads, 1, queries, len(sizes) * points)
    out = (torch.stack(found, dim=-2).flatten(-2) * shares).sum(dim=-1)
    return out.view(n, heads * width, queries).transpose(1, 2)
