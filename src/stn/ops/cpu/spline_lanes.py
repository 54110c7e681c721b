"""One point of a cubic B-spline with vectors in control points, as vector code of LLVM.

The four control points along x of each row lie side by side in the table, with `width` numbers each: one vector. A row is
one multiplication and addition, 4 rows in 2-D, 16 in 3-D. As loops of Numba the same took 2.6 times as long.

Arguments: `weights`, rows of numbers of a block (4 for each axis x, y[, z], then as many derivatives), and the number of the
point in it; `table`, and the place in it of the lowest control point of the 4^d around the point; `shape`, the number of
control points on each axis.
"""

from __future__ import annotations

import itertools
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from stn.ops.cpu.point_blocks import PITCH

REAL, INT32, INT64 = ir.DoubleType(), ir.IntType(32), ir.IntType(64)
FUSED = ("contract",)


def width_of(ndim: int) -> int:
    """Numbers of a control point in the table: a power of two."""
    return 2 if ndim == 2 else 4


class Code:
    """The code that the intrinsics generate."""

    def __init__(self, context: Any, builder: Any, signature: Any, arguments: Any) -> None:
        self.builder, self.arguments = builder, arguments
        self.arrays = [
            context.make_array(kind)(context, builder, value).data if isinstance(kind, types.Array) else None
            for kind, value in zip(signature.args, arguments, strict=True)
        ]
        self.ndim = signature.args[-1].count
        self.width = width_of(self.ndim)
        self.vector = ir.VectorType(REAL, 4 * self.width)

    def number(self, array: int, lane: Any, row: int) -> Any:
        """The number of a lane in a row of a block."""
        place = self.builder.add(lane, INT64(row * PITCH))
        return self.builder.load(self.builder.gep(self.arrays[array], [place], source_etype=REAL), typ=REAL)

    def put(self, array: int, lane: Any, row: int, value: Any) -> None:
        place = self.builder.add(lane, INT64(row * PITCH))
        self.builder.store(value, self.builder.gep(self.arrays[array], [place], source_etype=REAL))

    def rows(self, array: int, start: Any) -> list[Any]:
        """Pointers to the vectors of the 4 or 16 rows, those along y first."""
        lengths = [self.builder.extract_value(self.arguments[-1], k) for k in range(self.ndim)]
        pitches, pitch = [], INT64(self.width)
        for n in lengths[:-1]:
            pitch = self.builder.mul(pitch, n)
            pitches.append(pitch)
        found = []
        for steps in itertools.product(range(4), repeat=self.ndim - 1):
            place = start
            for pitch, step in zip(reversed(pitches), steps, strict=True):
                place = self.builder.add(place, self.builder.mul(pitch, INT64(step)))
            pointer = self.builder.gep(self.arrays[array], [place], source_etype=REAL)
            found.append(self.builder.bitcast(pointer, self.vector.as_pointer()))
        return found

    def load(self, pointer: Any) -> Any:
        return self.builder.load(pointer, typ=self.vector, align=8)

    def shuffled(self, value: Any, places: list[int]) -> Any:
        mask = ir.Constant(ir.VectorType(INT32, len(places)), places)
        return self.builder.shuffle_vector(value, value, mask)

    def packed(self, numbers: list[Any]) -> Any:
        value = ir.Constant(ir.VectorType(REAL, len(numbers)), ir.Undefined)
        for k, number in enumerate(numbers):
            value = self.builder.insert_element(value, number, INT32(k))
        return value

    def splat(self, number: Any) -> Any:
        return self.shuffled(self.packed([number]), [0] * 4 * self.width)

    def along_x(self, array: int, lane: Any, first: int) -> Any:
        """The four weights in x, each for all numbers of its control point."""
        weights = self.packed([self.number(array, lane, first + k) for k in range(4)])
        return self.shuffled(weights, [k // self.width for k in range(4 * self.width)])

    def each_control_point(self, numbers: list[Any]) -> Any:
        """One vector for each control point of a row."""
        places = [k % self.width if k % self.width < len(numbers) else 0 for k in range(4 * self.width)]
        return self.shuffled(self.packed(numbers), places)

    def weights_of_rows(self, array: int, lane: Any, derivative: int | None) -> list[Any]:
        """The products of weights in y[, z], of which one may be a derivative."""
        firsts = [4 * axis + (4 * self.ndim if axis == derivative else 0) for axis in range(1, self.ndim)]
        single = [[self.number(array, lane, first + k) for k in range(4)] for first in firsts]
        if self.ndim == 2:
            return single[0]
        return [self.times(z, y) for z in single[1] for y in single[0]]

    def times(self, a: Any, b: Any) -> Any:
        return self.builder.fmul(a, b, flags=FUSED)

    def plus(self, a: Any, b: Any) -> Any:
        return self.builder.fadd(a, b, flags=FUSED)

    def weighted(self, rows: list[Any], weights: list[Any]) -> Any:
        total = self.times(self.splat(weights[0]), rows[0])
        for row, weight in zip(rows[1:], weights[1:], strict=True):
            total = self.plus(total, self.times(self.splat(weight), row))
        return total

    def folded(self, value: Any, least: int) -> Any:
        """Add half to half until `least` numbers remain."""
        while (n := value.type.count // 2) >= least:
            value = self.plus(self.shuffled(value, [*range(n)]), self.shuffled(value, [*range(n, 2 * n)]))
        return value


@intrinsic
def spline_value(typing_context, weights, lane, table, start, values, shape):
    """values, rows of a block: the value at a point."""

    def write(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        code, lane = Code(context, builder, signature, arguments), arguments[1]
        rows = [code.load(pointer) for pointer in code.rows(2, arguments[3])]
        total = code.times(code.weighted(rows, code.weights_of_rows(0, lane, None)), code.along_x(0, lane, 0))
        found = code.folded(total, code.width)
        for axis in range(code.ndim):
            code.put(4, lane, axis, builder.extract_element(found, INT32(axis)))
        return context.get_dummy_value()

    return types.void(weights, types.uint64, table, types.uint64, values, shape), write


@intrinsic
def spline_pull(typing_context, weights, lane, table, start, sums, force, shape):
    """Add to `sums`, a table, the gradient in the control points if `force`, d rows of a block, is that in the value.
    Replace the force by the gradient in the point."""

    def write(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        code, lane, d = Code(context, builder, signature, arguments), arguments[1], signature.args[-1].count
        rows = [code.load(pointer) for pointer in code.rows(2, arguments[3])]
        force = code.each_control_point([code.number(5, lane, axis) for axis in range(d)])
        shares = code.weights_of_rows(0, lane, None)
        spread = code.times(code.along_x(0, lane, 0), force)
        slopes = [code.times(code.weighted(rows, shares), code.times(code.along_x(0, lane, 4 * d), force))]
        for axis in range(1, d):
            slopes.append(code.times(code.weighted(rows, code.weights_of_rows(0, lane, axis)), spread))
        for pointer, share in zip(code.rows(4, arguments[3]), shares, strict=True):
            builder.store(code.plus(code.load(pointer), code.times(code.splat(share), spread)), pointer, align=8)
        for axis, slope in enumerate(slopes):
            code.put(5, lane, axis, builder.extract_element(code.folded(slope, 1), INT32(0)))
        return context.get_dummy_value()

    return types.void(weights, types.uint64, table, types.uint64, sums, force, shape), write
