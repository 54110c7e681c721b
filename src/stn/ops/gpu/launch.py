"""From tensors to kernels: compile-time constants, sizes and strides. This code never waits for the device."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from stn.grid import Axes, half_extent
from stn.ops.gpu.backward import add_up, gradient_kernel
from stn.ops.gpu.coordinates import AFFINE, BASIS, FIELD, LATTICE, PROJECTIVE, Block, How
from stn.ops.gpu.forward import sample_kernel
from stn.ops.gpu.lattices import add_rows
from stn.ops.gpu.ordered import OrderedTaps, list_kernel
from stn.ops.gpu.programs import Division, Holder, divide, in_xyz, power_of_two, run
from stn.ops.layout import is_channels_last, order_of, plain
from stn.ops.rules import Field, Lattice, Matrix, Rule, Spline
from stn.ops.sampling import Sampling

PARTS, ROWS = 1024, 256  # sums of programs, and sums of rows, that a program adds at a time; estimated
MOST = 2**31 - 2**10  # a smaller extent, and a block of channels beyond it, has offsets of signed 32-bit integers
KEPT = 512  # plans
MATRIX_LIKE = 3  # strides of data that is no field and no lattice: of a row, of a column, and none


class Sums(NamedTuple):
    """The sums of the programs of a gradient in the data, in float64, and the launch that adds them."""

    shape: tuple[int, ...]  # one look each
    kernel: Any
    programs: int
    arguments: tuple[Any, ...]  # after the sums and the gradient
    constants: dict[str, Any]
    held: Holder


class Launch(NamedTuple):
    """All of a launch that equal calls share. Tensors come between `strides` (see `Plan.sample`)."""

    programs: int
    strides: tuple[tuple[int, ...], ...]
    numbers: tuple[Any, ...]  # the last arguments
    constants: dict[str, Any]
    held: Holder
    sums: Sums | None = None


class Plan:
    """The form in which the kernels take calls of these shapes, strides, dtypes and options."""

    def __init__(self, rule: Rule, image: Tensor, data: Tensor, fill: Tensor, sampling: Sampling) -> None:
        self.n, self.channels, self.looks, self.ndim = *image.shape[:2], data.shape[1], image.ndim - 2
        self.dtype, self.in_size, self.size = image.dtype, image.shape[2:], rule.out_size(data)
        self.last, self.is_field, self.data_shape = is_channels_last(image), isinstance(rule, Field), data.shape
        self.is_lattice = isinstance(rule, Lattice)
        self.count = len(rule.control_points) if isinstance(rule, Spline) else 0
        self.image_strides, self.data_strides = strides(image, 2, self.ndim), self.strides_of(data)
        self.fill_stride = fill.stride(0) if fill.ndim else 0
        interpolation, padding, align_corners = sampling[:3]
        sharpness = interpolation.cubic.outer_3 if interpolation.cubic else 0.0  # Keys's a
        places = isinstance(rule, Field) and rule.in_pixels, isinstance(rule, Field) and rule.relative
        dense = math.prod(self.size) * max(self.channels if self.last else 1, self.ndim)  # of results
        extents = dense, extent(image, 2), extent(data, 2)
        self.how = How(
            number_of(rule, data), self.ndim, len(interpolation.offsets), sharpness, padding.code, align_corners, *places,
            reach=(rule.degree + 1) // 2 if isinstance(rule, Lattice) else 0, wide=max(extents) >= MOST,
        )  # fmt: skip
        axes = rule.axes(data, image.shape[2:], align_corners)
        self.steps = steps_of(rule, axes, data.shape) if isinstance(rule, Lattice) else ()
        self.scale = scale(axes) + lattice_bits(self.steps, data.shape)
        self.out_shape = (self.n, self.looks, self.channels, *self.size)
        self.out_order, self.image_order = (tuple(order_of(self.ndim, lead, self.last)) for lead in (2, 1))
        self.real = torch.promote_types(image.dtype, torch.float32)  # the precision of sums
        out = torch.empty_permuted(self.out_shape, self.out_order, device="meta")
        self.empty = out.numel() == 0
        self.forward = None if self.empty else self.prepared(self.division(), (strides(out, 3, self.ndim),))
        self.backward: dict[Any, Launch] = {}

    def strides_of(self, data: Tensor) -> tuple[int, ...]:
        return strides(data, 2, self.ndim if self.is_field or self.is_lattice else MATRIX_LIKE)

    def division(self, *, gradient: bool = False, whole: bool = False, tiled: bool = False) -> Division:
        halvings = (gradient and not self.last) + (self.how.taps**self.ndim > 4)
        return divide(
            self.size, self.n, self.looks, self.channels, last=self.last, whole=whole, tiled=tiled, halvings=halvings
        )

    def count_for(self, block: Block) -> int:
        """Return the number of control points: of a lattice, of a window, the most that a row of a tile reaches."""
        if not self.is_lattice:
            return self.count
        return min(self.data_shape[-2], int((block.across - 1) * self.steps[0]) + 1 + 2 * self.how.reach)

    def sums_for(self, division: Division) -> Sums:
        looks, numbers = self.n * self.looks, math.prod(self.data_shape[2:])
        if self.is_lattice:
            across, (x, y, z), window = division.block.across, in_xyz(self.size), self.count_for(division.block)
            shape = looks, self.ndim, -(-x // across), window, z, y
            rows = min(power_of_two(rows_of_point(self.steps, self.size, across, self.how.reach)), ROWS)
            constants = {"POINTS": ROWS // rows, "PARTS": rows, "ACROSS": across, "HOW": self.how}
            points = looks * numbers // self.ndim
            arguments, programs = (self.scale, x, y, z, window, points), -(-points * rows // ROWS)
            return Sums(shape, add_rows, programs, arguments, constants, Holder())
        parts = division.programs // looks
        constants = {"PARTS": min(PARTS, power_of_two(parts))}
        return Sums((looks, numbers, parts), add_up, looks * numbers, (parts,), constants, Holder())

    def prepared(
        self, division: Division, steps: tuple[tuple[int, ...], ...], how: How | None = None, **more: Any
    ) -> Launch:
        lengths = *in_xyz(self.in_size), *in_xyz(self.size)
        count = self.count_for(division.block)
        numbers = self.looks, self.channels, division.channels, *lengths, count, division.dividers
        return Launch(division.programs, steps, numbers, {**more, "HOW": how or self.how, "BLOCK": division.block}, Holder())

    def gradients(self, grad: Tensor, need_image: bool, need_data: bool) -> Launch:
        """Return the launch for a gradient of these strides."""
        key = grad.stride(), need_image, need_data
        found = self.backward.get(key)
        if found is None:
            whole = (self.is_field or self.is_lattice) and need_data
            division = self.division(gradient=True, whole=whole, tiled=self.is_lattice and need_data)
            target = torch.empty_permuted(
                self.out_shape[:1] + self.out_shape[2:3] + self.in_size, self.image_order, device="meta"
            )
            steps = strides(target, 2, self.ndim) if need_image else self.image_strides
            constants = {"NEED_IMAGE": need_image, "NEED_DATA": need_data, "ALIKE": steps[2:] == self.image_strides[2:]}
            how = self.how._replace(wide=self.how.wide or extent(grad, 3) >= MOST)
            found = self.prepared(division, (strides(grad, 3, self.ndim), steps), how, **constants)
            if need_data and not self.is_field:
                found = found._replace(sums=self.sums_for(division))
            if len(self.backward) >= KEPT:
                self.backward.clear()
            self.backward[key] = found
        return found


_plans: dict[Any, Plan] = {}


def plan_of(rule: Rule, image: Tensor, data: Tensor, fill: Tensor, sampling: Sampling) -> Plan:
    """Return the plan of such a call."""
    own = (rule.size, len(rule.control_points)) if isinstance(rule, Spline) else rule.arguments
    key = (
        type(rule), own, image.shape, image.stride(), image.dtype, data.shape, data.stride(), data.dtype, fill.stride(),
        sampling[0].name, sampling[1].code, sampling[2],
    )  # fmt: skip
    found = _plans.get(key)
    if found is None:
        found = Plan(rule, image, data, fill, sampling)
        if len(_plans) >= KEPT:
            _plans.clear()
        _plans[key] = found
    return found


class Call:
    """One call of an operator: its plan and its tensors."""

    def __init__(
        self,
        rule: Rule,
        image: Tensor,  # (N, C, *in)
        data: Tensor,  # (N, K, ..)
        fill: Tensor,  # () or (C,)
        sampling: Sampling,
    ) -> None:
        self.image, self.data, self.fill = settled(image), settled(data), settled(fill)
        self.plan = plan_of(rule, self.image, self.data, self.fill, sampling)
        self.knots = knots(rule, image) if isinstance(rule, Spline) else self.data

    def rule(self) -> tuple[Any, ...]:
        return self.data, self.plan.data_strides, self.knots, self.plan.scale

    def sample(self) -> Tensor:
        plan, image = self.plan, self.image
        out = torch.empty_permuted(plan.out_shape, plan.out_order, dtype=plan.dtype, device=image.device)
        if plan.forward is not None:
            programs, steps, numbers, constants, held, *_ = plan.forward
            arguments = image, plan.image_strides, out, *steps, *self.rule(), self.fill, plan.fill_stride
            tensors = image, out, self.data, self.knots, self.fill
            held.run(run, sample_kernel, tensors, programs, *arguments, *numbers, **constants)
        return out

    def gradient(self, grad: Tensor, need_image: bool, need_data: bool) -> tuple[Tensor | None, Tensor | None]:
        """Return the requested gradients in the image and in the data. grad: (N, K, C, *size)."""
        grad, plan, moves = settled(grad), self.plan, need_data and self.plan.how.taps > 1
        grad_image, grad_data = self.new_image() if need_image else None, self.new_data(moves) if need_data else None
        scatters = need_image
        if grad_image is not None and not plan.empty and torch.are_deterministic_algorithms_enabled():
            self.add_in_order(grad, grad_image)
            scatters = False
        if (scatters or moves) and not plan.empty:
            self.add_gradients(grad, grad_image if scatters else None, grad_data if moves else None)
        if grad_image is not None and grad_image.dtype != plan.dtype:
            grad_image = grad_image.to(plan.dtype)
        return grad_image, grad_data

    def new_image(self) -> Tensor:
        """Return zeros in the layout of the image, and in the precision of its sums."""
        plan, image = self.plan, self.image
        return torch.empty_permuted(image.shape, plan.image_order, dtype=plan.real, device=image.device).zero_()

    def new_data(self, filled: bool) -> Tensor:
        """Return memory that the kernels fill, or zeros."""
        make = torch.empty_like if filled and not self.plan.empty else torch.zeros_like
        return make(self.data, memory_format=torch.contiguous_format)

    def add_gradients(self, grad: Tensor, grad_image: Tensor | None, grad_data: Tensor | None) -> None:
        """Add gradients to zeros: the image's by atomics, a coefficient's or a control point's as the sum over programs."""
        plan = self.plan
        found = plan.gradients(grad, grad_image is not None, grad_data is not None)
        (step, steps), added = found.strides, found.sums
        sums = self.data if grad_data is None else grad_data
        if added is not None:
            sums = torch.empty(added.shape, dtype=torch.float64, device=grad.device)
        before = grad, step, self.image, plan.image_strides, *self.rule(), self.fill, plan.fill_stride
        target = self.image if grad_image is None else grad_image
        of_sums = plan.strides_of(sums) if plan.is_field else plan.data_strides  # the latter is not read
        results = target, steps, sums, of_sums, 0 if added is None else added.shape[1]
        tensors = grad, self.image, self.data, self.knots, self.fill, target, sums
        arguments = *before, *results, *found.numbers
        found.held.run(run, gradient_kernel, tensors, found.programs, *arguments, **found.constants)
        if added is not None:
            arguments = sums, grad_data, *added.arguments
            added.held.run(run, added.kernel, (sums, grad_data), added.programs, *arguments, **added.constants)

    def add_in_order(self, grad: Tensor, grad_image: Tensor) -> None:
        """Add the image's gradient to zeros, tap by tap; for each pixel in the order of the output."""
        plan, grad = self.plan, grad.flatten(0, 1).flatten(2).contiguous()  # (N * K, C, Q)
        taps, found = OrderedTaps(grad, grad_image), plan.prepared(plan.division(whole=True), ())
        for number in range(plan.how.taps**plan.ndim):
            arguments = *self.rule(), taps.target, taps.weight, taps.none, number, *found.numbers
            run(list_kernel, grad.device, found.programs, *arguments, **found.constants)
            taps.add(grad, grad_image)


def settled(tensor: Tensor) -> Tensor:
    """Apply a pending negation: the memory of `x.conj().imag` holds the negative of its values."""
    return tensor.resolve_neg() if tensor.is_neg() else tensor


def knots(rule: Spline, image: Tensor) -> Tensor:
    return plain(rule.control_points).to(image.device, torch.float64).contiguous()


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
        case Lattice():
            number = LATTICE
        case Matrix():
            number = AFFINE if rule.is_affine(data) else PROJECTIVE
        case _:
            raise AssertionError(f"no kernel for {rule}")
    return int(number.value)


@lru_cache(maxsize=256)
def scale(axes: Axes) -> tuple[Any, ...]:
    """Return factors of a (d+1, d+1) matrix between pixels: h_i / g_j and h_i; in the last row 1 / g_j and 1. As bits."""
    return tuple(tuple(bits(over / under) for under in (*axes.unit, 1.0)) for over in (*axes.half, 1.0))


def steps_of(rule: Lattice, axes: Axes, shape: Sequence[int]) -> tuple[float, ...]:
    """Return the control points per pixel of the output, along x, y, ..; see `lattices.spot`. shape: (N, K, .., d)."""
    counts = reversed(shape[2:-1])
    half = [(n - 3) / 2 if rule.degree == 3 else half_extent(n, rule.align_corners) for n in counts]
    return tuple(h / (g * rule.extent) for h, g in zip(half, axes.unit, strict=True))


def lattice_bits(steps: Sequence[float], shape: Sequence[int]) -> tuple[Any, ...]:
    """Return two more rows of `scale`: the steps, and the numbers of control points."""
    return (tuple(map(bits, steps)), tuple(bits(n) for n in reversed(shape[2:-1]))) if steps else ()


def rows_of_point(steps: Sequence[float], size: Sequence[int], across: int, reach: int) -> int:
    """Return about how many rows of tiles a control point reaches."""
    x, *others = (min(n, 2 * reach / max(step, 1e-9)) for n, step in zip(reversed(size), steps, strict=True))
    return math.ceil(math.prod(others) * (1 + x / across))


def bits(number: float) -> int:
    """Return the bits of a float64 that is not negative, and a 1 in place of its sign; see `coordinates.joined`.

    Triton compiles a kernel for integers in tuples that are 1 or multiples of 16; these are odd.
    """
    found: int = struct.unpack("q", struct.pack("d", number))[0]
    return (2 * found + 1 + 2**63) % 2**64 - 2**63
