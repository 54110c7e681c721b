"""`splat`: push values to the points where a warp, a matrix or a field looks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, overload

import torch
from torch import Tensor

from stn import _check
from stn.ops.context import unrounded
from stn.ops.interpolation import Kernel
from stn.ops.options import parse
from stn.ops.points import UNITS
from stn.ops.rules import Field, Matrix, Rule
from stn.ops.splat import splatted
from stn.transforms.warp import Warp

REDUCTIONS = ("sum", "mean")


@overload
def splat(
    values: Tensor,
    where: Warp | Tensor,
    size: Sequence[int],
    *,
    reduce: str = "sum",
    weights: Tensor | None = None,
    units: str = "normalized",
    relative: bool = False,
    mode: str | Kernel = "bilinear",
    padding_mode: str = "zeros",
    align_corners: bool = False,
    return_weight: Literal[False] = False,
) -> Tensor: ...
@overload
def splat(
    values: Tensor,
    where: Warp | Tensor,
    size: Sequence[int],
    *,
    reduce: str = "sum",
    weights: Tensor | None = None,
    units: str = "normalized",
    relative: bool = False,
    mode: str | Kernel = "bilinear",
    padding_mode: str = "zeros",
    align_corners: bool = False,
    return_weight: Literal[True],
) -> tuple[Tensor, Tensor]: ...
def splat(
    values: Tensor,  # (N, C, *out), or (N, K, C, *out): K looks; or (N, C, P) at points (N, P, d)
    where: Warp | Tensor,  # a warp; matrices (.., d, d+1) or (.., d+1, d+1); or points (N, *out, d) or (N, K, *out, d)
    size: Sequence[int],
    *,
    reduce: str = "sum",
    weights: Tensor | None = None,
    units: str = "normalized",
    relative: bool = False,
    mode: str | Kernel = "bilinear",
    padding_mode: str = "zeros",
    align_corners: bool = False,
    return_weight: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:  # (N, C, *size); with return_weight also the weight, C = 1
    """Push values to the points where sampling would look: the adjoint (transpose) of sampling.

    For sampling V = S U of an image U this is S^T V: each value is added to the pixels that its point reads, by the same
    weights. It is differentiable in values and where, of any order, and the same bits for any number of threads on a CPU.

    Args:
        values: (N, C, *out), or (N, K, C, *out) of K looks, which are added up; or (N, C, P) at points (N, P, d).
        where: A warp; matrices as for `stn.affine_sample` and `stn.projective_sample`; or points as for
            `stn.grid_sample`. They map pixels of the values to points of the result.
        size: Size of the result in pixels, (H, W) or (D, H, W), or (L,) for signals.
        reduce: "sum", or "mean": the sum divided by the sum of the weights that arrive, 0 where none does.
        weights: One weight for each pixel of the values, (N, 1, *out) or (N, K, 1, *out), at least 0; with "mean", exp(z)
            for an importance z is softmax splatting. None: 1.
        units: Of points: "normalized", or "pixel", 0 at the center of the first pixel.
        relative: Whether points are displacements from the pixels of the values, such as an optical flow.
        mode: As in `stn.affine_sample`.
        padding_mode: As there. With "zeros", values outside are lost; with others they arrive at the pixels inside.
        align_corners: As there.
        return_weight: Also return the sum of the weights that arrive at each pixel.

    Returns:
        (N, C, *size); with return_weight a pair of it and the weight, (N, 1, *size).

    Raises:
        InputError: An argument has a wrong shape or value, which the message names. TypeError: a wrong type.

    Source: Niklaus & Liu 2020, for the mean with weights.

    Example:
        >>> row = torch.tensor([1.0, 2.0, 4.0]).view(1, 1, 1, 3)
        >>> right = torch.tensor([1.0, 0.0]).expand(1, 1, 3, 2)  # the flow: one pixel to the right
        >>> stn.splat(row, right, (1, 3), units="pixel", relative=True)
        tensor([[[[0., 1., 2.]]]])
    """
    size = _check.lengths("size", size)
    _check.choice("reduce", reduce, REDUCTIONS)
    sampling = parse(mode, padding_mode, bool(align_corners))
    _check.choice("units", units, UNITS)
    values, weights, where = _point_sets_as_rows(values, weights, where, len(size))
    looks = _check.splat_values("values", values, len(size))
    if weights is not None:
        _check.splat_weights("weights", weights, values, 2 if looks else 1)
    with unrounded(values.device):
        rule, data = _place(where, values, looks, sampling.align_corners, Field(units, bool(relative)))
        each = values if looks else values.unsqueeze(1)  # (N, K, C, *out)
        data = rule.canonical(each[:, 0], data)
        if weights is None and reduce == "sum" and not return_weight:
            return splatted(rule, each, data, size, sampling)
        share = torch.ones_like(each[:, :, :1]) if weights is None else weights.to(each.dtype).reshape(each[:, :, :1].shape)
        total = splatted(rule, torch.cat([each * share, share], dim=2), data, size, sampling)
    out, weight = total[:, :-1], total[:, -1:]
    if reduce == "mean":
        arrived = weight != 0
        out = torch.where(arrived, out / torch.where(arrived, weight, 1), 0)
    return (out, weight.real if weight.is_complex() else weight) if return_weight else out


def _place(where: Warp | Tensor, values: Tensor, looks: bool, align_corners: bool, field: Field) -> tuple[Rule, Tensor]:
    """Return the rule and the data of the sampling whose adjoint is asked for."""
    out = tuple(values.shape[3:] if looks else values.shape[2:])
    if isinstance(where, Warp):
        _check.splat_warp("where", where.batch, where.ndim, values, len(out), looks)
        are_points, found = False, where._rule(out, align_corners)
    else:
        are_points = _check.splat_place("where", where, values, looks)
        found = (field if are_points else Matrix(out)), where
    if not are_points and field != Field():
        _check.fail("units and relative go with points; got them with a warp or matrices")
    return found


def _point_sets_as_rows(
    values: Tensor, weights: Tensor | None, where: Warp | Tensor, ndim: int
) -> tuple[Tensor, Tensor | None, Warp | Tensor]:
    """Return values (N, C, P) at points (N, P, d), and their weights, as an output of one row, (N, C, 1, .., P)."""
    if not isinstance(where, Tensor) or not isinstance(values, Tensor) or ndim == 1 or values.ndim != 3:
        return values, weights, where
    if where.ndim not in (2, 3) or where.shape[-1] != ndim:
        return values, weights, where
    ones = (1,) * (ndim - 1)
    weights = weights if weights is None or weights.ndim != 3 else weights.reshape(*weights.shape[:2], *ones, -1)
    rows = values.reshape(*values.shape[:2], *ones, values.shape[2])
    return rows, weights, where.reshape(*where.shape[:-2], *ones, *where.shape[-2:])
