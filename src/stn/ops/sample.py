"""The public operators: check, bring to one canonical shape, hand on.

Three ops lie below them, one a coordinate rule, with the signatures of `reference.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict

from torch import Tensor

from stn import _check
from stn.ops import antialias as reach
from stn.ops import reference
from stn.ops.antialias import Request
from stn.ops.kernels import KERNELS, Kernel
from stn.ops.precision import unrounded
from stn.ops.pyramid import Pyramid

if TYPE_CHECKING:
    from typing_extensions import Unpack


class SamplingOptions(TypedDict, total=False):
    """The keywords that every sampling call takes and hands down; `affine_sample` says what they mean."""

    mode: str | Kernel
    padding_mode: str
    fill_value: float | Sequence[float] | Tensor
    align_corners: bool
    antialias: bool | str
    gradient: str


class CallOptions(SamplingOptions, total=False):
    """Those of a single call, which may ask for more than the image, and bring more."""

    pyramid: Pyramid | None
    return_mask: bool


class Options(NamedTuple):
    """All of them."""

    mode: str | Kernel = "bilinear"
    padding_mode: str = "zeros"
    fill_value: float | Sequence[float] | Tensor = 0.0
    align_corners: bool = False
    antialias: bool | str = False
    gradient: str = "exact"
    pyramid: Pyramid | None = None
    return_mask: bool = False


def check_options(options: SamplingOptions) -> None:
    """Refuse an option that no sampling call would take: a layer asks when it is made, not at its first image."""
    _check.unknown("sampling options", options, SamplingOptions.__annotations__)
    check_mode(options.get("mode", "bilinear"))
    check_reach(options.get("antialias", False), options.get("gradient", "exact"))
    _check.choice("padding_mode", options.get("padding_mode", "zeros"), reference.PADDINGS)


def check_mode(mode: str | Kernel) -> None:
    if not isinstance(mode, Kernel):
        _check.choice("mode", mode, KERNELS)


def check_reach(antialias: bool | str, gradient: str) -> None:
    _check.choice("antialias", antialias, reach.ANTIALIAS)
    _check.choice("gradient", gradient, reach.GRADIENT)


def affine_sample(
    image: Tensor,  # (N, C, H, W) or (N, C, D, H, W)
    theta: Tensor,  # (d, d+1) for all, (N, d, d+1), or (N, K, d, d+1): K looks at each image; N = 1 is for all
    size: int | Sequence[int] | None = None,  # output size; None: as image
    *,
    mode: str | Kernel = "bilinear",
    padding_mode: str = "zeros",
    fill_value: float | Sequence[float] | Tensor = 0.0,
    align_corners: bool = False,
    antialias: bool | str = False,
    gradient: str = "exact",
    pyramid: Pyramid | None = None,
    return_mask: bool = False,
) -> Any:  # (N, C, *size), or (N, K, C, *size); with return_mask also the mask, C = 1
    """Sample an image through an affine map from target to source points, both normalised (`stn.grid`).

    mode: nearest, bilinear (trilinear for volumes), bicubic, catmull_rom, bspline, lanczos3, or a `stn.Kernel`.
    padding_mode: zeros (which `fill_value` replaces, a number or one a channel), border, reflection or wrap. Equal to
    `affine_grid` and `grid_sample`; K looks do not copy the image. return_mask: also the share of the kernel that lay
    inside the image. image: any floating point or complex dtype, or uint8, whose result is rounded.
    antialias: average over what a pixel covers where the image is shrunk; "anisotropic": by the shorter axis of that,
    with several taps along the longer. gradient: "wide" gives theta a gradient that reaches further than one pixel.
    pyramid: `stn.Pyramid(image)`, made once for several calls.

    Raises: InputError or TypeError, which name the argument. Source: Jaderberg et al. 2015, eq. 1, 3 and 5.
    """
    rows = _check.image("image", image)
    options = Options(mode, padding_mode, fill_value, align_corners, antialias, gradient, pyramid, return_mask)
    return _sample_through(image, "theta", theta, rows, size, options)


def projective_sample(
    image: Tensor,  # (N, C, H, W) or (N, C, D, H, W)
    matrix: Tensor,  # (d+1, d+1) for all, (N, d+1, d+1), or (N, K, d+1, d+1); N = 1 is for all
    size: int | Sequence[int] | None = None,  # output size; None: as image
    *,
    mode: str | Kernel = "bilinear",
    padding_mode: str = "zeros",
    fill_value: float | Sequence[float] | Tensor = 0.0,
    align_corners: bool = False,
    antialias: bool | str = False,
    gradient: str = "exact",
    pyramid: Pyramid | None = None,
    return_mask: bool = False,
) -> Any:  # (N, C, *size), or (N, K, C, *size); with return_mask also the mask, C = 1
    """Sample an image through a homography from target to source points, both normalised (`stn.grid`).

    Options as in `affine_sample`. The plane is the projective one: points beyond the horizon (w < 0) are seen as OpenCV
    and scikit-image see them, and the horizon itself (w = 0) is infinitely far, hence padding, with zero gradient.

    Raises: InputError or TypeError, which name the argument.
    """
    rows = _check.image("image", image) + 1
    options = Options(mode, padding_mode, fill_value, align_corners, antialias, gradient, pyramid, return_mask)
    return _sample_through(image, "matrix", matrix, rows, size, options)


def _sample_through(
    image: Tensor, name: str, matrix: Tensor, rows: int, size: int | Sequence[int] | None, options: Options
) -> Any:
    _check.matrix(name, matrix, image, rows)
    size = _check.lengths("size", image.shape[2:] if size is None else size, image.ndim - 2)
    settings = size, options.mode, options.padding_mode, options.align_corners
    return _result("matrix", image, matrix, 2, settings, options)


def _result(rule: str, image: Tensor, where: Tensor, own: int, settings: tuple[Any, ...], options: Options) -> Any:
    """where: of `own` dimensions for all, or with N or (N, K) before them, N as in image or 1."""
    check_mode(options.mode)
    check_reach(options.antialias, options.gradient)
    _check.choice("padding_mode", options.padding_mode, reference.PADDINGS)
    fill = _check.fill_value(options.fill_value, image, options.padding_mode)
    if options.pyramid is not None:
        _check.pyramid_fits("pyramid", options.pyramid, image, options.align_corners, options.padding_mode)
    looks = where.ndim == own + 2
    each = where if looks else where.unsqueeze(-own - 1)  # (N, 1, ..), (1, 1, ..) or (1, ..)
    if each.ndim == own + 1 or each.shape[0] != image.shape[0]:
        each = each.expand(image.shape[0], *each.shape[-own - 1 :])
    request = Request(rule, each, fill, settings, options.antialias, options.gradient)
    with unrounded(image.device):
        pyramid = reach.pyramid_for(request, image, options.pyramid)
        out = reach.sample(request, image, pyramid)
        out = out if looks else out.squeeze(1)
        if not options.return_mask:
            return out
        mask = reach.sample(replace(request, gradient="exact"), image, pyramid, Request.inside)
        return out, mask if looks else mask.squeeze(1)


def thin_plate_sample(
    image: Tensor,  # (N, C, H, W)
    coefficients: Tensor,  # (T+3, 2) for all, (N, T+3, 2), or (N, K, T+3, 2); N = 1 is for all
    control_points: Tensor,  # (T, 2) normalised, for all
    size: int | Sequence[int] | None = None,  # output size; None: as image
    *,
    mode: str | Kernel = "bilinear",
    padding_mode: str = "zeros",
    fill_value: float | Sequence[float] | Tensor = 0.0,
    align_corners: bool = False,
    antialias: bool | str = False,
    gradient: str = "exact",
    pyramid: Pyramid | None = None,
    return_mask: bool = False,
) -> Any:  # (N, C, *size), or (N, K, C, *size); with return_mask also the mask, C = 1
    """Sample an image through thin-plate splines x' = x + (U(|x - p_1|), .., U(|x - p_T|), 1, x, y) w, U(r) = r^2 log r.

    w: the coefficients, zeros for the identity; `stn.ThinPlateSpline` finds them from the offsets of the control points p.
    Not differentiable in the control points. Options as in `affine_sample`.

    Raises: InputError or TypeError, which name the argument.
    Source: Bookstein 1989.
    """
    _check.image("image", image)
    _check.control_points("control_points", control_points)
    _check.coefficients("coefficients", coefficients, control_points, image)
    size = _check.lengths("size", image.shape[2:] if size is None else size, 2)
    settings = (size, mode, padding_mode, align_corners, control_points.detach())
    options = Options(mode, padding_mode, fill_value, align_corners, antialias, gradient, pyramid, return_mask)
    return _result("basis", image, coefficients, 2, settings, options)


def grid_sample(
    image: Tensor,  # (N, C, H, W) or (N, C, D, H, W)
    grid: Tensor,  # (N, *size, d), or (N, K, *size, d): K looks at each image; N = 1 is for all
    *,
    mode: str | Kernel = "bilinear",
    padding_mode: str = "zeros",
    fill_value: float | Sequence[float] | Tensor = 0.0,
    align_corners: bool = False,
    units: str = "normalized",
    relative: bool = False,
    antialias: bool | str = False,
    gradient: str = "exact",
    pyramid: Pyramid | None = None,
    return_mask: bool = False,
) -> Any:  # (N, C, *size), or (N, K, C, *size); with return_mask also the mask, C = 1
    """Sample an image at stored points (x, y[, z]): a superset of `torch.nn.functional.grid_sample`.

    units: "normalized", or "pixel" (source pixels, 0 at the first centre). With `relative=True` the grid holds
    displacements from the target lattice, so that zeros are the identity, bit for bit. Options as in `affine_sample`.

    Raises: InputError or TypeError, which name the argument.
    """
    _check.image("image", image)
    _check.grid("grid", grid, image)
    _check.points_last("grid", grid, image)
    _check.choice("units", units, ("normalized", "pixel"))
    options = Options(mode, padding_mode, fill_value, align_corners, antialias, gradient, pyramid, return_mask)
    return _through_field(image, grid, units, relative, options)


def displaced_sample(image: Tensor, displacements: Tensor, **options: Unpack[CallOptions]) -> Any:
    """`grid_sample` with relative=True of displacements that a warp made, the order of whose axes is known."""
    _check.image("image", image)
    _check.grid("displacements", displacements, image)
    return _through_field(image, displacements, "normalized", True, Options(**options))


def _through_field(image: Tensor, field: Tensor, units: str, relative: bool, options: Options) -> Any:
    settings = options.mode, options.padding_mode, options.align_corners, units, relative
    return _result("field", image, field, image.ndim - 1, settings, options)


def spatial_transformer_network(
    input_fmap: Tensor,  # (B, H, W, C)
    theta: Tensor,  # (B, 6), or (B, 2, 3)
    out_dims: int | Sequence[int] | None = None,  # (H', W'); None: as input_fmap
) -> Tensor:  # (B, H', W', C)
    """The call of the `stn` package of 2017, channels last: affine, bilinear, zeros outside, corners aligned.

    Its grid put -1 and 1 on the centres of the outer pixels, as here; its slip of one pixel at the far edges (the identity
    returned an image scaled by (W - 2) / (W - 1)) is not repeated.

    Raises: InputError or TypeError, which name the argument.
    """
    _check.channels_last("input_fmap", input_fmap)
    batch = input_fmap.shape[0]
    _check.affine_rows("theta", theta, batch)
    if out_dims is not None:
        out_dims = _check.lengths("out_dims", out_dims, 2)
    image = input_fmap.permute(0, 3, 1, 2)  # (B, C, H, W)
    return affine_sample(image, theta.reshape(batch, 2, 3), out_dims, align_corners=True).permute(0, 2, 3, 1)
