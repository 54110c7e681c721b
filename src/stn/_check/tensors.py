"""Checks of the kind, shape, device and values of tensors."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor

from stn._check.errors import AXES, fail, samples, shown

INTEGERS = (torch.uint8, torch.bool, torch.int8, torch.int16, torch.int32, torch.int64)  # dtypes of label maps


def tensor(name: str, value: object) -> None:
    if not isinstance(value, Tensor):
        how = f": pass torch.as_tensor({name})" if isinstance(value, list | tuple | np.ndarray) else ""
        raise TypeError(f"{name} must be a torch.Tensor; got {type(value).__name__}{how}")


def floating(name: str, value: object) -> None:
    tensor(name, value)
    if isinstance(value, Tensor) and not value.is_floating_point():
        how = "" if value.is_complex() else f": pass {name}.float()"
        raise TypeError(f"{name} must have a floating-point dtype; got {value.dtype}{how}")


def number_or_floating(name: str, value: object) -> None:
    if not isinstance(value, Tensor) and (isinstance(value, bool) or not isinstance(value, int | float | np.number)):
        how = f": pass torch.as_tensor({name})" if isinstance(value, list | tuple | np.ndarray) else ""
        raise TypeError(f"{name} must be a number or a torch.Tensor; got {type(value).__name__}{how}")
    if isinstance(value, Tensor):
        floating(name, value)


def broadcast(parts: Mapping[str, Tensor]) -> torch.Size:
    """Check that tensors (.., n) have batches that broadcast. Returns their batch, of at least one axis."""
    try:
        return torch.broadcast_shapes(*(part.shape[:-1] for part in parts.values()), (1,))
    except RuntimeError:
        batches = ", ".join(str(tuple(part.shape[:-1])) for part in parts.values())
        fail(f"{', '.join(parts)} must have the same batch, or lengths of 1; got {batches}")


def image(name: str, value: Any) -> int:
    """Check a nonempty batch of signals, images or volumes. Returns its number of spatial dimensions."""
    if not isinstance(value, Tensor):
        tensor(name, value)
    if not (value.is_floating_point() or value.is_complex() or value.dtype in INTEGERS):
        raise TypeError(
            f"{name} must have a floating-point dtype, a complex one, uint8, or for mode='nearest' bool or int8 to int64; "
            f"got {value.dtype}"
        )
    if value.ndim not in (3, 4, 5):
        fail(f"{name} must be (N, C, L), (N, C, H, W) or (N, C, D, H, W); got {tuple(value.shape)}")
    if 0 in value.shape[2:]:
        fail(f"{name} must have at least one pixel along each axis; got {tuple(value.shape)}")
    return value.ndim - 2


def pyramid_fits(name: str, value: Any, image: Tensor, align_corners: bool, padding_mode: str) -> None:
    if value.image is not image:
        fail(f"{name} must be made from the image of this call; got a pyramid of another image {tuple(value.image.shape)}")
    if value.align_corners != align_corners:
        fail(f"{name} must be made with align_corners={align_corners}, as set in this call; got {value.align_corners}")
    if value.how.wraps != (padding_mode == "wrap"):  # all other paddings use the same levels
        got = "'wrap'" if value.how.wraps else "one that does not wrap"
        fail(f"{name} must be made with padding_mode={padding_mode!r}, as set in this call; got {got}")


def channels_last(name: str, value: Tensor) -> None:
    """Check a nonempty image batch (B, H, W, C)."""
    floating(name, value)
    if value.ndim != 4 or 0 in value.shape[1:3]:
        fail(f"{name} must be (B, H, W, C) with at least one pixel along each axis; got {tuple(value.shape)}")


def affine_rows(name: str, value: Tensor, batch: int) -> None:
    floating(name, value)
    if value.shape not in ((batch, 6), (batch, 2, 3)):
        fail(f"{name} must be (B, 6) or (B, 2, 3) with B = {batch}, the batch size of input_fmap; got {tuple(value.shape)}")


def same_device(name: str, value: Tensor, image: Tensor) -> None:
    if value.device != image.device:
        fail(f"{name} must be on {image.device}, the device of image; got {value.device}")


def matrix(name: str, value: Any, image: Tensor, rows: int) -> None:
    """Check matrices (rows, d+1) for all images, (N, rows, d+1), or (N, K, rows, d+1) for K looks per image."""
    if not isinstance(value, Tensor) or not value.is_floating_point():
        floating(name, value)
    if value.device != image.device:
        same_device(name, value, image)
    if image.ndim == 3 and value.ndim >= 2 and value.shape[-1] > 2:
        _fail_without_batch(name, value, image, value.shape[-1] - 1)
    _one_or_each(name, value, image, (rows, image.ndim - 1))


def _fail_without_batch(name: str, value: Tensor, image: Tensor, ndim: int) -> NoReturn:
    """Explain an image or a volume that was read as a signal, because an axis is missing."""
    axes = f"(N, C, {AXES[ndim]})" if ndim in AXES else f"of {ndim} dimensions"
    fail(f"image must be {axes} for {name} {tuple(value.shape)}; got {tuple(image.shape)}, which is read as (N, C, L)")


def _one_or_each(name: str, value: Tensor, image: Tensor, core: tuple[int, ...]) -> None:
    """Check a tensor of this shape for all images, or with N or (N, K) before it; N as in image, or 1."""
    lead, n = value.ndim - len(core), image.shape[0]
    fits = lead in (0, 1, 2) and value.shape[-len(core) :] == core
    if not fits or (lead and value.shape[0] != 1 and value.shape[0] != n):  # Dynamo cannot look up a symbol in a tuple
        shape = ", ".join(map(str, core))
        fail(
            f"{name} must be ({shape}), (N, {shape}) or (N, K, {shape}) with N = {n}, the batch size of image, or N = 1; "
            f"got {tuple(value.shape)}"
        )


def coefficients(name: str, value: Tensor, control_points: Tensor, image: Tensor) -> None:
    """Check weights of a thin-plate spline: (T+d+1, d) for all images, (N, T+d+1, d), or (N, K, T+d+1, d)."""
    floating(name, value)
    same_device(name, value, image)
    d = control_points.shape[1]
    if image.ndim != d + 2:
        axes = "(N, C, H, W)" if d == 2 else "(N, C, D, H, W)"
        fail(f"image must be {axes} for control points in {d}-D; got {tuple(image.shape)}")
    _one_or_each(name, value, image, (len(control_points) + d + 1, d))


def grid(name: str, value: Tensor, image: Tensor) -> None:
    """Check points (N, *size, d) or (N, K, *size, d)."""
    floating(name, value)
    same_device(name, value, image)
    d, n = image.ndim - 2, image.shape[0]
    if image.ndim == 3 and value.ndim >= 2 and value.shape[-1] > 1:
        _fail_without_batch(name, value, image, value.shape[-1])
    axes = ("L", "H, W", "D, H, W")[d - 1]
    fits = value.ndim in (d + 2, d + 3) and value.shape[-1] == d and (value.shape[0] == 1 or value.shape[0] == n)
    if not fits:
        fail(
            f"{name} must be (N, {axes}, {d}) or (N, K, {axes}, {d}) with N = {n}, the batch size of image, or N = 1; "
            f"got {tuple(value.shape)}"
        )
    if 0 in value.shape[-d - 1 : -1]:
        fail(f"{name} must have at least one point along each axis; got {tuple(value.shape)}")


def points_last(name: str, value: Tensor, image: Tensor) -> None:
    """Warn how a field is read if its shape also fits (N, d, *in), the other order of axes."""
    size, d = image.shape[2:], image.ndim - 2
    if value.ndim == d + 2 and value.shape[1] == d and value.shape[2:] == size and value.shape[1:-1] != size:
        if value.numel() and not torch.compiler.is_compiling():
            warnings.warn(
                f"{name} of shape {tuple(value.shape)} is read as (N, *size, {d}), points in the last axis, for an output "
                f"of {tuple(value.shape[1:-1])}. If it is (N, {d}, *size), pass {name}.movedim(1, -1)",
                stacklevel=3,
            )


def points(name: str, value: Tensor, ndim: int) -> None:
    floating(name, value)
    if value.ndim < 1 or value.shape[-1] != ndim:
        fail(f"{name} must be (..., {ndim}); got {tuple(value.shape)}")


def batched_points(name: str, value: Tensor, batch: Sequence[int]) -> torch.Size:
    """Check points (N[, K], .., d), where lengths of 1 broadcast. Returns the shape of each point set."""
    lead = value.shape[: len(batch)]
    if value.ndim <= len(batch) or any(m != 1 and n != 1 and m != n for m, n in zip(lead, batch, strict=True)):
        expected = f"(P, {value.shape[-1]}), or begin with the warp's batch {tuple(batch)}"
        fail(f"{name} must be {expected}; got {tuple(value.shape)}")
    return value.shape[len(batch) : -1]


def corners(name: str, value: Tensor) -> None:
    floating(name, value)
    if value.shape[-2:] != (4, 2):
        fail(f"{name} must be (.., 4, 2); got {tuple(value.shape)}")


def control_points(name: str, value: Tensor, d: int) -> None:
    floating(name, value)
    if value.ndim != 2 or value.shape[1] != d or len(value) <= d:
        lattice = "(rows, columns)" if d == 2 else "(slices, rows, columns)"
        fail(f"{name} must be (T, {d}) with T >= {d + 1}, or a lattice {lattice}; got {tuple(value.shape)}")
    constant(name, value)


def finite(name: str, value: Tensor) -> None:
    """Check that all values are finite. This reads values, so it must not run in a training step."""
    if not value.isfinite().all():
        fail(f"{name} must be finite; got {shown(value.tolist())}")


def rows_of_theta(value: Tensor, num_params: int, family: str) -> None:
    """Check parameters (.., P)."""
    floating("theta", value)
    if value.ndim < 1 or value.shape[-1] != num_params:
        fail(f"theta must be (.., {num_params}) for {family}; got {tuple(value.shape)}")


def theta(value: Tensor, num_params: int, family: str) -> None:
    """Check parameters (N, P), or (N, K, P) for K looks at each image."""
    floating("theta", value)
    if value.ndim not in (2, 3) or value.shape[-1] != num_params:
        fail(f"theta must be (N, {num_params}) or (N, K, {num_params}) for {family}; got {tuple(value.shape)}")


def warp_fits(batch: Sequence[int], image: Tensor, ndim: int) -> None:
    if image.ndim - 2 != ndim:
        how = ", which lacks the batch: pass image.unsqueeze(0) for one image" if image.ndim == ndim + 1 else ""
        fail(f"image must be (N, C, {AXES[ndim]}) for a warp of {ndim} dimensions; got {tuple(image.shape)}{how}")
    if batch[0] != image.shape[0] and batch[0] != 1:
        n = image.shape[0]
        expected = f"a batch of N = {n}, the batch size of image, or of 1"
        how = f". {batch[0]} looks at one image are a batch (1, {batch[0]})" if n == 1 and len(batch) == 1 else ""
        fail(f"the warp must have {expected}; got a warp of batch {tuple(batch)}{how}")


def localized(value: object, x: Tensor, features: int | None) -> None:
    """Check the output of a localization network. features: None if it is theta itself, which `given_theta` checks."""
    if not isinstance(value, Tensor):
        raise TypeError(f"the localization network must return a torch.Tensor; got {type(value).__name__}")
    expected = (x.shape[0], features)
    if features is not None and value.shape != expected:
        fail(f"the localization network must return (N, features) = {expected}; got {tuple(value.shape)}")
    if value.ndim == 0 or value.shape[0] != x.shape[0]:
        wanted = f"theta for N = {x.shape[0]} samples, the batch size of x"
        fail(f"the localization network must return {wanted}; got {tuple(value.shape)}")


def given_theta(value: Tensor, num_params: int, looks: int, lattice: Sequence[int] | None) -> None:
    """Check the output of a localization network that returns theta itself."""
    floating("theta", value)
    shapes = [(looks * num_params,), (looks, num_params)]
    shapes += [] if lattice is None else [(looks * len(lattice), *lattice)]
    if tuple(value.shape[1:]) not in shapes:
        known = " or ".join(f"(N, {', '.join(map(str, shape))})" for shape in shapes if looks > 1 or len(shape) != 2)
        fail(f"the localization network must return theta, {known}; got {tuple(value.shape)}")


def condition(values: Sequence[object]) -> None:
    """Check further inputs of a localization network; a bool was once the second argument of a layer."""
    if any(isinstance(value, bool) for value in values):
        fail("return_warp must be given by its name: layer(x, return_warp=True); got a bool as a further input")


def network_input(value: Any, localization: object, ndim: int) -> None:
    """Check the input of a localization network, and its channels and size if the network says which it reads."""
    tensor("x", value)
    count, takes = (getattr(localization, name, None) for name in ("in_channels", "takes"))
    if type(count) is not int:
        return
    sampled_image("x", value, ndim)
    if value.shape[1] != count:
        fail(f"x must have C = {count} channels, the number that the localization network reads; got {tuple(value.shape)}")
    if takes is not None and not takes(value.shape[2:]):
        size = tuple(getattr(localization, "in_size", ()))
        fail(f"x must have the size {size}, for which the localization network was made; got {tuple(value.shape)}")


def sampled_image(name: str, value: Tensor, ndim: int) -> None:
    """Check the images of a layer (N, C, *size), floating point."""
    tensor(name, value)
    axes = f"(N, C, {AXES[ndim]})"
    if value.ndim == ndim + 1:
        fail(
            f"{name} must be {axes}; got {tuple(value.shape)}, which lacks the batch: pass {name}.unsqueeze(0) for one image"
        )
    if value.ndim != ndim + 2:
        fail(f"{name} must be {axes}; got {tuple(value.shape)}")
    if not value.is_floating_point():
        raise TypeError(
            f"{name} must have a floating-point dtype for a layer; got {value.dtype}: pass {name}.float() / 255 for bytes"
        )


def regular(name: str, value: Tensor) -> None:
    """Check flags per sample (N,) or (N, K). This reads values, so it must not run in a training step."""
    if not value.all():
        fail(f"{name} must not be singular; it is singular at sample {samples(~value)} of {tuple(value.shape)}")


def start(name: str, value: object, ndim: int, looks: int) -> None:
    """Check one matrix for all samples, or one per look."""
    floating(name, value)
    assert isinstance(value, Tensor)
    constant(name, value)
    one = (ndim, ndim + 1)
    if value.shape not in (one, (looks, *one)):
        each = f", or one for each look {(looks, *one)}" if looks > 1 else ""
        fail(f"{name} must be an affine matrix {one}{each}; got {tuple(value.shape)}")


def constant(name: str, value: Tensor) -> None:
    """Check a tensor that is a setting: it has numbers, and it is not learned."""
    if value.is_meta:
        fail(f"{name} must have numbers; got a tensor of the meta device: make it with device='cpu'")
    if value.requires_grad:
        fail(f"{name} must be constant, because it is not learned; got one that requires a gradient: pass {name}.detach()")


def pixel_matrix(name: str, value: Tensor) -> None:
    floating(name, value)
    if value.ndim not in (2, 3, 4) or value.shape[-1] not in (2, 3, 4) or value.shape[-1] - value.shape[-2] not in (0, 1):
        fail(f"{name} must be (N, d, d+1) or (N, d+1, d+1), or with K looks; got {tuple(value.shape)}")


def field(name: str, value: Tensor) -> None:
    """Check displacements (N, *shape, d), or (N, K, *shape, d)."""
    floating(name, value)
    d = value.shape[-1] if value.ndim else 0
    if d not in (1, 2, 3) or value.ndim - d not in (2, 3):
        fail(f"{name} must be (N, L, 1), (N, H, W, 2) or (N, D, H, W, 3), or with K looks; got {tuple(value.shape)}")
