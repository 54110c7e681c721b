"""From tensors to kernels: compile-time constants, sizes and strides. This code never waits for the device."""

from __future__ import annotations

import math
import struct
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from stn.grid import Axes
from stn.ops.gpu.backward import add_up, gradient_kernel
from stn.ops.gpu.coordinates import AFFINE, BASIS, FIELD, PROJECTIVE, How
from stn.ops.gpu.forward import sample_kernel
from stn.ops.gpu.ordered import OrderedTaps, list_kernel
from stn.ops.gpu.programs import Division, divide, in_xyz, power_of_two, run
from stn.ops.layout import is_channels_last, order_of, plain
from stn.ops.rules import Field, Matrix, Rule, Spline
from stn.ops.sampling import Sampling

PARTS = 1024  # sums that are added at a time
MOST = 2**31  # a smaller extent has offsets of signed 32-bit integers


class Call:
    """One call of an operator, with its tensors in the form that the kernels take."""

    def __init__(
        self,
        rule: Rule,
        image: Tensor,  # (N, C, *in)
        data: Tensor,  # (N, K, ..)
        fill: Tensor,  # () or (C,)
        sampling: Sampling,
    ) -> None:
        self.image, self.data, self.fill = plain(image), plain(data), plain(fill)
        self.ndim, self.looks, self.channels = image.ndim - 2, data.shape[1], image.shape[1]
        self.last, self.is_field, self.knots, self.count = is_channels_last(image), isinstance(rule, Field), self.data, 0
        self.size = rule.out_size(data)
        if isinstance(rule, Spline):
            self.knots, self.count = plain(rule.control_points).to(image.device, torch.float64), len(rule.control_points)
            self.knots = self.knots.contiguous()
        interpolation, padding, align_corners = sampling[:3]
        sharpness = interpolation.cubic.outer_3 if interpolation.cubic else 0.0  # Keys's a
        places = isinstance(rule, Field) and rule.in_pixels, isinstance(rule, Field) and rule.relative
        dense = math.prod(self.size) * max(self.channels if self.last else 1, self.ndim)  # of results
        extents = dense, extent(self.image, 2), extent(self.data, 2)
        self.how = How(
            number_of(rule, data), self.ndim, len(interpolation.offsets), sharpness, padding.code, align_corners, *places,
            wide=max(extents) >= MOST,
        )  # fmt: skip
        self.scale = scale(rule.axes(data, image.shape[2:], align_corners))

    @property
    def batch(self) -> int:
        return self.image.shape[0] * self.looks

    def sample(self) -> Tensor:
        order = tuple(order_of(self.ndim, 2, self.last))
        shape = (self.image.shape[0], self.looks, self.channels, *self.size)
        out = torch.empty_permuted(shape, order, dtype=self.image.dtype, device=self.image.device)
        if out.numel() > 0:
            division = self.division()
            image, result = strides(self.image, 2, self.ndim), strides(out, 3, self.ndim)
            self.launch(sample_kernel, division, self.image, image, out, result, *self.rule(), *self.blank())
        return out

    def gradient(self, grad: Tensor, need_image: bool, need_data: bool) -> tuple[Tensor | None, Tensor | None]:
        """Return the requested gradients in the image and in the data. grad: (N, K, C, *size)."""
        grad = plain(grad)
        self.how = self.how._replace(wide=self.how.wide or extent(grad, 3) >= MOST)
        grad_image = self.new_image() if need_image else None
        grad_data = torch.zeros_like(self.data, memory_format=torch.contiguous_format) if need_data else None
        if grad.numel() > 0:
            scattered, moved = grad_image, None if self.how.taps == 1 else grad_data
            if scattered is not None and torch.are_deterministic_algorithms_enabled():
                self.add_in_order(grad, scattered)
                scattered = None
            if scattered is not None or moved is not None:
                self.add_gradients(grad, scattered, moved)
        return None if grad_image is None else grad_image.to(self.image.dtype), grad_data

    def new_image(self) -> Tensor:
        """Return zeros in the layout of the image, and in the precision of its sums."""
        order = tuple(order_of(self.ndim, 1, self.last))
        dtype = torch.promote_types(self.image.dtype, torch.float32)
        return torch.empty_permuted(self.image.shape, order, dtype=dtype, device=self.image.device).zero_()

    def add_gradients(self, grad: Tensor, grad_image: Tensor | None, grad_data: Tensor | None) -> None:
        """Add gradients to zeros: the image's by atomics, a coefficient's as the sum over programs."""
        division = self.division(gradient=True, whole=self.is_field and grad_data is not None)
        target = self.image if grad_image is None else grad_image
        numbers, parts, sums = 0, 0, self.data if grad_data is None else grad_data
        if grad_data is not None and not self.is_field:
            numbers, parts = math.prod(self.data.shape[2:]), division.programs // self.batch
            sums = torch.empty((self.batch, numbers, parts), dtype=torch.float64, device=grad.device)
        tensors = grad, strides(grad, 3, self.ndim), self.image, strides(self.image, 2, self.ndim)
        rule = *self.rule(), *self.blank()
        results = target, strides(target, 2, self.ndim), sums, self.data_strides(sums), numbers
        needs = {"NEED_IMAGE": grad_image is not None, "NEED_DATA": grad_data is not None}
        alike = target.stride()[2:] == self.image.stride()[2:]
        self.launch(gradient_kernel, division, *tensors, *rule, *results, **needs, ALIKE=alike)
        if numbers:
            run(add_up, grad.device, self.batch * numbers, sums, grad_data, parts, PARTS=min(PARTS, power_of_two(parts)))

    def add_in_order(self, grad: Tensor, grad_image: Tensor) -> None:
        """Add the image's gradient to zeros, tap by tap; for each pixel in the order of the output."""
        grad = grad.flatten(0, 1).flatten(2).contiguous()  # (N * K, C, Q)
        taps, division = OrderedTaps(grad, grad_image), self.division(whole=True)
        for number in range(self.how.taps**self.ndim):
            self.launch(list_kernel, division, *self.rule(), taps.target, taps.weight, taps.none, number)
            taps.add(grad, grad_image)

    def rule(self) -> tuple[Any, ...]:
        return self.data, self.data_strides(self.data), self.knots, self.scale

    def blank(self) -> tuple[Any, ...]:
        return self.fill, self.fill.stride(0) if self.fill.ndim else 0

    def data_strides(self, data: Tensor) -> tuple[int, ...]:
        return strides(data, 2, self.ndim if self.is_field else 3)

    def division(self, *, gradient: bool = False, whole: bool = False) -> Division:
        halvings = (gradient and not self.last) + (self.how.taps**self.ndim > 4)
        return divide(
            self.size, self.image.shape[0], self.looks, self.channels, last=self.last, whole=whole, halvings=halvings
        )

    def launch(self, kernel: Any, division: Division, *arguments: Any, **constants: Any) -> None:
        lengths = *in_xyz(self.image.shape[2:]), *in_xyz(self.size)
        numbers = self.looks, self.channels, division.channels, *lengths, self.count, division.dividers
        constants |= {"HOW": self.how, "BLOCK": division.block}
        run(kernel, self.image.device, division.programs, *arguments, *numbers, **constants)


def strides(tensor: Tensor, first: int, ndim: int) -> tuple[int, ...]:
    """Return the strides. Those of planes get a 0 for the depth before axis `first`, the first length."""
    found = tensor.stride()
    return (*found[:first], 0, *found[first:]) if ndim == 2 else found


def extent(tensor: Tensor, first: int) -> int:
    """Return the number of elements that axis `first` and later axes span in memory."""
    steps = zip(tensor.shape[first:], tensor.stride()[first:], strict=True)
    return 1 + sum((n - 1) * step for n, step in steps)


def number_of(rule: Rule, data: Tensor) -> int:
    """Return the number of the rule in the kernels."""
    match rule:
        case Field():
            number = FIELD
        case Spline():
            number = BASIS
        case Matrix():
            number = AFFINE if rule.is_affine(data) else PROJECTIVE
        case _:
            raise AssertionError(f"no kernel for {rule}")
    return int(number.value)


@lru_cache(maxsize=256)
def scale(axes: Axes) -> tuple[Any, ...]:
    """Return factors of a (d+1, d+1) matrix between pixels: h_i / g_j and h_i; in the last row 1 / g_j and 1. As bits."""
    return tuple(tuple(bits(over / under) for under in (*axes.unit, 1.0)) for over in (*axes.half, 1.0))


def bits(number: float) -> int:
    """Return the 64 bits of a float64; see `coordinates.joined`."""
    found: int = struct.unpack("q", struct.pack("d", number))[0]
    return found
