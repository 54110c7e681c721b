"""Every error about an argument is raised here, as a sentence: which argument, what was expected, what came."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor


class InputError(ValueError):
    """Something that the caller handed in (an argument, a file, a run folder) is not what was expected."""


def fail(sentence: str) -> NoReturn:
    raise InputError(sentence)


def choice(name: str, value: object, allowed: Iterable[object]) -> None:
    allowed = list(allowed)
    if value not in allowed:
        fail(f"{name} must be one of {', '.join(sorted(map(str, allowed)))}; got {value!r}")


def lengths(name: str, size: Any, ndim: int | None = None) -> tuple[int, ...]:
    """A size in torch's order, every length a positive integer."""
    wanted = f"{ndim}" if ndim else "2 or 3"
    if not isinstance(size, Sequence) or not all(isinstance(n, int) and not isinstance(n, bool) for n in size):
        fail(f"{name} must be a sequence of {wanted} integers; got {size!r}")
    if len(size) not in ((ndim,) if ndim else (2, 3)):
        fail(f"{name} must have {wanted} lengths; got {tuple(size)}")
    if min(size) < 1:
        fail(f"{name} must have positive lengths; got {tuple(size)}")
    return tuple(size)


def some(name: str, given: Sequence[object]) -> None:
    if not given:
        fail(f"{name} must be given, once or more often; got none")


def tensor(name: str, value: object) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor; got {type(value).__name__}")


def floating(name: str, value: object) -> None:
    tensor(name, value)
    if isinstance(value, Tensor) and not value.is_floating_point():
        raise TypeError(f"{name} must have a floating-point dtype; got {value.dtype}")


def image(name: str, value: Tensor) -> int:
    """An image batch (N, C, H, W) or (N, C, D, H, W) whose pixels exist. Returns its number of spatial dimensions."""
    tensor(name, value)
    if not (value.is_floating_point() or value.is_complex() or value.dtype == torch.uint8):
        raise TypeError(f"{name} must have a floating-point dtype, a complex one, or uint8; got {value.dtype}")
    if value.ndim not in (4, 5):
        fail(f"{name} must be (N, C, H, W) or (N, C, D, H, W); got {tuple(value.shape)}")
    if 0 in value.shape[2:]:
        fail(f"{name} must have at least one pixel along each axis; got {tuple(value.shape)}")
    return value.ndim - 2


def pyramid_fits(name: str, value: Any, image: Tensor, align_corners: bool) -> None:
    if value.image is not image:
        fail(f"{name} must be made of this very image; got one of another {tuple(value.image.shape)}")
    if value.align_corners != align_corners:
        fail(f"{name} must have align_corners={align_corners} as the call; got {value.align_corners}")


def channels_last(name: str, value: Tensor) -> None:
    """An image batch (B, H, W, C) whose pixels exist."""
    floating(name, value)
    if value.ndim != 4 or 0 in value.shape[1:3]:
        fail(f"{name} must be (B, H, W, C) with at least one pixel along each axis; got {tuple(value.shape)}")


def affine_rows(name: str, value: Tensor, batch: int) -> None:
    floating(name, value)
    if value.shape not in ((batch, 6), (batch, 2, 3)):
        fail(f"{name} must be (B, 6) or (B, 2, 3) with B = {batch} as in input_fmap; got {tuple(value.shape)}")


def same_device(name: str, value: Tensor, image: Tensor) -> None:
    if value.device != image.device:
        fail(f"{name} must be on {image.device} as image; got {value.device}")


def matrix(name: str, value: Tensor, image: Tensor, rows: int) -> None:
    """Matrices (rows, d+1) for all, (N, rows, d+1) one an image, or (N, K, rows, d+1) K an image."""
    floating(name, value)
    same_device(name, value, image)
    columns, n = image.ndim - 1, image.shape[0]
    fits = value.shape[-2:] == (rows, columns) and value.ndim in (2, 3, 4)
    if not fits or (value.ndim > 2 and value.shape[0] != n):
        core = f"{rows}, {columns}"
        fail(f"{name} must be ({core}), (N, {core}) or (N, K, {core}) with N = {n} as in image; got {tuple(value.shape)}")


def coefficients(name: str, value: Tensor, control_points: Tensor, image: Tensor) -> None:
    """Weights of a thin-plate spline (N, T+3, 2) one an image, or (N, K, T+3, 2) K an image."""
    floating(name, value)
    same_device(name, value, image)
    if image.ndim != 4:
        fail(f"image must be (N, C, H, W) for a thin-plate spline; got {tuple(image.shape)}")
    n, rows = image.shape[0], len(control_points) + 3
    if value.ndim not in (3, 4) or value.shape[0] != n or value.shape[-2:] != (rows, 2):
        core = f"{rows}, 2"
        fail(f"{name} must be (N, {core}) or (N, K, {core}) with N = {n} as in image; got {tuple(value.shape)}")


def grid(name: str, value: Tensor, image: Tensor) -> None:
    """Points (N, *size, d) or (N, K, *size, d)."""
    floating(name, value)
    same_device(name, value, image)
    d, n = image.ndim - 2, image.shape[0]
    axes = "H, W" if d == 2 else "D, H, W"
    fits = value.ndim in (d + 2, d + 3) and value.shape[-1] == d and value.shape[0] == n
    if not fits:
        fail(f"{name} must be (N, {axes}, {d}) or (N, K, {axes}, {d}) with N = {n} as in image; got {tuple(value.shape)}")
    if 0 in value.shape[-d - 1 : -1]:
        fail(f"{name} must have at least one point along each axis; got {tuple(value.shape)}")


def fill_value(value: float | Sequence[float] | Tensor, image: Tensor, padding_mode: str) -> Tensor:
    """A number, or one for each channel: () or (C,), on the image's device, in its precision and at least float32."""
    dtype = torch.promote_types(image.dtype, torch.float32)
    if isinstance(value, Tensor):
        fill = value.to(image.device)
    elif isinstance(value, Sequence):
        fill = torch.tensor(value, dtype=dtype, device=image.device)
    else:
        fill = torch.full((), value, dtype=dtype, device=image.device)  # no copy from the host, which would wait
    if fill.ndim > 1 or (fill.ndim == 1 and fill.shape[0] != image.shape[1]):
        fail(f"fill_value must be a number or have C = {image.shape[1]} numbers as image; got {tuple(fill.shape)}")
    if padding_mode != "zeros" and not (isinstance(value, int | float) and value == 0):
        fail(f"fill_value goes with padding_mode='zeros'; got padding_mode={padding_mode!r}")
    return fill


def points(name: str, value: Tensor, ndim: int) -> None:
    floating(name, value)
    if value.ndim < 1 or value.shape[-1] != ndim:
        fail(f"{name} must be (..., {ndim}); got {tuple(value.shape)}")


def batched_points(name: str, value: Tensor, batch: Sequence[int]) -> torch.Size:
    """Points (N[, K], .., d), lengths of 1 for all. Returns the shape of each point set."""
    lead = value.shape[: len(batch)]
    if value.ndim <= len(batch) or any(have not in (1, want) for have, want in zip(lead, batch, strict=True)):
        fail(f"{name} must be (P, {value.shape[-1]}) or lead with the warp's batch {tuple(batch)}; got {tuple(value.shape)}")
    return value.shape[len(batch) : -1]


def corners(name: str, value: Tensor) -> None:
    floating(name, value)
    if value.shape[-2:] != (4, 2):
        fail(f"{name} must be (.., 4, 2); got {tuple(value.shape)}")


def control_points(name: str, value: Tensor) -> None:
    floating(name, value)
    if value.ndim != 2 or value.shape[1] != 2 or len(value) < 3:
        fail(f"{name} must be (T, 2) with T >= 3, or a lattice (rows, columns); got {tuple(value.shape)}")


def finite(name: str, value: Tensor) -> None:
    """Looks at the numbers: not for what is called in a training step."""
    if not value.isfinite().all():
        fail(f"{name} must be finite; got {value.tolist()}")


def lattice_shape(name: str, value: Sequence[int]) -> tuple[int, ...]:
    shape = lengths(name, value, 2)
    if min(shape) < 2:
        fail(f"{name} must have at least 2 rows and 2 columns; got {shape}")
    return shape


def theta(value: Tensor, num_params: int, family: str) -> None:
    """Parameters (N, P), or (N, K, P) for K looks at each image."""
    floating("theta", value)
    if value.ndim not in (2, 3) or value.shape[-1] != num_params:
        fail(f"theta must be (N, {num_params}) or (N, K, {num_params}) for {family}; got {tuple(value.shape)}")


def warp_fits(batch: Sequence[int], image: Tensor, ndim: int) -> None:
    if image.ndim - 2 != ndim:
        fail(f"image must have {ndim} spatial dimensions as the warp; got {tuple(image.shape)}")
    if batch[0] != image.shape[0]:
        fail(f"theta must have N = {image.shape[0]} rows as image; got {batch[0]}")


def dimension(value: int, allowed: Sequence[int], family: str) -> int:
    if value not in allowed:
        fail(f"ndim must be {' or '.join(map(str, allowed))} for {family}; got {value!r}")
    return value


def positive(name: str, value: float) -> None:
    if not value > 0:
        fail(f"{name} must be positive; got {value!r}")


def not_negative(name: str, value: float) -> None:
    if not value >= 0:
        fail(f"{name} must not be negative; got {value!r}")


def input_shape(name: str, shape: Any) -> tuple[int, ...]:
    """The shape of one image without its batch: (C, H, W)."""
    if not isinstance(shape, Sequence) or len(shape) != 3 or not all(isinstance(n, int) and n > 0 for n in shape):
        fail(f"{name} must be (C, H, W), positive integers; got {shape!r}")
    return tuple(shape)


def at_least(name: str, value: int, least: int) -> None:
    if not isinstance(value, int) or value < least:
        fail(f"{name} must be an integer of at least {least}; got {value!r}")


def features(localization: object, given: int | None) -> int:
    """How many features a localisation network returns: as given, or as it says itself."""
    count = getattr(localization, "out_features", None) if given is None else given
    if not isinstance(count, int) or count < 1:
        fail(
            "features must be given for a localization network without an attribute out_features; "
            f"got {type(localization).__name__}"
        )
    return count


def localized(value: Tensor, image: Tensor, features: int) -> None:
    """What a localisation network returned."""
    expected = (image.shape[0], features)
    if value.shape != expected:
        fail(f"the localization network must return (N, features) = {expected}; got {tuple(value.shape)}")


def unknown(name: str, given: Iterable[str], allowed: Iterable[str]) -> None:
    allowed = sorted(allowed, key=str)
    for key in given:
        if key not in allowed:
            fail(f"{name} must be among {', '.join(allowed)}; got {key!r}")


def side(name: str, value: int, allowed: Iterable[int]) -> None:
    """The side of a square image, one of those that a network is laid out for."""
    if value not in allowed:
        fail(f"{name} must be one of {', '.join(map(str, sorted(allowed)))} pixels; got {value!r}")


def installed(module: str, extra: str) -> None:
    """A package that only an extra of this library needs."""
    if importlib.util.find_spec(module) is None:
        fail(f"the package {module} is needed here: pip install 'torch-stn[{extra}]'")


def device(name: str, value: str) -> None:
    """cpu, or a CUDA device that is there."""
    kind, _, index = value.partition(":")
    if kind not in ("cpu", "cuda") or (index and (kind == "cpu" or not index.isdecimal())):
        fail(f"{name} must be cpu, cuda or cuda and a number, as in cuda:1; got {value!r}")
    count = torch.cuda.device_count()
    if kind == "cuda" and int(index or 0) >= count:
        fail(f"{name} must be a device that torch sees, and it sees {count} of CUDA; got {value!r}")


def angle(name: str, degrees: float) -> None:
    if not -90 < degrees < 90:
        fail(f"{name} must be between -90 and 90 degrees; got {degrees!r}")


def alone(name: str, others: dict[str, Any]) -> None:
    """An option that cannot be combined with these, where they are set."""
    given = [other for other, value in others.items() if value]
    if given:
        fail(f"{name} goes without {', '.join(others)}; got {', '.join(given)} too")


def unmapped(name: str, dim: int | None) -> None:
    """An argument that vmap may not map: it is one for the whole call."""
    if dim is not None:
        fail(f"{name} must be the same for all that vmap maps over; got one mapped over dimension {dim}")


def composable(outer: Sequence[int], inner: Sequence[int], outer_ndim: int, inner_ndim: int) -> None:
    if outer_ndim != inner_ndim:
        fail(f"both warps of a composition must have the same number of dimensions; got {outer_ndim} and {inner_ndim}")
    if any(a != b for a, b in zip(outer, inner, strict=False)):
        fail(f"both warps of a composition must be of the same batch; got {tuple(outer)} and {tuple(inner)}")


def regular(name: str, value: Tensor) -> None:
    """A flag for each sample (N,) or (N, K). Looks at the numbers: not for what is called in a training step."""
    bad = (~value).nonzero().tolist()
    if bad:
        places = ", ".join(str(tuple(place)) if len(place) > 1 else str(place[0]) for place in bad[:8])
        more = f" and {len(bad) - 8} more" if len(bad) > 8 else ""
        fail(f"{name} must not be singular; it is at sample {places}{more} of {tuple(value.shape)}")


def pixel_matrix(name: str, value: Tensor) -> None:
    floating(name, value)
    if value.ndim not in (2, 3, 4) or value.shape[-1] not in (3, 4) or value.shape[-1] - value.shape[-2] not in (0, 1):
        fail(f"{name} must be (N, d, d+1) or (N, d+1, d+1), or with K looks; got {tuple(value.shape)}")


def lattice_of(name: str, value: Sequence[int], ndim: int, *, least: int) -> tuple[int, ...]:
    """Nodes or cells along each axis of a lattice over the image."""
    shape = lengths(name, value, ndim)
    if min(shape) < least:
        fail(f"{name} must have at least {least} along each axis; got {shape}")
    return shape


def even(name: str, value: int) -> None:
    if value % 2:
        fail(f"{name} must be even; got {value!r}")


def divisible(name: str, value: int, parts: int) -> None:
    if value % parts:
        fail(f"{name} must be a multiple of the {parts} processes that share it; got {value!r}")


def share(name: str, value: float, most: float) -> None:
    if not 0 <= value < most:
        fail(f"{name} must be at least 0 and less than {most}; got {value!r}")


def field(name: str, value: Tensor) -> None:
    """Displacements (N, *shape, d), or (N, K, *shape, d)."""
    floating(name, value)
    d = value.shape[-1] if value.ndim else 0
    if d not in (2, 3) or value.ndim - d not in (2, 3):
        fail(f"{name} must be (N, H, W, 2) or (N, D, H, W, 3), or with K looks; got {tuple(value.shape)}")


def inner_nodes(name: str, cells: Sequence[int], boundary: str) -> None:
    if boundary == "fixed" and min(cells) < 2:
        fail(f"{name} must have at least 2 along each axis, or no node moves with boundary='fixed'; got {tuple(cells)}")


def within(name: str, bounds: tuple[float, float], values: Sequence[float]) -> None:
    """Bounds (low, high) with all values of the identity strictly inside."""
    low, high = bounds
    if not all(low < value < high for value in values):
        fail(f"{name} must have bounds (low, high) around the identity's {sorted(set(values))}; got {bounds}")
