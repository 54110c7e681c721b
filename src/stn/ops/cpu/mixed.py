"""Mixed blocks as vectors: each pixel with the taps and weights that `taps.store_mixed` found for it.

A weight may be 0 for a pixel outside, whatever is stored there, and NaN times 0 is NaN. So the plain sum is made first;
lanes of it that are NaN, which few ever are, are those of a sum without the taps of no weight.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from stn.ops.cpu.lanes import INT32, INT64, LANES, Code, Lanes

REST = 6  # the row of the fill value's weights: those of two taps on each of three axes come before
Sides = list[list[Any]]  # for each axis x, y, z what belongs to its lower tap, and what to its upper


# ---- formulas ----


def contract(values: Sequence[Lanes], weights: Sides) -> Lanes:
    """The sum of the taps' values by their weights. Taps count x fastest."""
    for low, high in weights:
        values = [low * values[k] + high * values[k + 1] for k in range(0, len(values), 2)]
    return values[0]


def contract_known(values: Sequence[Lanes], weights: Sides) -> Lanes:
    """The same without the taps of no weight."""
    products = weights[0]
    for low, high in weights[1:]:
        products = [w * side for side in (low, high) for w in products]
    terms = [(weight * value).unless(weight, 0, weight) for weight, value in zip(products, values, strict=True)]
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


def unless_nan(value: Lanes, again: Callable[[], Lanes]) -> Lanes:
    """`again` in the lanes that are NaN, computed if there is one."""
    builder = value.builder
    wrong = builder.fcmp_unordered("uno", value.value, value.value)
    lanes = builder.bitcast(wrong, ir.IntType(LANES))
    before = builder.basic_block
    with builder.if_then(builder.icmp_unsigned("!=", lanes, ir.IntType(LANES)(0)), likely=False):
        other = builder.select(wrong, again().value, value.value)
        after = builder.basic_block
    found = builder.phi(value.value.type)
    found.add_incoming(value.value, before)
    found.add_incoming(other, after)
    return Lanes(builder, found)


def replaced(weights: Sides, slopes: Sides, axis: int) -> Sides:
    return [slopes[i] if i == axis else sides for i, sides in enumerate(weights)]


# ---- where things lie in a tile ----


class Block:
    """The taps of a block's pixels, or of one pixel: arrays near, far, weight and slope from argument `k` on."""

    def __init__(self, code: Code, ndim: int, k: int, i: Any, area: Any, one_pixel: bool) -> None:
        self.code, self.ndim, self.k, self.i, self.area, self.one_pixel = code, ndim, k, i, area, one_pixel

    def at(self, row: int) -> Any:
        return self.code.builder.add(self.i, self.code.builder.mul(self.area, INT64(row)))

    def numbers(self, k: int, row: int) -> Lanes:
        if not self.one_pixel:
            return self.code.load(k, self.at(row))
        return self.code.broadcast(self.code.builder.load(self.code.pointer(k, self.at(row)), typ=self.code.real))

    def sides(self, k: int) -> Sides:
        return [[self.numbers(k, 2 * axis), self.numbers(k, 2 * axis + 1)] for axis in range(self.ndim)]

    def places(self) -> list[Any]:
        """The offsets of all taps, x fastest: a vector for each, or a number."""
        b, kind = self.code.builder, INT32 if self.one_pixel else self.code.vector(INT32)
        sums: list[Any] = []
        for axis in range(self.ndim):
            pointers = [self.code.pointer(self.k + side, self.at(axis), INT32) for side in (0, 1)]
            ends = [b.load(pointer, typ=kind, align=4) for pointer in pointers]
            sums = [b.add(s, end) for end in ends for s in sums] if sums else ends
        return sums

    def values(self, k: int, base: Any, paired: Any) -> list[Lanes]:
        """The numbers of argument k at all taps of a block: one load for both taps in x if they are `paired`, or each."""
        b, code, places = self.code.builder, self.code, self.places()
        kind = code.vector(code.real)
        found = [cgutils.alloca_once(b, kind) for _ in places]
        with b.if_else(b.trunc(paired, ir.IntType(1))) as (pairs, singles):
            with pairs:
                for t in range(0, len(places), 2):
                    ends = code.row_taps(k, base, code.lanes_of(places[t]))
                    for side in (0, 1):
                        b.store(ends[side].value, found[t + side])
            with singles:
                for place, into in zip(places, found, strict=True):
                    b.store(code.gathered(k, base, code.lanes_of(place)), into)
        return [Lanes(b, b.load(into)) for into in found]


def mixed(values: list[Lanes], weights: Sides, rest: Lanes, fill: Lanes) -> Lanes:
    value = contract(values, weights) + rest * fill
    return unless_nan(value, lambda: contract_known(values, weights) + (rest * fill).unless(rest, 0, rest))


def sloped(values: list[Lanes], weights: Sides, slopes: Sides, fill: Lanes, axis: int) -> Lanes:
    factors, above = replaced(weights, slopes, axis), [value - fill for value in values]
    return unless_nan(contract(above, factors), lambda: contract_known(above, factors))


# ---- intrinsics: taps of LANES pixels along one axis ----


@intrinsic
def place_hats(
    typing, points, j, columns, axis, zeros, n, pitch, low, high, near, far, weight, i, area, slope, derivative
):  # fmt: skip
    """Both taps of pixels i .. along an axis, where there are zeros around the image, or its border is continued.

    They are neighbors within the image, of at least two pixels: the weight of each falls from 1 to 0 at a distance of 1.
    Row 3 of the points is multiplied by their sum. Taps outside low .. high, see `fill_tile`, have no weight. Any number
    is a place within the image, so lanes beyond the row need no care.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        b, code = builder, Code(context, builder, signature, arguments)
        _, j, columns, axis, zeros, n, pitch, low, high, _, _, _, i, area, _, derivative = arguments
        zeros, first = b.trunc(zeros, ir.IntType(1)), b.icmp_signed("==", axis, INT64(0))
        nothing, one, two = (ir.Constant(code.vector(ir.DoubleType()), [x] * LANES) for x in (0.0, 1.0, 2.0))
        minus = ir.Constant(nothing.type, [-1.0] * LANES)

        def all_of(number: Any) -> Any:
            return code.broadcast(number).value

        def least(x: Any, bound: Any) -> Any:  # NaN stays
            return b.select(b.fcmp_ordered(">", x, bound), bound, x)

        def most(x: Any, bound: Any) -> Any:
            return b.select(b.fcmp_ordered("<", x, bound), bound, x)

        def within(x: Any, start: Any, end: Any) -> Any:
            return b.and_(b.fcmp_ordered(">=", x, start), b.fcmp_ordered("<", x, end))

        def narrow(x: Any) -> Any:
            return x if isinstance(code.kind(11), ir.DoubleType) else b.fptrunc(x, code.vector(code.kind(11)))

        x = code.load(0, b.add(j, b.mul(columns, axis))).value
        floor = code.each("floor", x)
        floor = b.select(b.fcmp_ordered(">=", floor, nothing), floor, nothing)
        place = least(floor, all_of(b.fsub(n, ir.Constant(ir.DoubleType(), 2.0))))
        beside, distance = b.fadd(place, one), b.fsub(x, place)
        t = b.select(zeros, distance, least(most(distance, nothing), one))
        weights = [most(b.fsub(one, code.each("fabs", b.fsub(t, shift))), nothing) for shift in (nothing, one)]
        start, end = all_of(low), all_of(high)
        weights = [b.select(within(k, start, end), w, nothing) for k, w in zip((place, beside), weights, strict=True)]
        step, (lower, upper) = all_of(pitch), (b.add(i, b.mul(area, b.mul(axis, INT64(k)))) for k in (1, 2))
        for k, at in ((9, place), (10, beside)):
            code.put(b.fptoui(b.fmul(at, step), code.vector(INT32)), k, lower)
        for side, w in enumerate(weights):
            code.put(narrow(w), 11, b.add(upper, b.mul(area, INT64(side))))
        total, row = b.fadd(*weights), b.add(j, b.mul(columns, INT64(3)))
        code.put(b.select(first, total, b.fmul(total, code.load(0, row).value)), 0, row)
        with b.if_then(b.trunc(derivative, ir.IntType(1))):
            unknown = b.fcmp_unordered("uno", distance, distance)
            middle = b.select(within(distance, nothing, one), one, nothing)
            before = b.select(zeros, b.select(within(distance, minus, nothing), one, nothing), nothing)
            behind = b.select(zeros, b.select(within(distance, one, two), one, nothing), nothing)
            for side, slope in enumerate((b.fsub(before, middle), b.fsub(middle, behind))):
                code.put(narrow(b.select(unknown, distance, slope)), 14, b.add(upper, b.mul(area, INT64(side))))
        return context.get_dummy_value()

    given = points, j, columns, axis, zeros, n, pitch, low, high, near, far, weight, i, area, slope, derivative
    return types.void(*given), generate


# ---- intrinsics: LANES pixels of a plane, from pixel i of a tile on, `count` of them real ----


def mix_lanes(ndim: int) -> Any:
    """out[to + k] = the sum of the taps of pixel i + k in the image from `at` on, and of the fill value."""

    @intrinsic
    def mix(typing, image, at, paired, near, far, weight, i, area, out, to, count, fill):
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            code = Code(context, builder, signature, arguments)
            _, at, paired, _, _, _, i, area, _, to, count, fill = arguments
            block = Block(code, ndim, 3, i, area, False)
            values, weights = block.values(0, at, paired), block.sides(5)
            value = mixed(values, weights, block.numbers(5, REST), code.broadcast(fill))
            code.masked_store(value, 8, to, code.mask(count))
            return context.get_dummy_value()

        return types.void(image, at, paired, near, far, weight, i, area, out, to, count, fill), generate

    return mix


def mix_slope_lanes(ndim: int) -> Any:
    """Add grad[first + k] times the derivatives of the same to gradient[i + k], axis by axis."""

    @intrinsic
    def mix(typing, image, at, paired, near, far, weight, slope, i, area, grad, first, count, gradient, fill):
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            code = Code(context, builder, signature, arguments)
            _, at, paired, _, _, _, _, i, area, _, first, count, _, fill = arguments
            block, mask = Block(code, ndim, 3, i, area, False), code.mask(count)
            g, values = code.masked_load(9, first, mask), block.values(0, at, paired)
            weights, slopes = block.sides(5), block.sides(6)
            for axis in range(ndim):
                place = block.at(axis)
                found = code.load(12, place) + g * sloped(values, weights, slopes, code.broadcast(fill), axis)
                code.masked_store(found, 12, place, mask)
            return context.get_dummy_value()

        given = image, at, paired, near, far, weight, slope, i, area, grad, first, count, gradient, fill
        return types.void(*given), generate

    return mix


mix_plane, mix_volume = mix_lanes(2), mix_lanes(3)
mix_slopes_plane, mix_slopes_volume = mix_slope_lanes(2), mix_slope_lanes(3)


# ---- intrinsics over the n channels of one pixel, which lie side by side ----


def channels_of(code: Code, k: int, starts: Sequence[Any], c: Any, mask: Any) -> list[Lanes]:
    return [code.masked_load(k, code.builder.add(start, c), mask) for start in starts]


def starts_of(code: Code, block: Block, base: Any, n: Any) -> list[Any]:
    b = code.builder
    return [b.add(base, b.mul(b.zext(place, INT64), n)) for place in block.places()]


def mix_channel_lanes(ndim: int) -> Any:
    """out[to + c] = the sum of the taps of pixel i in channel c of the image from `base` on, and of the fill values."""

    @intrinsic
    def mix(typing, image, base, n, near, far, weight, i, area, out, to, fill):
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            code = Code(context, builder, signature, arguments)
            _, base, n, _, _, _, i, area, _, to, _ = arguments
            block = Block(code, ndim, 3, i, area, True)
            starts, weights, rest = starts_of(code, block, base, n), block.sides(5), block.numbers(5, REST)
            with cgutils.for_range_slice(builder, INT64(0), n, INT64(LANES), INT64) as (c, _):
                mask = code.mask(builder.sub(n, c))
                values = channels_of(code, 0, starts, c, mask)
                value = mixed(values, weights, rest, code.masked_load(10, c, mask))
                code.masked_store(value, 8, builder.add(to, c), mask)
            return context.get_dummy_value()

        return types.void(image, base, n, near, far, weight, i, area, out, to, fill), generate

    return mix


def mixed_channel_slope_lanes(ndim: int) -> Any:
    """The sum over the channels of grad[to + c] times the derivatives of the same, in x, y, z."""

    @intrinsic
    def slopes_of(typing, image, base, n, near, far, weight, slope, i, area, grad, to, fill):
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            code = Code(context, builder, signature, arguments)
            _, base, n, _, _, _, _, i, area, _, to, _ = arguments
            block = Block(code, ndim, 3, i, area, True)
            starts, weights, slopes = starts_of(code, block, base, n), block.sides(5), block.sides(6)
            sums = [cgutils.alloca_once_value(builder, ir.Constant(code.one.value.type, [0.0] * LANES)) for _ in range(3)]
            with cgutils.for_range_slice(builder, INT64(0), n, INT64(LANES), INT64) as (c, _):
                mask = code.mask(builder.sub(n, c))
                values, fills = channels_of(code, 0, starts, c, mask), code.masked_load(11, c, mask)
                g = code.masked_load(9, builder.add(to, c), mask)
                for axis in range(ndim):
                    found = Lanes(builder, builder.load(sums[axis])) + g * sloped(values, weights, slopes, fills, axis)
                    builder.store(found.value, sums[axis])
            totals = [code.total(Lanes(builder, builder.load(total))) for total in sums]
            return context.make_tuple(builder, signature.return_type, totals)

        real = types.UniTuple(image.dtype, 3)
        return real(image, base, n, near, far, weight, slope, i, area, grad, to, fill), generate

    return slopes_of


mix_channels_plane, mix_channels_volume = mix_channel_lanes(2), mix_channel_lanes(3)
mixed_channel_slopes_plane, mixed_channel_slopes_volume = mixed_channel_slope_lanes(2), mixed_channel_slope_lanes(3)
