"""The public operators: check the arguments, bring them to a canonical shape, and dispatch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, overload

import torch
from torch import Tensor

from stn import _check
from stn.ops import dispatch, levels
from stn.ops.context import unrounded
from stn.ops.options import PARSED, CallOptions, for_integers, parse, parsed_before, reads_levels, shows_options
from stn.ops.pyramid import Pyramid
from stn.ops.rules import Field, Matrix, Rule, Spline
from stn.ops.sampling import Sampling

if TYPE_CHECKING:
    from typing_extensions import Unpack

DISPLACED = Field("normalized", True)
Sampled = Tensor | tuple[Tensor, Tensor]


@overload
def affine_sample(
    image: Tensor,
    theta: Tensor,
    size: int | Sequence[int] | None = None,
    *,
    return_mask: Literal[False] = False,
    **options: Unpack[CallOptions],
) -> Tensor: ...
@overload
def affine_sample(
    image: Tensor,
    theta: Tensor,
    size: int | Sequence[int] | None = None,
    *,
    return_mask: Literal[True],
    **options: Unpack[CallOptions],
) -> tuple[Tensor, Tensor]: ...
@shows_options
def affine_sample(
    image: Tensor,  # (N, C, H, W) or (N, C, D, H, W)
    theta: Tensor,  # (d, d+1) for all, (N, d, d+1), or (N, K, d, d+1): K looks at each image; N = 1 is for all
    size: int | Sequence[int] | None = None,  # output size; None: as image
    *,
    return_mask: bool = False,
    **options: Unpack[CallOptions],
) -> Sampled:  # (N, C, *size), or (N, K, C, *size); with return_mask also the mask, C = 1
    """Sample an image through an affine map from output to input points, both normalized (`stn.grid`).

    Equal to `affine_grid` followed by `grid_sample` of torch. No grid is stored, and K maps of one image do not copy it.
    Signals (N, C, L) have theta (1, 2), or (N[, K], 1, 2): x' = a x + t.

    Args:
        image: (N, C, H, W) or (N, C, D, H, W), any floating-point or complex dtype, or uint8, whose result is rounded. With
            mode="nearest" also bool and int8 to int64: label maps, which pass through unchanged.
        theta: Matrices (d, d+1) for all images, (N, d, d+1), or (N, K, d, d+1): K looks at each image. N = 1 is for all.
        size: Output size in pixels, or one length for all axes. None: as image.
        return_mask: Also return the fraction of the kernel that lay inside the image.
        **options: Interpolation, padding and so on: `help(stn.affine_sample)` lists them.

    Returns:
        (N, C, *size), or (N, K, C, *size); with return_mask a pair of it and the mask, (N, 1, *size) or (N, K, 1, *size).

    Raises:
        InputError: An argument has a wrong shape or value, which the message names. TypeError: a wrong type.

    Source: Jaderberg et al. 2015, eq. 1, 3 and 5.

    Example:
        >>> theta = torch.tensor([[0.5, 0.0, 0.5], [0.0, 0.5, 0.0]])  # the right half, magnified
        >>> stn.affine_sample(torch.rand(8, 3, 32, 32), theta, size=64).shape
        torch.Size([8, 3, 64, 64])
    """
    rows = _check.image("image", image)
    _check.matrix("theta", theta, image, rows)
    return sampled(image, Matrix(_size(size, image)), theta, return_mask, options)


@overload
def projective_sample(
    image: Tensor,
    matrix: Tensor,
    size: int | Sequence[int] | None = None,
    *,
    return_mask: Literal[False] = False,
    **options: Unpack[CallOptions],
) -> Tensor: ...
@overload
def projective_sample(
    image: Tensor,
    matrix: Tensor,
    size: int | Sequence[int] | None = None,
    *,
    return_mask: Literal[True],
    **options: Unpack[CallOptions],
) -> tuple[Tensor, Tensor]: ...
@shows_options
def projective_sample(
    image: Tensor,  # (N, C, H, W) or (N, C, D, H, W)
    matrix: Tensor,  # (d+1, d+1) for all, (N, d+1, d+1), or (N, K, d+1, d+1); N = 1 is for all
    size: int | Sequence[int] | None = None,  # output size; None: as image
    *,
    return_mask: bool = False,
    **options: Unpack[CallOptions],
) -> Sampled:  # (N, C, *size), or (N, K, C, *size); with return_mask also the mask, C = 1
    """Sample an image through a homography from output to input points, both normalized (`stn.grid`).

    Points beyond the horizon (w < 0) are sampled as OpenCV and scikit-image sample them. The horizon itself (w = 0) is
    infinitely far: padding, with zero gradient.

    Args:
        image: (N, C, H, W) or (N, C, D, H, W).
        matrix: (d+1, d+1) for all images, (N, d+1, d+1), or (N, K, d+1, d+1): K looks at each image. N = 1 is for all.
        size: Output size in pixels, or one length for all axes. None: as image.
        return_mask: Also return the fraction of the kernel that lay inside the image.
        **options: Interpolation, padding and so on: `help(stn.affine_sample)` lists them.

    Returns:
        (N, C, *size), or (N, K, C, *size); with return_mask a pair of it and the mask.

    Raises:
        InputError: An argument has a wrong shape or value, which the message names. TypeError: a wrong type.

    Example:
        >>> matrix = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.3, 1.0]])
        >>> stn.projective_sample(torch.rand(8, 3, 32, 32), matrix, padding_mode="border").shape
        torch.Size([8, 3, 32, 32])
    """
    rows = _check.image("image", image) + 1
    _check.matrix("matrix", matrix, image, rows)
    return sampled(image, Matrix(_size(size, image)), matrix, return_mask, options)


@overload
def thin_plate_sample(
    image: Tensor,
    coefficients: Tensor,
    control_points: Tensor,
    size: int | Sequence[int] | None = None,
    *,
    return_mask: Literal[False] = False,
    **options: Unpack[CallOptions],
) -> Tensor: ...
@overload
def thin_plate_sample(
    image: Tensor,
    coefficients: Tensor,
    control_points: Tensor,
    size: int | Sequence[int] | None = None,
    *,
    return_mask: Literal[True],
    **options: Unpack[CallOptions],
) -> tuple[Tensor, Tensor]: ...
@shows_options
def thin_plate_sample(
    image: Tensor,  # (N, C, H, W) or (N, C, D, H, W)
    coefficients: Tensor,  # (T+d+1, d) for all, (N, T+d+1, d), or (N, K, T+d+1, d); N = 1 is for all
    control_points: Tensor,  # (T, d) normalized, for all
    size: int | Sequence[int] | None = None,  # output size; None: as image
    *,
    return_mask: bool = False,
    **options: Unpack[CallOptions],
) -> Sampled:  # (N, C, *size), or (N, K, C, *size); with return_mask also the mask, C = 1
    """Sample an image through thin-plate splines x' = x + (U(|x - p_1|), .., U(|x - p_T|), 1, x, y[, z]) w.

    U(r) is r^2 log r in 2-D, and r in 3-D. `stn.ThinPlateSpline` computes the coefficients w from offsets of the control
    points p. Not differentiable in p.

    Args:
        image: (N, C, H, W) or (N, C, D, H, W).
        coefficients: w, (T+d+1, d) for all images, (N, T+d+1, d), or (N, K, T+d+1, d); zeros are the identity. N = 1 is
            for all.
        control_points: p, (T, d) normalized, the same for all images.
        size: Output size in pixels, or one length for all axes. None: as image.
        return_mask: Also return the fraction of the kernel that lay inside the image.
        **options: Interpolation, padding and so on: `help(stn.affine_sample)` lists them.

    Returns:
        (N, C, *size), or (N, K, C, *size); with return_mask a pair of it and the mask.

    Raises:
        InputError: An argument has a wrong shape or value, which the message names. TypeError: a wrong type.

    Source: Bookstein 1989.

    Example:
        >>> points = torch.tensor([[-1.0, -1], [1, -1], [-1, 1], [1, 1]])
        >>> stn.thin_plate_sample(torch.rand(8, 3, 32, 32), 0.1 * torch.randn(8, 7, 2), points).shape
        torch.Size([8, 3, 32, 32])
    """
    _check.image("image", image)
    _check.control_points("control_points", control_points, 3 if image.ndim == 5 else 2)
    _check.coefficients("coefficients", coefficients, control_points, image)
    return sampled(image, Spline(_size(size, image), control_points.detach()), coefficients, return_mask, options)


@overload
def grid_sample(
    image: Tensor,
    grid: Tensor,
    *,
    units: str = "normalized",
    relative: bool = False,
    return_mask: Literal[False] = False,
    **options: Unpack[CallOptions],
) -> Tensor: ...
@overload
def grid_sample(
    image: Tensor,
    grid: Tensor,
    *,
    units: str = "normalized",
    relative: bool = False,
    return_mask: Literal[True],
    **options: Unpack[CallOptions],
) -> tuple[Tensor, Tensor]: ...
@shows_options
def grid_sample(
    image: Tensor,  # (N, C, H, W) or (N, C, D, H, W)
    grid: Tensor,  # (N, *size, d), or (N, K, *size, d): K looks at each image; N = 1 is for all
    *,
    units: str = "normalized",
    relative: bool = False,
    return_mask: bool = False,
    **options: Unpack[CallOptions],
) -> Sampled:  # (N, C, *size), or (N, K, C, *size); with return_mask also the mask, C = 1
    """Sample an image at stored points (x, y[, z]): a superset of `torch.nn.functional.grid_sample`.

    Signals (N, C, L) have a grid (N, L', 1), or (N, K, L', 1).

    Args:
        image: (N, C, H, W) or (N, C, D, H, W).
        grid: (N, *size, d), or (N, K, *size, d): K looks at each image. N = 1 is for all.
        units: "normalized", or "pixel": input pixels, 0 at the center of the first.
        relative: The grid holds displacements from the output's own lattice. Zeros are then the identity, bit for bit.
        return_mask: Also return the fraction of the kernel that lay inside the image.
        **options: Interpolation, padding and so on: `help(stn.affine_sample)` lists them.

    Returns:
        (N, C, *size), or (N, K, C, *size); with return_mask a pair of it and the mask.

    Raises:
        InputError: An argument has a wrong shape or value, which the message names. TypeError: a wrong type.

    Example:
        >>> flow = 2 * torch.randn(8, 32, 32, 2)  # pixels
        >>> stn.grid_sample(torch.rand(8, 3, 32, 32), flow, units="pixel", relative=True).shape
        torch.Size([8, 3, 32, 32])
    """
    _check.image("image", image)
    _check.grid("grid", grid, image)
    _check.points_last("grid", grid, image)
    _check.choice("units", units, ("normalized", "pixel"))
    return sampled(image, Field(units, bool(relative)), grid, return_mask, options)


def _size(size: int | Sequence[int] | None, image: Tensor) -> tuple[int, ...]:
    return tuple(image.shape[2:]) if size is None else _check.lengths("size", size, image.ndim - 2)


def sampled(image: Tensor, rule: Rule, data: Tensor, return_mask: bool, options: CallOptions) -> Sampled:
    """Run a call. data: of one look for all images, or with N or (N, K) before it; N as in image, or 1."""
    fill, pyramid = options.pop("fill_value", 0.0), options.pop("pyramid", None)
    if not options.keys() <= PARSED:
        _check.unknown("options", options, CallOptions.__annotations__)
    compiling = torch.compiler.is_compiling()
    try:
        sampling = (parse if compiling else parsed_before)(**options)  # type: ignore[misc]  # mypy cannot follow the pop
    except TypeError:  # an unhashable value, which is never valid
        sampling = parse(**options)  # type: ignore[misc]  # likewise
    if not image.is_floating_point():
        sampling = for_integers(image, sampling)
    if not (isinstance(fill, float) and fill == 0.0):
        fill = _check.fill_value(fill, image, sampling.padding.name)
    if pyramid is not None:
        _check.pyramid_fits("pyramid", pyramid, image, sampling.align_corners, sampling.padding.name)
    if not compiling and not return_mask and not reads_levels(sampling):
        out = dispatch.eager(rule, image, data, fill, sampling)
        if out is not None:
            return out
    fill, each = dispatch.as_tensor(fill, image), rule.canonical(image, data)
    with unrounded(image.device):
        out, mask = _sampled(image, rule, each, fill, sampling, pyramid, return_mask)
    looks = data.ndim == rule.dimensions(image) + 2
    out = out if looks else out.squeeze(1)
    if mask is None:
        return out
    return out, mask if looks else mask.squeeze(1)


def _sampled(
    image: Tensor, rule: Rule, data: Tensor, fill: Tensor, sampling: Sampling, pyramid: Pyramid | None, return_mask: bool
) -> tuple[Tensor, Tensor | None]:
    if not reads_levels(sampling):
        out = dispatch.sample(rule, image, data, fill, sampling)
        return out, dispatch.inside(rule, image, data, sampling) if return_mask else None
    request = levels.Request(rule, data, fill, sampling)
    pyramid = pyramid or levels.pyramid_of(image, sampling)
    out = levels.sample(request, pyramid)
    return out, levels.sample(request, pyramid, levels.Request.inside) if return_mask else None


def displaced_sample(image: Tensor, displacements: Tensor, return_mask: bool, options: CallOptions) -> Sampled:
    """Run `grid_sample` with relative=True on displacements of a warp, whose axes have a known order."""
    _check.image("image", image)
    _check.grid("displacements", displacements, image)
    return sampled(image, DISPLACED, displacements, return_mask, options)


def spatial_transformer_network(
    input_fmap: Tensor,  # (B, H, W, C)
    theta: Tensor,  # (B, 6), or (B, 2, 3)
    out_dims: int | Sequence[int] | None = None,  # (H', W'); None: as input_fmap
) -> Tensor:  # (B, H', W', C)
    """The call of the `stn` package of 2017: channels last, affine, bilinear, zeros outside, corners aligned.

    As in that package, -1 and 1 are the centers of the outer pixels. Its error of one pixel at the far edges (the identity
    returned an image scaled by (W - 2) / (W - 1)) is not repeated.

    Args:
        input_fmap: (B, H, W, C).
        theta: (B, 6), or (B, 2, 3).
        out_dims: (H', W'). None: as input_fmap.

    Returns:
        (B, H', W', C).

    Raises:
        InputError: An argument has a wrong shape or value, which the message names. TypeError: a wrong type.

    Example:
        >>> theta = torch.tensor([1.0, 0, 0, 0, 1, 0]).repeat(8, 1)
        >>> stn.spatial_transformer_network(torch.rand(8, 32, 32, 3), theta, (16, 16)).shape
        torch.Size([8, 16, 16, 3])
    """
    _check.channels_last("input_fmap", input_fmap)
    batch = input_fmap.shape[0]
    _check.affine_rows("theta", theta, batch)
    if out_dims is not None:
        out_dims = _check.lengths("out_dims", out_dims, 2)
    image = input_fmap.permute(0, 3, 1, 2)  # (B, C, H, W)
    return affine_sample(image, theta.reshape(batch, 2, 3), out_dims, align_corners=True).permute(0, 2, 3, 1)
