"""Looks for other runtimes: the coordinates in plain operators of torch, then one GridSample, or gathers and sums.

All in float32: few runtimes besides ONNX Runtime on a CPU have float64.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from stn import _check
from stn.grid import half_extent
from stn.ops import footprint
from stn.ops.devices import Settings
from stn.ops.exporting import VOLUMES_FROM, Target
from stn.ops.kernels import Mode
from stn.ops.reference import FAR, sample_at

MODES = {2: ("nearest", "bilinear", "bicubic"), 3: ("nearest", "bilinear")}  # of GridSample, by dimensions
PADDINGS = ("zeros", "border", "reflection")


def look(target: Target, rule: str, image: Tensor, where: Tensor, fill: Tensor, settings: Settings) -> Tensor:
    """`dispatch.look` for a runtime: image (N, C, *in), where (N, K, ..) -> (N, K, C, *size).

    Raises: InputError where the target has no operator for it.
    """
    coordinates = footprint.coordinates(rule, where, image.shape[2:], settings)
    mode, padding_mode, align_corners = settings[:3] if rule == "field" else settings[1:4]
    if target.lowering == "gather":
        return sample_at(image, coordinates, mode, padding_mode, fill, align_corners)
    check_kept(target, image.ndim - 2, mode, padding_mode)
    return through_grid_sample(image, coordinates, mode, padding_mode, fill, align_corners)


def check_kept(target: Target, ndim: int, mode: Mode, padding_mode: str) -> None:
    """Refuse what GridSample would do otherwise, or cannot do."""
    instead = "ask for lowering='gather'"
    if ndim == 3 and target.opset is not None and target.opset < VOLUMES_FROM:
        _check.fail(
            f"opset must be at least {VOLUMES_FROM} for GridSample of volumes, or {instead}; got opset={target.opset}"
        )
    if mode not in MODES[ndim]:
        _check.fail(f"mode must be {', '.join(MODES[ndim])} for GridSample in {ndim}-D, or {instead}; got {mode!r}")
    if padding_mode not in PADDINGS:
        _check.fail(f"padding_mode must be {', '.join(PADDINGS)} for GridSample, or {instead}; got {padding_mode!r}")


def through_grid_sample(
    image: Tensor,  # (N, C, *in)
    coordinates: Sequence[Tensor],  # d times (N, K, *size), or with lengths of 1: source pixels, (x, y, ..)
    mode: Mode,
    padding_mode: str,
    fill: Tensor,  # () or (C,)
    align_corners: bool,
) -> Tensor:  # (N, K, C, *size)
    """One GridSample for all K looks, one below the other, so that the image is not copied."""
    grid = torch.stack(torch.broadcast_tensors(*normalized(coordinates, image.shape[2:], align_corners)), dim=-1)
    looks, height = grid.shape[1:3]
    source = image.to(torch.promote_types(image.dtype, torch.float32))
    fill = fill.to(source.dtype).view(-1, *(1,) * (image.ndim - 2))
    # Weights sum to 1, so zeros outside an image less its fill value are that value outside.
    inner = source - fill if padding_mode == "zeros" else source
    assert isinstance(mode, str)  # one of MODES: `check_kept` has seen to it
    grid = grid.flatten(1, 2).to(source.dtype)
    out = F.grid_sample(inner, grid, mode, padding_mode, align_corners)
    out = out + fill if padding_mode == "zeros" else out
    return out.unflatten(2, (looks, height)).movedim(2, 1).to(image.dtype)


def normalized(coordinates: Sequence[Tensor], size: Sequence[int], align_corners: bool) -> list[Tensor]:
    """Source pixels as GridSample counts them: `stn.grid`, an axis of one pixel without extent at 0."""
    found = []
    for x, n in zip(coordinates, reversed(size), strict=True):
        found.append((x.clamp(-FAR, FAR) - (n - 1) / 2) / (half_extent(n, align_corners) or 1.0))
    return found
