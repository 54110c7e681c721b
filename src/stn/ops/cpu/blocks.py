"""Where the pixels of a block lie, in vector code: whether inside the image, and their taps along an axis if not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from stn.ops.cpu.lanes import INT32, INT64, LANES, Code


def from_to(code: Code, x: Any, low: Any, high: Any) -> Any:
    """Return the lanes between low and high, both included. NaN is not between them."""
    b, ends = code.builder, [code.broadcast(end).value for end in (low, high)]
    return b.and_(b.fcmp_ordered(">=", x, ends[0]), b.fcmp_ordered("<=", x, ends[1]))


def narrowed(code: Code, value: Any, k: int) -> Any:
    """A vector in the precision of argument k."""
    real = code.vector(code.kind(k))
    return value if value.type == real else code.builder.fptrunc(value, real)


def place_lanes(ndim: int) -> Any:
    """Store offset and fractions, unless `nearest`, of points j .. of a row as those of pixel i .. of a tile; return the
    bits of those inside.

    points: rows of `columns` numbers. ends: for each axis between which numbers a point, or if `nearest` the whole number
    next to it, is inside. most: the last lower tap of each axis, whose points are `pitch` apart. Offsets from `count` on
    are 0, which a vector may read.
    """

    @intrinsic
    def place_pixels(typing, points, columns, j, nearest, ends, most, pitch, count, offset, fraction, i, area):
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            code = Code(context, builder, signature, arguments)
            _, columns, j, nearest, ends, most, pitch, count, _, _, i, area = arguments
            nearest, inside, places = builder.trunc(nearest, ir.IntType(1)), None, None
            for axis in range(ndim):
                p = code.load(0, builder.add(j, builder.mul(columns, INT64(axis)))).value
                whole = builder.select(nearest, code.each("rint", p), code.each("floor", p))
                q, last = builder.select(nearest, whole, p), builder.extract_value(most, axis)
                between = from_to(code, q, *(builder.extract_value(ends, 2 * axis + side) for side in (0, 1)))
                inside = between if inside is None else builder.and_(inside, between)
                last = code.broadcast(last).value
                whole = builder.select(builder.fcmp_ordered(">", whole, last), last, whole)
                with builder.if_then(builder.not_(nearest)):
                    place = builder.add(i, builder.mul(area, INT64(axis)))
                    code.put(narrowed(code, builder.fsub(p, whole), 9), 9, place)
                at = builder.fmul(whole, code.broadcast(builder.extract_value(pitch, axis)).value)
                places = at if places is None else builder.fadd(places, at)
            offsets, none = builder.fptoui(places, code.vector(INT32)), ir.Constant(code.vector(INT32), [0] * LANES)
            code.put(builder.select(code.mask(count), offsets, none), 8, i)
            return builder.zext(builder.bitcast(inside, ir.IntType(LANES)), INT64)

        given = points, columns, j, nearest, ends, most, pitch, count, offset, fraction, i, area
        return types.int64(*given), generate

    return place_pixels


place_plane, place_volume = place_lanes(2), place_lanes(3)


@intrinsic
def lanes_within(typing, points, at, low, high):
    """The bits of the LANES numbers that are from low to high. NaN is not."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        code = Code(context, builder, signature, arguments)
        _, at, low, high = arguments
        found = from_to(code, code.load(0, at).value, low, high)
        return builder.zext(builder.bitcast(found, ir.IntType(LANES)), INT64)

    return types.int64(points, at, low, high), generate


# ---- zeros around the image, or its border continued: taps along one axis ----


class Hats:
    """Two neighbors within the image, of at least two pixels: the weight of each falls from 1 to 0 at a distance of 1."""

    def __init__(self, code: Code, x: Any, n: Any, zeros: Any) -> None:
        self.code, self.builder, self.zeros = code, code.builder, zeros
        self.nothing, self.one, two = (self.all_of(ir.Constant(ir.DoubleType(), number)) for number in (0.0, 1.0, 2.0))
        b, floor = self.builder, code.each("floor", x)
        floor = b.select(b.fcmp_ordered(">=", floor, self.nothing), floor, self.nothing)  # any number, as NaN, is a place
        self.places = [self.least(floor, b.fsub(self.all_of(n), two))]
        self.places.append(b.fadd(self.places[0], self.one))
        self.distance = b.fsub(x, self.places[0])

    def all_of(self, number: Any) -> Any:
        return self.code.broadcast(number).value

    def least(self, x: Any, bound: Any) -> Any:
        """Return the smaller of both. NaN stays NaN."""
        return self.builder.select(self.builder.fcmp_ordered(">", x, bound), bound, x)

    def most(self, x: Any, bound: Any) -> Any:
        return self.builder.select(self.builder.fcmp_ordered("<", x, bound), bound, x)

    def within(self, x: Any, start: Any, end: Any) -> Any:
        return self.builder.and_(self.builder.fcmp_ordered(">=", x, start), self.builder.fcmp_ordered("<", x, end))

    def weights(self, t: Any) -> list[Any]:
        """Return both weights at distance t from the first: from 0 to 1 bit for bit those of an inner block."""
        b = self.builder
        zero, one, two = (self.code.broadcast(ir.Constant(t.type.element, number)).value for number in (0.0, 1.0, 2.0))
        lower = b.fsub(one, b.select(b.fcmp_ordered("<", t, zero), b.fsub(zero, t), t))
        upper = b.select(b.fcmp_ordered("<=", t, one), t, b.fsub(two, t))
        return [b.select(b.fcmp_ordered("<", weight, zero), zero, weight) for weight in (lower, upper)]  # NaN stays

    def seen(self) -> Any:
        """The distance, of which a border that is continued sees no more than its last pixel."""
        return self.builder.select(self.zeros, self.distance, self.least(self.most(self.distance, self.nothing), self.one))

    def within_band(self, weights: Sequence[Any], low: Any, high: Any) -> list[Any]:
        """0 of a tap outside low .. high."""
        b, ends = self.builder, (self.all_of(low), self.all_of(high))
        pairs = zip(self.places, weights, strict=True)
        return [b.select(self.within(place, *ends), weight, ir.Constant(weight.type, None)) for place, weight in pairs]

    def slopes(self) -> list[Any]:
        """Return the slopes of the weights. At a kink they are those to its right, as in all kernels."""
        b, t = self.builder, self.distance
        minus, two = b.fsub(self.nothing, self.one), b.fadd(self.one, self.one)
        before, middle, behind = (
            b.select(self.within(t, *ends), self.one, self.nothing)
            for ends in ((minus, self.nothing), (self.nothing, self.one), (self.one, two))
        )
        before, behind = (b.select(self.zeros, slope, self.nothing) for slope in (before, behind))
        unknown = b.fcmp_unordered("uno", t, t)
        return [b.select(unknown, t, slope) for slope in (b.fsub(before, middle), b.fsub(middle, behind))]


def put_sides(code: Code, values: Sequence[Any], k: int, at: Any, area: Any) -> None:
    """Store the lower and the upper tap's numbers in argument k, `area` apart."""
    for side, value in enumerate(values):
        code.put(narrowed(code, value, k), k, code.builder.add(at, code.builder.mul(area, INT64(side))))


@intrinsic
def place_hats(
    typing, points, j, columns, axis, zeros, n, pitch, low, high, near, far, weight, i, area, slope, derivative
):  # fmt: skip
    """Store both taps of pixels from i on along an axis, and multiply row 3 of the points by the sum of their weights."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        b, code = builder, Code(context, builder, signature, arguments)
        _, j, columns, axis, zeros, n, pitch, low, high, _, _, _, i, area, _, derivative = arguments
        x = code.load(0, b.add(j, b.mul(columns, axis))).value
        hats = Hats(code, x, n, b.trunc(zeros, ir.IntType(1)))
        t, row = hats.seen(), b.add(j, b.mul(columns, INT64(3)))
        weights = hats.within_band(hats.weights(narrowed(code, t, 11)), low, high)
        total = b.fadd(*hats.within_band(hats.weights(t), low, high))  # in float64: the fill value has what it leaves
        one_axis, two_axes = b.add(i, b.mul(area, axis)), b.add(i, b.mul(area, b.mul(axis, INT64(2))))
        for k, place in zip((9, 10), hats.places, strict=True):
            code.put(b.fptoui(b.fmul(place, hats.all_of(pitch)), code.vector(INT32)), k, one_axis)
        put_sides(code, weights, 11, two_axes, area)
        first = b.icmp_signed("==", axis, INT64(0))
        code.put(b.select(first, total, b.fmul(total, code.load(0, row).value)), 0, row)
        with b.if_then(b.trunc(derivative, ir.IntType(1))):
            put_sides(code, hats.slopes(), 14, two_axes, area)
        return context.get_dummy_value()

    given = points, j, columns, axis, zeros, n, pitch, low, high, near, far, weight, i, area, slope, derivative
    return types.void(*given), generate


def nearest_lanes(ndim: int) -> Any:
    """The place and the weight of the only tap of pixels i ..: 1, or 0 outside zeros around the image or the band
    low .. high - 1 of the slowest axis, or NaN."""

    @intrinsic
    def place_nearest(typing, points, j, columns, zeros, lengths, pitch, low, high, near, weight, i):
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            b, code = builder, Code(context, builder, signature, arguments)
            _, j, columns, zeros, lengths, pitch, low, high, _, _, i = arguments
            zero, one = (code.broadcast(ir.Constant(ir.DoubleType(), number)).value for number in (0.0, 1.0))
            around, places, value = b.trunc(zeros, ir.IntType(1)), None, one
            for axis in range(ndim):
                x = code.load(0, b.add(j, b.mul(columns, INT64(axis)))).value
                whole, last = code.each("rint", x), code.broadcast(b.extract_value(lengths, axis)).value
                last = b.fsub(last, one)
                place = b.select(b.fcmp_ordered(">=", whole, zero), whole, zero)  # any number, as NaN, is a place
                place = b.select(b.fcmp_ordered(">", place, last), last, place)
                outside = b.and_(b.fcmp_ordered("!=", place, whole), code.broadcast(around).value)
                if axis == ndim - 1:
                    within = from_to(code, place, low, b.fsub(high, ir.Constant(ir.DoubleType(), 1.0)))
                    outside = b.or_(outside, b.not_(within))
                value = b.select(outside, b.fmul(value, zero), value)
                value = b.select(b.fcmp_unordered("uno", x, x), x, value)
                at = b.fmul(place, code.broadcast(b.extract_value(pitch, axis)).value)
                places = at if places is None else b.fadd(places, at)
            code.put(b.fptoui(places, code.vector(INT32)), 8, i)
            code.put(narrowed(code, value, 9), 9, i)
            return context.get_dummy_value()

        return types.void(points, j, columns, zeros, lengths, pitch, low, high, near, weight, i), generate

    return place_nearest


nearest_plane, nearest_volume = nearest_lanes(2), nearest_lanes(3)
