"""Sampling for other runtimes: coordinates in plain operators of torch, then one GridSample, or gathers and sums.

All in float32, because few runtimes besides ONNX Runtime on a CPU support float64.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from stn import _check
from stn.grid import axes
from stn.ops.context import ANY, VOLUMES_FROM, Target
from stn.ops.interpolation import KNOWN
from stn.ops.padding import PADDINGS
from stn.ops.reference import FAR, sample_at
from stn.ops.rules import Rule
from stn.ops.sampling import Sampling


def sample(target: Target, rule: Rule, image: Tensor, data: Tensor, fill: Tensor, sampling: Sampling) -> Tensor:
    """Run `dispatch.sample` for a runtime: image (N, C, *in), data (N, K, ..) -> (N, K, C, *size).

    Raises: InputError if the target has no operator for the call.
    """
    coordinates = rule.coordinates(data, rule.axes(data, image.shape[2:], sampling.align_corners))
    # The opset of `torch.onnx.export` is not known here, and volumes need a late one.
    gather = image.ndim == 5 or not has_grid_sample(2, sampling) if target.lowering == ANY else target.lowering == "gather"
    if gather or not image.is_floating_point():  # GridSample has no label maps
        return sample_at(image, coordinates, fill, sampling)
    check_kept(target, image.ndim - 2, sampling)
    return through_grid_sample(image, coordinates, fill, sampling)


def has_grid_sample(ndim: int, sampling: Sampling) -> bool:
    return ndim in sampling.interpolation.grid_sample and sampling.padding.grid_sample


def check_kept(target: Target, ndim: int, sampling: Sampling) -> None:
    """Raise an error for options that GridSample lacks or computes differently."""
    instead, interpolation = "ask for lowering='gather'", sampling.interpolation
    if ndim == 3 and target.opset is not None and target.opset < VOLUMES_FROM:
        _check.fail(
            f"opset must be at least {VOLUMES_FROM} for GridSample of volumes, or {instead}; got opset={target.opset}"
        )
    if ndim not in interpolation.grid_sample:
        modes = ", ".join(known.name for known in KNOWN if ndim in known.grid_sample)
        got = repr(interpolation.name) if interpolation in KNOWN else interpolation.name
        _check.fail(f"mode must be {modes} for GridSample in {ndim}-D, or {instead}; got {got}")
    if not sampling.padding.grid_sample:
        paddings = ", ".join(name for name, padding in PADDINGS.items() if padding.grid_sample)
        _check.fail(f"padding_mode must be {paddings} for GridSample, or {instead}; got {sampling.padding.name!r}")


def through_grid_sample(
    image: Tensor,  # (N, C, *in)
    coordinates: Sequence[Tensor],  # d times (N, K, *size), or with lengths of 1: source pixels, (x, y, ..)
    fill: Tensor,  # () or (C,)
    sampling: Sampling,
) -> Tensor:  # (N, K, C, *size)
    """Sample all K looks with one GridSample, stacked vertically, so that the image is not copied."""
    interpolation, padding, align_corners = sampling[:3]
    grid = torch.stack(torch.broadcast_tensors(*normalized(coordinates, image.shape[2:], align_corners)), dim=-1)
    looks, height = grid.shape[1:3]
    source = image.to(torch.promote_types(image.dtype, torch.float32))
    fill = fill.to(source.dtype).view(-1, *(1,) * (image.ndim - 2))
    # Weights sum to 1, so sampling (image - fill) with zeros outside, plus fill, gives the fill value outside.
    inner = source - fill if padding.fills else source
    grid = grid.flatten(1, 2).to(source.dtype)
    out = F.grid_sample(inner, grid, interpolation.name, padding.name, align_corners)
    out = out + fill if padding.fills else out
    return out.unflatten(2, (looks, height)).movedim(2, 1).to(image.dtype)


def normalized(coordinates: Sequence[Tensor], size: Sequence[int], align_corners: bool) -> list[Tensor]:
    """Return source pixels in the units of GridSample; an axis of one pixel without extent lies at 0."""
    _, center, unit = axes(size, size, align_corners)
    return [(x.clamp(-FAR, FAR) - c) / h for x, c, h in zip(coordinates, center, unit, strict=True)]
