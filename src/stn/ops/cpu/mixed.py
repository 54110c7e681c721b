"""Mixed blocks as vectors: each pixel with the taps and weights that `taps.store_mixed` found for it.

A weight may be 0 for a pixel outside, whatever is stored there, and NaN times 0 is NaN. So the plain sum is made first;
lanes of it that are NaN, which few ever are, are those of a sum without the taps of no weight.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from stn.ops.cpu.byte_lanes import BYTE
from stn.ops.cpu.lanes import GATHERS, INT32, INT64, LANES, Code, Lanes, unless_nan

REST = 6  # the row of the fill value's weights: those of two taps on each of three axes come before
Sides = list[list[Any]]  # for each axis x, y, z what belongs to its lower tap, and what to its upper


# ---- formulas ----


def contract(values: Sequence[Lanes], weights: Sides) -> Lanes:
    """The sum of the taps' values by their weights. Taps count x fastest."""
    for low, high in weights:
        values = [low * values[k] + high * values[k + 1] for k in range(0, len(values), 2)]
    return values[0]


def contract_known(values: Sequence[Lanes], weights: Sides) -> Lanes:
    """Do the same without taps of weight 0."""
    products = weights[0]
    for low, high in weights[1:]:
        products = [w * side for side in (low, high) for w in products]
    terms = [(weight * value).unless(weight, 0, weight) for weight, value in zip(products, values, strict=True)]
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


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

    def values(self, k: int, base: Any, paired: Any, places: Sequence[Any]) -> list[Lanes]:
        """The numbers of argument k at all taps of a block: one load for both taps in x if they are `paired`, or each."""
        b, code = self.code.builder, self.code
        kind = code.vector(code.real)
        found = [cgutils.alloca_once(b, kind) for _ in places]
        with b.if_else(b.trunc(paired, ir.IntType(1))) as (pairs, singles):
            with pairs:
                for t in range(0, len(places), 2):
                    ends = code.row_taps(k, base, places[t])
                    for side in (0, 1):
                        b.store(ends[side].value, found[t + side])
            with singles:
                for place, into in zip(places, found, strict=True):
                    b.store(gathered(code, k, base, place), into)
        return [Lanes(b, b.load(into)) for into in found]


def gathered(code: Code, k: int, base: Any, places: Any) -> Any:
    """Load one number per lane."""
    kind = BYTE if code.has_bytes(k) else code.real
    if GATHERS and kind != BYTE:
        return code.gather(k, base, places, code.real)
    b, start, vector = code.builder, code.pointer(k, base), ir.Constant(code.vector(kind), ir.Undefined)
    for lane, place in enumerate(code.lanes_of(places)):
        number = b.load(b.gep(start, [place], source_etype=kind), typ=kind)
        vector = b.insert_element(vector, number, INT32(lane))
    return code.numbers(vector).value


def mixed(values: list[Lanes], weights: Sides, rest: Lanes, fill: Lanes) -> Lanes:
    filled = (rest * fill).unless(rest, 0, rest)  # the fill value may well be NaN
    return unless_nan(contract(values, weights) + filled, lambda: contract_known(values, weights) + filled)


def sloped(values: list[Lanes], weights: Sides, slopes: Sides, fill: Lanes, axis: int) -> Lanes:
    factors, above = replaced(weights, slopes, axis), [value - fill for value in values]
    return unless_nan(contract(above, factors), lambda: contract_known(above, factors))


# ---- intrinsics: LANES pixels of a plane, from pixel i of a tile on, `count` of them real ----


def mix_lanes(ndim: int) -> Any:
    """out[to + k] = the sum of the taps of pixel i + k in the image from `at` on, and of the fill value.

    The same for `planes` channels, which are `apart` in the image and `spread` in the output, and begin at channel c."""

    @intrinsic
    def mix(typing, image, at, paired, near, far, weight, i, area, out, to, count, fill, c, planes, apart, spread):
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            code = Code(context, builder, signature, arguments)
            _, at, paired, _, _, _, i, area, _, to, count, _, c, planes, apart, spread = arguments
            block, mask = Block(code, ndim, 3, i, area, False), code.mask(count)
            places, weights, rest = block.places(), block.sides(5), block.numbers(5, REST)
            with code.each_plane(planes, apart, spread, INT64(1)) as (ahead, behind, plane):
                values = block.values(0, builder.add(at, ahead), paired, places)
                fill = code.number(11, builder.add(c, plane))
                value = mixed(values, weights, rest, fill)
                code.masked_store(code.known(value, fill, 8), 8, builder.add(to, behind), mask)
            return context.get_dummy_value()

        given = image, at, paired, near, far, weight, i, area, out, to, count, fill, c, planes, apart, spread
        return types.void(*given), generate

    return mix


def mix_slope_lanes(ndim: int) -> Any:
    """Add grad[first + k] times the derivatives of the same to gradient[i + k], axis by axis, over all planes."""

    @intrinsic
    def mix(
        typing, image, at, paired, near, far, weight, slope, i, area, grad, first, count, gradient, fill, c, planes, apart,
        spread,
    ):  # fmt: skip
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            code = Code(context, builder, signature, arguments)
            _, at, paired, _, _, _, _, i, area, _, first, count, _, _, c, planes, apart, spread = arguments
            block, mask = Block(code, ndim, 3, i, area, False), code.mask(count)
            places, weights, slopes = block.places(), block.sides(5), block.sides(6)
            sums = code.added(12, [block.at(axis) for axis in range(ndim)], mask)
            with sums as totals, code.each_plane(planes, apart, spread, INT64(1)) as (ahead, behind, plane):
                g = code.masked_load(9, builder.add(first, behind), mask)
                values, fill = (
                    block.values(0, builder.add(at, ahead), paired, places),
                    code.number(13, builder.add(c, plane)),
                )
                for axis, total in enumerate(totals):
                    term = g * sloped(values, weights, slopes, fill, axis)
                    builder.store((Lanes(builder, builder.load(total)) + term).value, total)
            return context.get_dummy_value()

        given = image, at, paired, near, far, weight, slope, i, area, grad, first, count, gradient, fill
        return types.void(*given, c, planes, apart, spread), generate

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
                fill = code.masked_load(10, c, mask)
                value = mixed(values, weights, rest, fill)
                code.masked_store(code.known(value, fill, 8), 8, builder.add(to, c), mask)
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

            def terms(c: Any, mask: Any) -> list[Lanes]:
                values, fills = channels_of(code, 0, starts, c, mask), code.masked_load(11, c, mask)
                g = code.masked_load(9, builder.add(to, c), mask)
                return [g * sloped(values, weights, slopes, fills, axis) for axis in range(ndim)]

            return context.make_tuple(builder, signature.return_type, code.sums(n, terms))

        real = types.UniTuple(image.dtype, 3)
        return real(image, base, n, near, far, weight, slope, i, area, grad, to, fill), generate

    return slopes_of


mix_channels_plane, mix_channels_volume = mix_channel_lanes(2), mix_channel_lanes(3)
mixed_channel_slopes_plane, mixed_channel_slopes_volume = mixed_channel_slope_lanes(2), mixed_channel_slope_lanes(3)
