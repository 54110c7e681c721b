"""The oracle: sampling written to be read, in plain PyTorch. Every fast kernel is held to it.

An op is a *coordinate rule* (for each output pixel, where to look: `matrix_coordinates`, `field_coordinates`) followed by
the *sampling rule* (`sample_at`), which is the paper's eq. 3 over the few pixels that the kernel k reaches:

    V_i = sum_nm U_nm k(x_i - m) k(y_i - n)

Everything is made of differentiable torch operations, so derivatives of any order, forward mode and vmap come for free.
Coordinates are float64 whatever the dtypes of image and theta: at 2048 pixels float32 coordinates cost 1e-3 in the output
and 1e-2 in theta's gradient. Sums run in the image's dtype, at least float32.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from stn.grid import centred, half_extent
from stn.ops import exporting
from stn.ops.kernels import Mode, Taps, taps_of
from stn.ops.observers import readable

# Coordinates are clamped to +-FAR pixels: far enough to be padding in every image, near enough for exact integers.
FAR = 2.0**30

# |w| below this is the horizon of a homography. 1 / w^2 stays finite in its gradient, and the point lies beyond FAR.
HORIZON = 1e-12


def matrix_sample(
    image: Tensor,  # (N, C, *in)
    matrix: Tensor,  # (N, K, d, d+1) affine, or (N, K, d+1, d+1) projective
    size: Sequence[int],
    mode: Mode,
    padding_mode: str,
    fill_value: Tensor,  # () or (C,)
    align_corners: bool,
) -> Tensor:  # (N, K, C, *size)
    """Sample `image` where `matrix` maps the lattice of `size`."""
    coordinates = matrix_coordinates(matrix, image.shape[2:], size, align_corners)
    return sample_at(image, coordinates, mode, padding_mode, fill_value, align_corners)


def field_sample(
    image: Tensor,  # (N, C, *in)
    field: Tensor,  # (N, K, *size, d)
    mode: Mode,
    padding_mode: str,
    fill_value: Tensor,  # () or (C,)
    align_corners: bool,
    units: str,
    relative: bool,
) -> Tensor:  # (N, K, C, *size)
    """Sample `image` at the stored points, or at the lattice moved by the stored displacements."""
    coordinates = field_coordinates(field, image.shape[2:], align_corners, units, relative)
    return sample_at(image, coordinates, mode, padding_mode, fill_value, align_corners)


def basis_sample(
    image: Tensor,  # (N, C, H, W)
    coefficients: Tensor,  # (N, K, T+3, 2)
    size: Sequence[int],
    mode: Mode,
    padding_mode: str,
    fill_value: Tensor,  # () or (C,)
    align_corners: bool,
    control_points: Tensor,  # (T, 2) normalised
) -> Tensor:  # (N, K, C, *size)
    """Sample `image` where a thin-plate spline moves the lattice of `size`."""
    coordinates = basis_coordinates(coefficients, control_points, image.shape[2:], size, align_corners)
    return sample_at(image, coordinates, mode, padding_mode, fill_value, align_corners)


# ---- coordinate rules: source pixel coordinates, one tensor (N, K, *size) an axis, in (x, y, ..) order ----


def coordinate_dtype(device: torch.device) -> torch.dtype:
    """Apple's GPUs have no float64, nor have most runtimes that a network is exported to."""
    return torch.float32 if device.type == "mps" or exporting.current() else torch.float64


def matrix_coordinates(matrix: Tensor, in_size: Sequence[int], out_size: Sequence[int], align_corners: bool) -> list[Tensor]:
    """With target x_j = u_j / g_j and source pixel p_i = h_i x_i + c_i (grid.py), x' = M (x, 1) becomes

    p_i = sum_j (M_ij h_i / g_j) u_j + M_id h_i + c_i,     and h_i (..) / w + c_i if M has a last row, which gives w.
    """
    matrix = matrix.to(coordinate_dtype(matrix.device))
    d = len(in_size)
    h = [half_extent(n, align_corners) for n in reversed(in_size)]
    g = [half_extent(n, align_corners) or 1.0 for n in reversed(out_size)]
    c = [(n - 1) / 2 for n in reversed(in_size)]
    u = _open_lattice(out_size, matrix)

    def row(i: int, scale: float) -> Tensor:
        """scale * (M_i . (x, 1)) over the lattice. M * (h / g) is exact for the identity, (M * h) / g need not be."""
        entry = matrix[:, :, i].unflatten(2, (d + 1, *(1,) * d)).unbind(dim=2)  # d+1 times (N, K, 1, ..)
        linear = [entry[j] * (scale / g[j]) * u[j] for j in range(d)]
        return sum(linear[1:], linear[0]) + entry[d] * scale

    if matrix.shape[-2] == d:
        return [row(i, h[i]) + c[i] for i in range(d)]
    w = row(d, 1.0)
    w = torch.where(w.abs() < HORIZON, torch.full_like(w, HORIZON), w)
    return [row(i, h[i]) / w + c[i] for i in range(d)]


def field_coordinates(
    field: Tensor, in_size: Sequence[int], align_corners: bool, units: str, relative: bool
) -> list[Tensor]:
    """Stored points or displacements, normalised or in source pixels. The lattice comes from the field's own size."""
    d = len(in_size)
    out_size = field.shape[-d - 1 : -1]
    values = field.to(coordinate_dtype(field.device)).unbind(dim=-1)
    u = _open_lattice(out_size, values[0])
    coordinates = []
    for value, n, m, u_axis in zip(values, reversed(in_size), reversed(out_size), u, strict=True):
        h, g, c = half_extent(n, align_corners), half_extent(m, align_corners) or 1.0, (n - 1) / 2
        moved = value if units == "pixel" else value * h
        start = u_axis * (h / g) + c if relative else (0.0 if units == "pixel" else c)
        coordinates.append(moved + start)
    return coordinates


def basis_coordinates(
    coefficients: Tensor, control_points: Tensor, in_size: Sequence[int], out_size: Sequence[int], align_corners: bool
) -> list[Tensor]:
    """x' = x + (U_1(x), .., U_T(x), 1, x, y) w, with `radial_and_linear`'s U and w = coefficients."""
    dtype = coordinate_dtype(coefficients.device)
    u = _open_lattice(out_size, coefficients.new_empty(0, dtype=dtype))
    g = [half_extent(n, align_corners) or 1.0 for n in reversed(out_size)]
    h = [half_extent(n, align_corners) for n in reversed(in_size)]
    shape = (1, 1, *out_size)
    xy = torch.stack([(along / extent).expand(shape) for along, extent in zip(u, g, strict=True)], dim=-1)
    functions = radial_and_linear(xy.flatten(2, 3), control_points.to(coefficients.device, dtype))  # (1, 1, Q, T+3)
    moved = (functions @ coefficients.to(dtype)).unflatten(2, tuple(out_size)).unbind(dim=-1)
    return [u[i] * (h[i] / g[i]) + (in_size[1 - i] - 1) / 2 + h[i] * moved[i] for i in (0, 1)]


def radial_and_linear(xy: Tensor, control_points: Tensor) -> Tensor:
    """(U(|x - p_1|), .., U(|x - p_T|), 1, x, y) with U(r) = r^2 log r: (.., 2) -> (.., T+3). Bookstein 1989."""
    r2 = (xy.unsqueeze(-2) - control_points).square().sum(dim=-1)
    r2 = torch.where(r2 == 0, 1.0, r2)  # U(0) = 0 = U(1); the value and the gradient of log 0 must not enter
    return torch.cat([0.5 * r2 * r2.log(), torch.ones_like(xy[..., :1]), xy], dim=-1)


def _open_lattice(size: Sequence[int], like: Tensor) -> list[Tensor]:
    """Centred pixel coordinates of each axis, shaped to broadcast over (N, K, *size), in (x, y, ..) order."""
    d = len(size)
    axes = []
    for j, n in enumerate(reversed(size)):
        shape = [1] * d
        shape[d - 1 - j] = n
        axes.append(centred(n, dtype=like.dtype, device=like.device).view(shape))
    return axes


# ---- the sampling rule ----


class Tap(NamedTuple):
    """One of the pixels that the kernel reaches along one axis, for every output pixel: three tensors (N, K, *size)."""

    pixel: Tensor  # int64, in 0 .. n-1
    inside: Tensor  # bool: it was in the image before padding
    weight: Tensor  # k(x - pixel)


def sample_at(
    image: Tensor,  # (N, C, *in)
    coordinates: Sequence[Tensor],  # d times (N, K, *size): source pixels, (x, y, ..)
    mode: Mode,
    padding_mode: str,
    fill_value: Tensor,  # () or (C,)
    align_corners: bool,
) -> Tensor:  # (N, K, C, *size)
    """Weighted sum of the kernel's taps. Pixels outside follow the padding; a NaN coordinate gives NaN."""
    n, channels = image.shape[:2]
    size = torch.broadcast_shapes(*(x.shape for x in coordinates))  # (N, K, *size)
    count = math.prod(size[1:])  # K * Q output pixels an image
    dtype, kernel, margin = torch.promote_types(image.dtype, torch.float32), taps_of(mode), 0
    fill = fill_value.to(dtype).view(-1, 1)  # (C or 1, 1)
    source = image.to(dtype)
    if kernel.prefilter:
        source, margin = prefiltered(source, padding_mode, fill, align_corners)
    pixels = source.flatten(2)  # (N, C, P)
    axes = [
        _taps(x.expand(size) + margin, length, kernel, padding_mode, align_corners)
        for x, length in zip(coordinates, reversed(source.shape[2:]), strict=True)
    ]
    strides = [1, *itertools.accumulate(reversed(source.shape[3:]), lambda a, b: a * b)]

    total = pixels.new_zeros(())
    for taps in itertools.product(*axes):
        index = sum(tap.pixel * stride for tap, stride in zip(taps, strides, strict=True))
        value = pixels.gather(2, index.reshape(n, 1, count).expand(n, channels, count))  # (N, C, K * Q)
        if padding_mode == "zeros":
            inside = torch.stack([tap.inside for tap in taps]).all(dim=0)
            value = torch.where(inside.reshape(n, 1, count), value, fill)
        weight = taps[0].weight
        for tap in taps[1:]:
            weight = weight * tap.weight
        weight = weight.to(dtype).reshape(n, 1, count)
        total = total + weight * without_nan(value, weight == 0)
    total = total.view(n, channels, *size[1:]).transpose(1, 2)  # (N, K, C, *size)
    return total.to(image.dtype)


def without_nan(value: Tensor, weightless: Tensor) -> Tensor:
    """Replace NaN and infinity by 0 where the weight is 0. Finite values stay: the weight's derivative needs them."""
    if readable(value) and readable(weightless) and value.detach().sum().isfinite():
        return value
    return torch.where(weightless & ~value.isfinite(), 0.0, value)


def _taps(x: Tensor, n: int, kernel: Taps, padding_mode: str, align_corners: bool) -> list[Tap]:
    x = x.clamp(-FAR, FAR)  # NaN passes, and reaches the output through the weights
    finite = x.detach().nan_to_num(nan=0.0)
    base = finite.round() if kernel.rounds else finite.floor()
    first = base.long()
    taps = []
    for offset, weight in zip(kernel.offsets, kernel.weights(x - base), strict=True):
        index = first + offset
        inside = (index >= 0) & (index < n)
        taps.append(Tap(PADDINGS[padding_mode](index, n, align_corners), inside, weight))
    return taps


# ---- the B-spline's coefficients ----

POLE = math.sqrt(3) - 2


def prefilter_reach(padding_mode: str, dtype: torch.dtype) -> tuple[int, int]:
    """How many pixels off the response is below the rounding, and as many coefficients as are found beyond the border.

    Those of a mirrored or a wrapped image go on as it does; others need a margin, beyond which they are constant.
    """
    reach = 14 if dtype == torch.float32 else 28
    return reach, 0 if padding_mode in ("reflection", "wrap") else reach


def prefiltered(
    image: Tensor,  # (N, C, *in)
    padding_mode: str,
    fill: Tensor,  # () or (C,)
    align_corners: bool,
) -> tuple[Tensor, int]:  # (N, C, *in + 2 margin), margin
    """Coefficients whose cubic B-spline passes through the pixels: Unser, Aldroubi, Eden 1993, part I, box 2.

    c = h * image, h_k = -6 z / (1 - z^2) z^|k|: the recursive filter's response, cut at its reach. The image goes on
    beyond its border as the padding says.
    """
    reach, margin = prefilter_reach(padding_mode, image.dtype)
    k = torch.arange(-reach, reach + 1, dtype=image.dtype, device=image.device)
    response = (-6 * POLE / (1 - POLE**2)) * POLE ** k.abs()
    for axis in range(2, image.ndim):
        n = image.shape[axis]
        index = torch.arange(-margin - reach, n + margin + reach, device=image.device)
        extended = image.index_select(axis, PADDINGS[padding_mode](index, n, align_corners))
        if padding_mode == "zeros":
            inside = ((index >= 0) & (index < n)).view(-1, *(1,) * (image.ndim - 1 - axis))
            extended = torch.where(inside, extended, fill.view(-1, *(1,) * (image.ndim - 2)))
        rows = extended.movedim(axis, -1)
        found = torch.nn.functional.conv1d(rows.reshape(-1, 1, rows.shape[-1]), response.view(1, 1, -1))
        image = found.view(*rows.shape[:-1], -1).movedim(-1, axis)
    return image, margin


# ---- paddings: the pixel of the image that stands in for pixel `index` of the plane ----


def _border(index: Tensor, n: int, align_corners: bool) -> Tensor:
    return index.clamp(0, n - 1)


def _reflection(index: Tensor, n: int, align_corners: bool) -> Tensor:
    """Mirror at the image's corners: the centres (.. 2 1 0 1 2 ..) or the edges (.. 1 0 0 1 ..) of the outer pixels."""
    period = max(2 * n - 2, 1) if align_corners else 2 * n
    index = index.remainder(period)
    return torch.minimum(index, (period if align_corners else period - 1) - index)


def _wrap(index: Tensor, n: int, align_corners: bool) -> Tensor:
    return index.remainder(n)


PADDINGS: dict[str, Callable[[Tensor, int, bool], Tensor]] = {
    "zeros": _border,  # any valid pixel: `sample_at` replaces it by the fill value
    "border": _border,
    "reflection": _reflection,
    "wrap": _wrap,
}
