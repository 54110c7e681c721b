"""The taps of kernels with a table as vectors: the windows of eight pixels of a plane, or the channels of one pixel.

How many taps there are is known at run time: one compiled kernel serves all kernels k(distance).

A tap without weight may stand for a pixel outside, and NaN times 0 is NaN. A sum of a window that is NaN, which is rare, is
computed again without such taps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from stn.ops.cpu.lanes import INT32, INT64, LANES, Code, Lanes
from stn.ops.cpu.quads import beyond, bits_of_nan, put_channels, sum_of
from stn.ops.cpu.taps import COLUMNS


class Windows:
    """Taps and weights of pixels, `place` and `weight` of `WindowTaps`, as arguments k and k + 1 of an intrinsic."""

    def __init__(self, code: Code, k: int, taps: Any, span: Any) -> None:
        self.code, self.k, self.taps, self.span, self.builder = code, k, taps, span, code.builder
        self.axis = self.builder.mul(span, INT64(COLUMNS))  # from the numbers of one axis to those of the next
        self.slope = self.builder.mul(self.axis, INT64(3))  # from weights to slopes

    def at(self, axis: int, pixel: Any, s: int = 0) -> Any:
        b = self.builder
        first = b.add(b.mul(pixel, self.span), b.mul(self.axis, INT64(axis)))
        return b.add(first, self.slope) if s else first

    def place(self, at: Any) -> Any:
        b = self.builder
        return b.zext(b.load(self.code.pointer(self.k, at, INT32), typ=INT32), INT64)

    def number(self, at: Any) -> Any:
        return self.builder.load(self.code.pointer(self.k + 1, at), typ=self.code.real)

    def vector(self, at: Any) -> Lanes:
        return self.code.load(self.k + 1, at)

    @contextmanager
    def each(self, count: Any, step: int = 1) -> Iterator[Any]:
        with cgutils.for_range_slice(self.builder, INT64(0), count, INT64(step), INT64) as (index, _):
            yield index

    def zeros(self, count: int) -> list[Any]:
        """Make variables for sums, which LLVM keeps in registers."""
        kind = self.code.vector(self.code.real)
        places = [cgutils.alloca_once(self.builder, kind) for _ in range(count)]
        for place in places:
            self.builder.store(ir.Constant(kind, [0.0] * LANES), place)
        return places

    def add(self, place: Any, value: Lanes, weight: Lanes) -> None:
        b = self.builder
        b.store(weight.times_plus(value, Lanes(b, b.load(place))).value, place)

    # ---- the window of one pixel ----

    def sums(self, ndim: int, pixel: Any, first: Any, sets: Sequence[int | None]) -> list[Lanes]:
        """For each of `sets` a vector whose lanes add up to the sum of the taps: by the slopes along the axis that it
        names, by the weights along others. first: where the window begins, in the image's array."""
        b, totals = self.builder, self.zeros(len(sets))
        with self.each(self.span, LANES) as column:
            rows = self.zeros(len(sets))
            if ndim == 2:
                self.add_rows(pixel, b.add(first, column), sets, rows, None)
            else:
                with self.each(self.taps) as p:
                    deep = self.place(b.add(self.at(2, pixel), p))
                    self.add_rows(pixel, b.add(b.add(first, column), deep), sets, rows, p)
            for total, row, axis in zip(totals, rows, sets, strict=True):
                across = self.vector(b.add(self.at(0, pixel, int(axis == 0)), column))
                self.add(total, Lanes(b, b.load(row)), across)
        return [Lanes(b, b.load(total)) for total in totals]

    def add_rows(self, pixel: Any, first: Any, sets: Sequence[int | None], rows: Sequence[Any], p: Any) -> None:
        b, code = self.builder, self.code
        with self.each(self.taps) as q:
            values = code.load(0, b.add(first, self.place(b.add(self.at(1, pixel), q))))
            for row, axis in zip(rows, sets, strict=True):
                weight = self.number(b.add(self.at(1, pixel, int(axis == 1)), q))
                if p is not None:
                    weight = b.fmul(weight, self.number(b.add(self.at(2, pixel, int(axis == 2)), p)))
                self.add(row, values, code.broadcast(weight))


def gathered(code: Code, vectors: list[Lanes]) -> Lanes:
    """The sums of the lanes of eight vectors, as one."""
    b = code.builder
    while len(vectors) > 1:
        pairs = zip(vectors[::2], vectors[1::2], strict=True)
        vectors = [sum_of([Lanes(b, part) for part in parted(code, x.value, y.value)]) for x, y in pairs]
    return vectors[0]


def parted(code: Code, x: Any, y: Any) -> list[Any]:
    orders = [ir.Constant(code.vector(INT32), [*range(side, 2 * LANES, 2)]) for side in (0, 1)]
    return [code.builder.shuffle_vector(x, y, order) for order in orders]


def window_sums(
    code: Code, windows: Windows, ndim: int, k: int, base: Any, j: Any, sets: Sequence[int | None]
) -> list[Lanes]:
    """Return the sums of eight pixels from j on. k: the argument with the starts of their windows."""
    b, found = code.builder, []
    for lane in range(LANES):
        pixel = b.add(j, INT64(lane))
        start = b.zext(b.load(code.pointer(k, pixel, INT32), typ=INT32), INT64)
        found.append(windows.sums(ndim, pixel, b.add(base, start), sets))
    return [gathered(code, [each[s] for each in found]) for s in range(len(sets))]


# ---- intrinsics: LANES pixels of a plane ----


def blend_windows(ndim: int) -> Any:
    """out[to + k] = the sum of the taps of pixel j + k in the image from `base` on, and of the fill value, k < count; return
    the bits of those that are NaN."""

    @intrinsic
    def blend(typing, image, base, start, place, weight, rest, j, taps, span, fill, out, to, count):
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            code = Code(context, builder, signature, arguments)
            _, base, _, _, _, _, j, taps, span, fill, _, to, count = arguments
            windows = Windows(code, 3, taps, span)
            value = window_sums(code, windows, ndim, 2, base, j, [None])[0]
            value = beyond(code, 5, j, value, fill)
            code.masked_store(value, 10, to, code.mask(count))
            return bits_of_nan(code, value)

        given = image, base, start, place, weight, rest, j, taps, span, fill, out, to, count
        return types.int64(*given), generate

    return blend


def slope_windows(ndim: int) -> Any:
    """Add grad[first + k] times the derivatives of the same to gradient[i + k], axis by axis, `area` apart, but for pixels
    whose bits `apart` has; return those, and the bits of pixels where one of them is NaN, to which nothing is added."""

    @intrinsic
    def slopes(
        typing, image, base, start, place, weight, rest, j, taps, span, fill, grad, first, count, apart, gradient, i, area
    ):
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            code, b = Code(context, builder, signature, arguments), builder
            _, base, _, _, _, _, j, taps, span, fill, _, first, count, apart, _, i, area = arguments
            windows = Windows(code, 3, taps, span)
            found = window_sums(code, windows, ndim, 2, base, j, list(range(ndim)))
            places = [b.add(j, INT64((1 + axis) * COLUMNS)) for axis in range(ndim)]
            found = [beyond(code, 5, place, value, fill) for place, value in zip(places, found, strict=True)]
            wrong, mask = b.or_(apart, bits_of_nan(code, sum_of(found))), code.mask(count)
            mask = b.and_(mask, b.bitcast(b.not_(b.trunc(wrong, ir.IntType(LANES))), mask.type))
            g = code.masked_load(10, first, mask)
            for axis, value in enumerate(found):
                at = b.add(i, b.mul(area, INT64(axis)))
                code.masked_store(g.times_plus(value, code.masked_load(14, at, mask)), 14, at, mask)
            return wrong

        given = (
            image, base, start, place, weight, rest, j, taps, span, fill, grad, first, count, apart, gradient, i, area,
        )  # fmt: skip
        return types.int64(*given), generate

    return slopes


blend_windows_plane, blend_windows_volume = blend_windows(2), blend_windows(3)
slope_windows_plane, slope_windows_volume = slope_windows(2), slope_windows(3)


# ---- intrinsics over the n channels of one pixel, which lie side by side: the taps of one plane ----


class Channels(Windows):
    """The taps of pixel j in the plane from `base` on, for all channels."""

    def __init__(self, code: Code, k: int, taps: Any, span: Any, j: Any, base: Any, n: Any) -> None:
        super().__init__(code, k, taps, span)
        self.j, self.base, self.n = j, base, n

    def totals(self, c: Any, mask: Any, sets: Sequence[tuple[int, int]]) -> list[Lanes]:
        """Of the channels from c on: the sums by these weights (0) or slopes (1) in x and y, without taps of no weight."""
        b, code, places = self.builder, self.code, self.zeros(len(sets))
        with self.each(self.taps) as q:
            line = b.add(b.add(self.base, c), b.mul(self.place(b.add(self.at(1, self.j), q)), self.n))
            down = [self.number(b.add(self.at(1, self.j, s), q)) for s in (0, 1)]
            with self.each(self.span) as k:
                across = [self.number(b.add(self.at(0, self.j, s), k)) for s in (0, 1)]
                weights = [b.fmul(across[sx], down[sy]) for sx, sy in sets]
                counts = [b.fcmp_unordered("une", weight, code.real(0.0)) for weight in weights]
                any_counts = counts[0]
                for other in counts[1:]:
                    any_counts = b.or_(any_counts, other)
                with b.if_then(any_counts):
                    value = code.masked_load(0, b.add(line, b.mul(self.place(b.add(self.at(0, self.j), k)), self.n)), mask)
                    for place, weight, one_counts in zip(places, weights, counts, strict=True):
                        before = Lanes(b, b.load(place))
                        after = code.broadcast(weight).times_plus(value, before)
                        b.store(b.select(one_counts, after.value, before.value), place)
        return [Lanes(b, b.load(place)) for place in places]


@intrinsic
def blend_channels(typing, image, base, n, place, weight, j, taps, span, rest, fill, out, to):
    """out[to + c] = the sum of the taps of pixel j in channel c of the plane from `base` on, and `rest` times fill[c]."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        code = Code(context, builder, signature, arguments)
        _, base, n, _, _, j, taps, span, rest, _, _, to = arguments
        channels = Channels(code, 3, taps, span, j, base, n)
        with channels.each(n, LANES) as c:
            mask = code.mask(builder.sub(n, c))
            value = channels.totals(c, mask, [(0, 0)])[0]
            put_channels(code, value, code.broadcast(rest), code.masked_load(9, c, mask), 10, builder.add(to, c), mask)
        return context.get_dummy_value()

    return types.void(image, base, n, place, weight, j, taps, span, rest, fill, out, to), generate


@intrinsic
def add_windows(typing, image, base, n, place, weight, j, taps, span, scale, out, to):
    """out[to + c] += scale times the sum of the taps of pixel j in channel c of the plane from `base` on."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        code = Code(context, builder, signature, arguments)
        _, base, n, _, _, j, taps, span, scale, _, to = arguments
        channels = Channels(code, 3, taps, span, j, base, n)
        with channels.each(n, LANES) as c:
            mask, at = code.mask(builder.sub(n, c)), builder.add(to, c)
            found = channels.totals(c, mask, [(0, 0)])[0]
            code.masked_store(code.broadcast(scale).times_plus(found, code.masked_load(9, at, mask)), 9, at, mask)
        return context.get_dummy_value()

    return types.void(image, base, n, place, weight, j, taps, span, scale, out, to), generate


@intrinsic
def window_slopes(typing, image, base, n, place, weight, j, taps, span, grad, to):
    """The sums over the channels of grad[to + c] times the derivatives in x, in y, and the value of the same."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        code = Code(context, builder, signature, arguments)
        _, base, n, _, _, j, taps, span, _, to = arguments
        channels = Channels(code, 3, taps, span, j, base, n)

        def terms(c: Any, mask: Any) -> list[Lanes]:
            g = code.masked_load(8, builder.add(to, c), mask)
            return [g * total for total in channels.totals(c, mask, [(1, 0), (0, 1), (0, 0)])]

        return context.make_tuple(builder, signature.return_type, code.sums(n, terms))

    return types.UniTuple(image.dtype, 3)(image, base, n, place, weight, j, taps, span, grad, to), generate
