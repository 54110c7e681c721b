"""The taps of cubic kernels as vectors: of eight pixels of a plane, the four taps of a row together, or of one pixel, its
channels.

A tap without weight may stand for a pixel outside, and NaN times 0 is NaN. A sum that is NaN, which is rare, is computed
again without such taps.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from stn.ops.cpu.lanes import INT32, INT64, LANES, Code, Lanes, unless_nan
from stn.ops.cpu.taps import COLUMNS

TAPS = range(4)  # of an axis


class Taps:
    """The taps of pixels j .. of a row: `place` and `weight` of `CubicTaps` are arguments k and k + 1 of an intrinsic."""

    def __init__(self, code: Code, k: int, j: Any) -> None:
        self.code, self.k, self.j = code, k, j

    def at(self, row: int, lane: int = 0) -> Any:
        return self.code.builder.add(self.j, INT64(row * COLUMNS + lane))

    def place(self, axis: int, t: int, lane: int = 0) -> Any:
        b = self.code.builder
        return b.zext(b.load(self.code.pointer(self.k, self.at(4 * axis + t, lane), INT32), typ=INT32), INT64)

    def number(self, s: int, axis: int, t: int, lane: int = 0) -> Any:
        """The weight (s = 0) or the slope (s = 1) of one tap of an axis."""
        at = self.at(12 * s + 4 * axis + t, lane)
        return self.code.builder.load(self.code.pointer(self.k + 1, at), typ=self.code.real)

    def numbers(self, s: int, axis: int) -> list[Any]:
        return [self.number(s, axis, t) for t in TAPS]

    def across(self, s: int) -> list[Lanes]:
        """Return the weights of each tap in x, for eight pixels."""
        return [self.code.load(self.k + 1, self.at(12 * s + t)) for t in TAPS]


# ---- eight pixels of a plane, whose taps in x lie side by side ----


def columns(code: Code, taps: Taps, base: Any, ndim: int, sets: list[int | None]) -> list[list[Lanes]]:
    """For each of `sets`, the four columns of taps of eight pixels, summed over the other axes: by the slopes along the axis
    that the set names, by the weights along others."""
    quads: list[list[Lanes]] = [[] for _ in sets]
    for lane in range(LANES):
        rows = rows_of(code, taps, base, ndim, lane)
        factors = {
            (s, axis): [code.broadcast(taps.number(s, axis, t, lane), 4) for t in TAPS]
            for axis in range(1, ndim) for s in ((0, 1) if len(sets) > 1 else (0,))
        }  # fmt: skip
        for found, slopes in zip(quads, sets, strict=True):
            values = rows
            for axis in range(1, ndim):
                weights = factors[int(axis == slopes), axis]
                values = [dot(weights, values[k : k + 4]) for k in range(0, len(values), 4)]
            found.append(values[0])
    return [turned(code, found) for found in quads]


def rows_of(code: Code, taps: Taps, base: Any, ndim: int, lane: int) -> list[Lanes]:
    """The values of all rows of taps of a pixel, y fastest: one load a row."""
    b = code.builder
    first = b.add(base, taps.place(0, 0, lane))
    deep = [first] if ndim == 2 else [b.add(first, taps.place(2, p, lane)) for p in TAPS]
    return [code.load(0, b.add(start, taps.place(1, q, lane)), 4) for start in deep for q in TAPS]


def turned(code: Code, quads: list[Lanes]) -> list[Lanes]:
    """Transpose: the four taps of each of eight pixels become the eight pixels of each of four taps."""
    b = code.builder

    def shuffle(x: Any, y: Any, order: list[int]) -> Any:
        return b.shuffle_vector(x, y, ir.Constant(code.vector(INT32, len(order)), order))

    pairs = [shuffle(quads[k].value, quads[k + 4].value, [*range(8)]) for k in TAPS]  # pixel k, pixel k + 4
    low = [shuffle(x, y, [0, 8, 1, 9, 4, 12, 5, 13]) for x, y in (pairs[:2], pairs[2:])]
    high = [shuffle(x, y, [2, 10, 3, 11, 6, 14, 7, 15]) for x, y in (pairs[:2], pairs[2:])]
    halves = [0, 1, 8, 9, 4, 5, 12, 13], [2, 3, 10, 11, 6, 7, 14, 15]
    return [Lanes(b, shuffle(x, y, half)) for x, y in (low, high) for half in halves]


def dot(weights: list[Lanes], values: list[Lanes]) -> Lanes:
    total = weights[0] * values[0]
    for w, v in zip(weights[1:], values[1:], strict=True):
        total = w.times_plus(v, total)
    return total


def beyond(code: Code, k: int, at: Any, value: Lanes, fill: Any) -> Lanes:
    """Add the fill value by the weights in argument k. It may be NaN, and its weight is mostly 0."""
    rest = code.load(k, at)
    return rest.times_plus(code.broadcast(fill), value).unless(rest, 0, value)


def bits_of_nan(code: Code, value: Lanes) -> Any:
    wrong = code.builder.fcmp_unordered("uno", value.value, value.value)
    return code.builder.zext(code.builder.bitcast(wrong, ir.IntType(LANES)), INT64)


def blend_quads(ndim: int) -> Any:
    """out[to + k] = the sum of the taps of pixel j + k in the image from `base` on, and of the fill value, k < count; return
    the bits of those that are NaN."""

    @intrinsic
    def blend(typing, image, base, place, weight, rest, j, fill, out, to, count):
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            code = Code(context, builder, signature, arguments)
            _, base, _, _, _, j, fill, _, to, count = arguments
            taps = Taps(code, 2, j)
            value = dot(taps.across(0), columns(code, taps, base, ndim, [None])[0])
            value = beyond(code, 4, j, value, fill)
            code.masked_store(value, 7, to, code.mask(count))
            return bits_of_nan(code, value)

        return types.int64(image, base, place, weight, rest, j, fill, out, to, count), generate

    return blend


def slope_quads(ndim: int) -> Any:
    """Add grad[first + k] times the derivatives of the same to gradient[i + k], axis by axis, `area` apart; return the bits
    of the pixels where one of them is NaN, to which nothing is added."""

    @intrinsic
    def slopes(typing, image, base, place, weight, rest, j, fill, grad, first, count, gradient, i, area):
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            code = Code(context, builder, signature, arguments)
            _, base, _, _, _, j, fill, _, first, count, _, i, area = arguments
            taps, mask, b = Taps(code, 2, j), code.mask(count), builder
            by_weights, *by_slopes = columns(code, taps, base, ndim, [None, *range(1, ndim)])
            found = [dot(taps.across(1), by_weights)] + [dot(taps.across(0), each) for each in by_slopes]
            found = [beyond(code, 4, taps.at(1 + axis), value, fill) for axis, value in enumerate(found)]
            wrong = bits_of_nan(code, sum_of(found))
            known = b.bitcast(b.not_(b.trunc(wrong, ir.IntType(LANES))), mask.type)
            mask, g = b.and_(mask, known), code.masked_load(7, first, mask)
            for axis, value in enumerate(found):
                at = b.add(i, b.mul(area, INT64(axis)))
                code.masked_store(g.times_plus(value, code.masked_load(10, at, mask)), 10, at, mask)
            return wrong

        given = image, base, place, weight, rest, j, fill, grad, first, count, gradient, i, area
        return types.int64(*given), generate

    return slopes


blend_plane, blend_volume = blend_quads(2), blend_quads(3)
slopes_plane, slopes_volume = slope_quads(2), slope_quads(3)


# ---- intrinsics over the n channels of one pixel, which lie side by side: the taps of one plane ----


class Products:
    """The taps of a plane and their weights in x and y, for all channels."""

    def __init__(self, code: Code, taps: Taps, base: Any, n: Any) -> None:
        self.code, self.taps, b = code, taps, code.builder
        across, down = ([b.mul(taps.place(axis, t), n) for t in TAPS] for axis in (0, 1))
        self.starts = [b.add(b.add(base, row), column) for row in down for column in across]

    def weights(self, sx: int, sy: int) -> list[Any]:
        """sx, sy: 0 for the weights in x and y, 1 for the slopes."""
        across, down = self.taps.numbers(sx, 0), self.taps.numbers(sy, 1)
        return [self.code.builder.fmul(w, v) for w in down for v in across]

    def values(self, c: Any, mask: Any) -> list[Lanes]:
        return [self.code.masked_load(0, self.code.builder.add(start, c), mask) for start in self.starts]

    def total(self, weights: list[Any], values: list[Lanes]) -> Lanes:
        """Add up in two independent chains, which the processor overlaps."""
        wide = [self.code.broadcast(w) for w in weights]

        def known() -> Lanes:
            return sum_of([(w * v).unless(w, 0, w) for w, v in zip(wide, values, strict=True)])

        return unless_nan(dot(wide[::2], values[::2]) + dot(wide[1::2], values[1::2]), known)


def sum_of(terms: list[Lanes]) -> Lanes:
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


@intrinsic
def blend_channels_of_plane(typing, image, base, n, place, weight, j, rest, fill, out, to):
    """out[to + c] = the sum of the taps of pixel j in channel c of the plane from `base` on, and `rest` times fill[c]."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        code = Code(context, builder, signature, arguments)
        _, base, n, _, _, j, rest, _, _, to = arguments
        products = Products(code, Taps(code, 3, j), base, n)
        weights = products.weights(0, 0)
        with cgutils.for_range_slice(builder, INT64(0), n, INT64(LANES), INT64) as (c, _):
            mask = code.mask(builder.sub(n, c))
            value = products.total(weights, products.values(c, mask))
            put_channels(code, value, code.broadcast(rest), code.masked_load(7, c, mask), 8, builder.add(to, c), mask)
        return context.get_dummy_value()

    return types.void(image, base, n, place, weight, j, rest, fill, out, to), generate


def put_channels(code: Code, value: Lanes, rest: Lanes, fill: Lanes, k: int, at: Any, mask: Any) -> None:
    """Store the value and `rest` times the fill value, which may be NaN, and has mostly no weight."""
    value = rest.times_plus(fill, value).unless(rest, 0, value)
    code.masked_store(code.known(value, fill, k), k, at, mask)


@intrinsic
def add_channels_of_plane(typing, image, base, n, place, weight, j, scale, out, to):
    """out[to + c] += scale times the sum of the taps of pixel j in channel c of the plane from `base` on."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        code = Code(context, builder, signature, arguments)
        _, base, n, _, _, j, scale, _, to = arguments
        products = Products(code, Taps(code, 3, j), base, n)
        weights = products.weights(0, 0)
        with cgutils.for_range_slice(builder, INT64(0), n, INT64(LANES), INT64) as (c, _):
            mask, at = code.mask(builder.sub(n, c)), builder.add(to, c)
            found = products.total(weights, products.values(c, mask))
            code.masked_store(code.broadcast(scale).times_plus(found, code.masked_load(7, at, mask)), 7, at, mask)
        return context.get_dummy_value()

    return types.void(image, base, n, place, weight, j, scale, out, to), generate


@intrinsic
def channel_slopes_of_plane(typing, image, base, n, place, weight, j, grad, to):
    """The sums over the channels of grad[to + c] times the derivatives in x, in y, and the value of the same."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        code = Code(context, builder, signature, arguments)
        _, base, n, _, _, j, _, to = arguments
        products = Products(code, Taps(code, 3, j), base, n)
        weights = [products.weights(*s) for s in ((1, 0), (0, 1), (0, 0))]

        def terms(c: Any, mask: Any) -> list[Lanes]:
            g, values = code.masked_load(6, builder.add(to, c), mask), products.values(c, mask)
            return [g * products.total(each, values) for each in weights]

        return context.make_tuple(builder, signature.return_type, code.sums(n, terms))

    return types.UniTuple(image.dtype, 3)(image, base, n, place, weight, j, grad, to), generate


@intrinsic
def add_channels_to_plane(typing, image, base, n, count, place, weight, j, scale, grad, to):
    """Add scale times grad[to + c], c < count, by their weights, to the taps of pixel j in channel c of n."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        code = Code(context, builder, signature, arguments)
        _, base, n, count, _, _, j, scale, _, to = arguments
        products = Products(code, Taps(code, 4, j), base, n)
        weights = [code.broadcast(w) for w in products.weights(0, 0)]
        with cgutils.for_range_slice(builder, INT64(0), count, INT64(LANES), INT64) as (c, _):
            mask = code.mask(builder.sub(count, c))
            g = code.masked_load(8, builder.add(to, c), mask) * code.broadcast(scale)
            for start, w in zip(products.starts, weights, strict=True):
                at = builder.add(start, c)
                code.masked_store(w.times_plus(g, code.masked_load(0, at, mask)), 0, at, mask)
        return context.get_dummy_value()

    return types.void(image, base, n, count, place, weight, j, scale, grad, to), generate
