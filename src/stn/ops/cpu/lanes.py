"""Eight pixels at once, as vectors of LLVM.

LLVM leaves a loop over gathered pixels scalar, since it cannot know that the output does not overlap the image. Besides,
the neighbors of a row are loaded as one pair, which halves the loads. Forward, one channel, rotated, in cache: 0.6 ns a
pixel so, 1.3 as a loop; 4 or 16 lanes were no faster.

The formulas are plain Python over `Lanes`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from llvmlite import ir
from llvmlite.binding import get_host_cpu_name
from numba import config, types
from numba.core import cgutils

from stn.ops.cpu.byte_lanes import BYTE, byte_pairs, to_bytes, to_numbers

LANES = 8

# Processors whose gather instructions beat loads one by one: forward, 0.76 ns a pixel against 0.90 on an Emerald Rapids. On
# AMD's they are slow, and on older ones of Intel since the mitigation of Downfall.
QUICK_GATHERS = ("sapphirerapids", "emeraldrapids", "graniterapids", "graniterapids-d")
GATHERS = (getattr(config, "CPU_NAME", None) or get_host_cpu_name()) in QUICK_GATHERS
INT32, INT64 = ir.IntType(32), ir.IntType(64)


# ---- formulas: one for the value, one for its derivatives, over the taps of a plane ----


def blend(x, y, one, v00, v01, v10, v11):
    """Bilinear."""
    return blend_all(lerp, x, y, None, one, [(v00, v01, v10, v11)])


def blend_all(lerp, x, y, z, one, planes):
    """Bilinear in one plane, trilinear in two."""
    found = [lerp(y, one, lerp(x, one, v00, v01), lerp(x, one, v10, v11)) for v00, v01, v10, v11 in planes]
    return lerp(z, one, *found) if len(found) > 1 else found[0]


def lerp(t, one, a, b):
    """Written so, it is exact at t = 0 and t = 1 if a and b are finite."""
    return (one - t) * a + t * b


def lerp_of_any(t, one, a, b):
    """Exact there whatever the other of the two is, though NaN or infinity times 0 is NaN."""
    return lerp(t, one, a, b).unless(t, 0, a).unless(t, 1, b)


def slope(x, y, one, v00, v01, v10, v11):
    """Derivatives of `blend` in x and y."""
    return (one - y) * (v01 - v00) + y * (v11 - v10), (one - x) * (v10 - v00) + x * (v11 - v01)


# ---- vectors ----


class Lanes:
    """A vector of numbers under construction, with arithmetic."""

    def __init__(self, builder: Any, value: Any) -> None:
        self.builder, self.value = builder, value

    def __add__(self, other: Lanes) -> Lanes:
        return Lanes(self.builder, self.builder.fadd(self.value, other.value))

    def __sub__(self, other: Lanes) -> Lanes:
        return Lanes(self.builder, self.builder.fsub(self.value, other.value))

    def __mul__(self, other: Lanes) -> Lanes:
        return Lanes(self.builder, self.builder.fmul(self.value, other.value))

    def times_plus(self, other: Lanes, term: Lanes) -> Lanes:
        """Return self * other + term, rounded once if the processor has such an instruction."""
        kind = self.value.type
        name = f"llvm.fmuladd.v{kind.count}{'f64' if isinstance(kind.element, ir.DoubleType) else 'f32'}"
        function = self.builder.module.globals.get(name)
        function = function or ir.Function(self.builder.module, ir.FunctionType(kind, [kind] * 3), name)
        return Lanes(self.builder, self.builder.call(function, [self.value, other.value, term.value]))

    def unless(self, t: Lanes, number: float, other: Lanes) -> Lanes:
        """`other` in the lanes where t is this number."""
        there = self.builder.fcmp_ordered("==", t.value, ir.Constant(t.value.type, [float(number)] * t.value.type.count))
        return Lanes(self.builder, self.builder.select(there, other.value, self.value))


def unless_nan(value: Lanes, again: Callable[[], Lanes]) -> Lanes:
    """`again` in the lanes that are NaN, computed if there is one, as there rarely is: the price is one comparison."""
    builder = value.builder
    wrong = builder.fcmp_unordered("uno", value.value, value.value)
    bits = ir.IntType(wrong.type.count)
    lanes = builder.bitcast(wrong, bits)
    before = builder.basic_block
    with builder.if_then(builder.icmp_unsigned("!=", lanes, bits(0)), likely=False):
        other = builder.select(wrong, again().value, value.value)
        after = builder.basic_block
    found = builder.phi(value.value.type)
    found.add_incoming(value.value, before)
    found.add_incoming(other, after)
    return Lanes(builder, found)


def blend_known(x, y, z, one, planes):
    return unless_nan(blend_all(lerp, x, y, z, one, planes), lambda: blend_all(lerp_of_any, x, y, z, one, planes))


def gather_from(builder: Any, base: Any, offsets: Any, kind: Any, step: int) -> Any:
    """Call llvm.masked.gather: load numbers of this kind at the offsets, counted in `step` bytes, from `base` on."""
    wide, truth, found = (Code.vector(each) for each in (INT64, ir.IntType(1), kind))
    first = builder.insert_element(ir.Constant(wide, ir.Undefined), builder.ptrtoint(base, INT64), INT32(0))
    starts = builder.shuffle_vector(first, ir.Constant(wide, ir.Undefined), ir.Constant(Code.vector(INT32), [0] * LANES))
    places = builder.add(starts, builder.mul(builder.zext(offsets, wide), ir.Constant(wide, [step] * LANES)))
    pointers = builder.inttoptr(places, Code.vector(kind.as_pointer()))
    short = {INT32: "i32", INT64: "i64", ir.FloatType(): "f32", ir.DoubleType(): "f64"}[kind]
    name, given = f"llvm.masked.gather.v{LANES}{short}.v{LANES}p0", [pointers.type, INT32, truth, found]
    function = builder.module.globals.get(name) or ir.Function(builder.module, ir.FunctionType(found, given), name)
    everywhere, nothing = ir.Constant(truth, [1] * LANES), ir.Constant(found, ir.Undefined)
    return builder.call(function, [pointers, INT32(step), everywhere, nothing])


class Code:
    """What an intrinsic writes: loads, stores and taps of LANES pixels from pixel i of a tile on, `count` of them real.

    Arrays of bytes, an image and its result, are read as numbers of the working precision, and rounded when they are stored.
    """

    def __init__(self, context: Any, builder: Any, signature: Any, arguments: Sequence[Any]) -> None:
        self.builder = builder
        self.data = {
            k: context.make_array(kind)(context, builder, value).data
            for k, (kind, value) in enumerate(zip(signature.args, arguments, strict=True))
            if isinstance(kind, types.Array)
        }
        arrays = {k: kind.dtype for k, kind in enumerate(signature.args) if isinstance(kind, types.Array)}
        self.kinds = {k: context.get_value_type(dtype) for k, dtype in arrays.items()}
        each = (kind.dtype if isinstance(kind, types.Array) else kind for kind in signature.args)
        self.real = context.get_value_type(next(kind for kind in each if isinstance(kind, types.Float)))
        self.align = 8 if isinstance(self.real, ir.DoubleType) else 4
        self.one = Lanes(builder, ir.Constant(self.vector(self.real), [1.0] * LANES))

    @staticmethod
    def vector(kind: Any, lanes: int = LANES) -> Any:
        return ir.VectorType(kind, lanes)

    def has_bytes(self, k: int) -> bool:
        return bool(self.kinds[k] == BYTE)

    def pointer(self, k: int, at: Any, kind: Any = None) -> Any:
        return self.builder.gep(self.data[k], [at], source_etype=kind or (BYTE if self.has_bytes(k) else self.real))

    def load(self, k: int, at: Any, lanes: int = LANES) -> Lanes:
        kind, align = (BYTE, 1) if self.has_bytes(k) else (self.real, self.align)
        return self.numbers(self.builder.load(self.pointer(k, at), typ=self.vector(kind, lanes), align=align))

    def store(self, value: Lanes, k: int, at: Any) -> None:
        stored = self.rounded(value) if self.has_bytes(k) else value.value
        place = self.builder.bitcast(self.pointer(k, at), stored.type.as_pointer())
        self.builder.store(stored, place, align=1 if self.has_bytes(k) else self.align)

    def numbers(self, vector: Any) -> Lanes:
        return Lanes(self.builder, to_numbers(self.builder, vector, self.real))

    def rounded(self, value: Lanes) -> Any:
        return to_bytes(self.builder, value.value)

    def known(self, value: Lanes, fill: Lanes, k: int) -> Lanes:
        """Replace NaN by the fill value if bytes are stored, which have no NaN."""
        if not self.has_bytes(k):
            return value
        wrong = self.builder.fcmp_unordered("uno", value.value, value.value)
        return Lanes(self.builder, self.builder.select(wrong, fill.value, value.value))

    def kind(self, k: int) -> Any:
        """Return the LLVM type of the numbers of argument k."""
        return self.kinds[k]

    def put(self, value: Any, k: int, at: Any) -> None:
        """Store a vector of whatever argument k holds."""
        place = self.builder.bitcast(self.pointer(k, at, value.type.element), value.type.as_pointer())
        self.builder.store(value, place, align=8 if isinstance(value.type.element, ir.DoubleType) else 4)

    def each(self, name: str, value: Any) -> Any:
        """Apply llvm.floor, llvm.rint or llvm.fabs to a vector of float64."""
        name, kind = f"llvm.{name}.v{LANES}f64", ir.FunctionType(value.type, [value.type])
        function = self.builder.module.globals.get(name) or ir.Function(self.builder.module, kind, name)
        return self.builder.call(function, [value])

    @contextmanager
    def added(self, k: int, places: Sequence[Any], mask: Any) -> Iterator[list[Any]]:
        """Yield variables that begin as the vectors at these places, and are stored there again."""
        totals = [cgutils.alloca_once(self.builder, self.vector(self.real)) for _ in places]
        for place, total in zip(places, totals, strict=True):
            self.builder.store(self.load(k, place).value, total)
        yield totals
        for place, total in zip(places, totals, strict=True):
            self.masked_store(Lanes(self.builder, self.builder.load(total)), k, place, mask)

    def total(self, lanes: Lanes) -> Any:
        """The sum of the lanes, half to half: always in this order."""
        value = lanes.value
        while value.type.count > 1:
            half = value.type.count // 2
            parts = [ir.Constant(self.vector(INT32, half), [*range(k, k + half)]) for k in (0, half)]
            value = self.builder.fadd(*(self.builder.shuffle_vector(value, value, part) for part in parts))
        return self.builder.extract_element(value, INT32(0))

    def sums(self, count: Any, terms: Callable[[Any, Any], Sequence[Lanes]]) -> list[Any]:
        """The sums over `count` channels of up to three terms. terms: of the channels from c on, of which a mask is real."""
        b, nothing = self.builder, ir.Constant(self.vector(self.real), [0.0] * LANES)
        sums = [cgutils.alloca_once_value(b, nothing) for _ in range(3)]
        with cgutils.for_range_slice(b, INT64(0), count, INT64(LANES), INT64) as (c, _):
            for total, term in zip(sums, terms(c, self.mask(b.sub(count, c))), strict=False):
                b.store((Lanes(b, b.load(total)) + term).value, total)
        return [self.total(Lanes(b, b.load(total))) for total in sums]

    def broadcast(self, number: Any, lanes: int = LANES) -> Lanes:
        """Return a vector with this number in all lanes."""
        b, whole = self.builder, self.vector(number.type, lanes)
        first = b.insert_element(ir.Constant(whole, ir.Undefined), number, INT32(0))
        everywhere = ir.Constant(self.vector(INT32, lanes), [0] * lanes)
        return Lanes(b, b.shuffle_vector(first, ir.Constant(whole, ir.Undefined), everywhere))

    def number(self, k: int, at: Any) -> Lanes:
        """Return a vector with one number of argument k in all lanes."""
        return self.broadcast(self.builder.load(self.pointer(k, at), typ=self.real))

    def axes(self, ndim: int, k: int, i: Any, area: Any) -> list[Lanes]:
        """Fractions in x, y, z; in the plane z is that of y, and not used."""
        places = [self.builder.add(i, self.builder.mul(area, INT64(min(axis, ndim - 1)))) for axis in range(3)]
        return [self.load(k, place) for place in places]

    def mask(self, count: Any, lanes: int = LANES) -> Any:
        """The first `count` lanes."""
        order = ir.Constant(self.vector(INT32, lanes), list(range(lanes)))
        return self.builder.icmp_signed("<", order, self.broadcast(self.builder.trunc(count, INT32), lanes).value)

    def masked(self, verb: str, result: Any, arguments: Sequence[Any]) -> Any:
        """Call llvm.masked.load or llvm.masked.store."""
        mask_or_value = next(argument for argument in arguments if isinstance(argument.type, ir.VectorType))
        whole = result if verb == "load" else mask_or_value.type
        number = "i8" if whole.element == BYTE else ("f64" if self.align == 8 else "f32")
        name = f"llvm.masked.{verb}.v{whole.count}{number}.p0"
        kind = ir.FunctionType(result, [argument.type for argument in arguments])
        function = self.builder.module.globals.get(name) or ir.Function(self.builder.module, kind, name)
        return self.builder.call(function, arguments)

    def masked_load(self, k: int, at: Any, mask: Any) -> Lanes:
        """Load the lanes of the mask. The others are 0 and are not read."""
        kind, align = (BYTE, 1) if self.has_bytes(k) else (self.real, self.align)
        zeros = ir.Constant(self.vector(kind, mask.type.count), None)
        arguments = [self.pointer(k, at), INT32(align), mask, zeros]
        return self.numbers(self.masked("load", zeros.type, arguments))

    def masked_store(self, value: Lanes, k: int, at: Any, mask: Any) -> None:
        if not self.has_bytes(k):
            self.masked("store", ir.VoidType(), [value.value, self.pointer(k, at), INT32(self.align), mask])
            return
        b, stored, bits = self.builder, self.rounded(value), ir.IntType(mask.type.count)
        whole = b.icmp_unsigned("==", b.bitcast(mask, bits), bits(-1))
        with b.if_else(whole, likely=True) as (all_lanes, some):  # a masked store of bytes is slow on half of the CPUs
            with all_lanes:
                b.store(stored, b.bitcast(self.pointer(k, at), stored.type.as_pointer()), align=1)
            with some:
                self.masked("store", ir.VoidType(), [stored, self.pointer(k, at), INT32(1), mask])

    def offsets(self, k: int, i: Any) -> Any:
        return self.builder.load(self.pointer(k, i, INT32), typ=self.vector(INT32), align=4)

    def lanes_of(self, places: Any) -> list[Any]:
        b = self.builder
        return [b.zext(b.extract_element(places, INT32(lane)), INT64) for lane in range(LANES)]

    def row_taps(self, k: int, at: Any, offsets: Any) -> tuple[Lanes, Lanes]:
        """Left and right tap in one row: one load of two neighbors a pixel."""
        b = self.builder
        if self.has_bytes(k):
            first, second = byte_pairs(b, self.pointer(k, at), self.lanes_of(offsets), self.real)
            return Lanes(b, first), Lanes(b, second)
        if GATHERS and self.align == 4:
            both = b.bitcast(self.gather(k, at, offsets, INT64), self.vector(self.real, 2 * LANES))
        else:
            both = self._pairs(k, at, offsets)
        nothing = ir.Constant(both.type, ir.Undefined)
        sides = [ir.Constant(self.vector(INT32), list(range(side, 2 * LANES, 2))) for side in (0, 1)]
        left, right = (Lanes(b, b.shuffle_vector(both, nothing, side)) for side in sides)
        return left, right

    def _pairs(self, k: int, at: Any, offsets: Any) -> Any:
        b, base, pair = self.builder, self.pointer(k, at), self.vector(self.real, 2)
        places = self.lanes_of(offsets)
        parts = [b.load(b.gep(base, [o], source_etype=self.real), typ=pair, align=self.align) for o in places]
        while len(parts) > 1:
            parts = [self._joined(*parts[i : i + 2]) for i in range(0, len(parts), 2)]
        return parts[0]

    def gather(self, k: int, at: Any, offsets: Any, kind: Any) -> Any:
        return gather_from(self.builder, self.pointer(k, at), offsets, kind, self.align)

    def _joined(self, first: Any, second: Any) -> Any:
        order = list(range(2 * first.type.count))
        return self.builder.shuffle_vector(first, second, ir.Constant(self.vector(INT32, len(order)), order))

    def plane_taps(self, k: int, at: Any, down: Any, offsets: Any) -> tuple[Lanes, Lanes, Lanes, Lanes]:
        return *self.row_taps(k, at, offsets), *self.row_taps(k, self.builder.add(at, down), offsets)

    @contextmanager
    def each_plane(self, planes: Any, *strides: Any) -> Iterator[list[Any]]:
        """Write a loop over planes. Yields how far the plane lies behind the first, for each of the strides."""
        with cgutils.for_range(self.builder, planes) as loop:
            yield [self.builder.mul(loop.index, stride) for stride in strides]

    def corners(self, at: Any, right: Any, down: Any, deep: Any) -> list[list[Any]]:
        """Return the places of the taps of a pixel, in its plane and in the plane behind."""
        add = self.builder.add
        plane = [at, add(at, right), add(at, down), add(add(at, down), right)]
        return [plane, [add(corner, deep) for corner in plane]]
