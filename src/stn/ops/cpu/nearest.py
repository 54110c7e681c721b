"""Nearest neighbor as vectors: one tap per pixel, for some planes at once."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from stn.ops.cpu.lanes import INT32, INT64, Code
from stn.ops.cpu.mixed import gathered


@intrinsic
def copy_lanes(typing, image, at, offset, i, out, to, count, planes, apart, spread):
    """out[to + k] = image at offset[i + k] from `at` on, k < count, and the same for the other planes."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        code = Code(context, builder, signature, arguments)
        _, at, _, i, _, to, count, planes, apart, spread = arguments
        offsets, mask = code.offsets(2, i), code.mask(count)
        with code.each_plane(planes, apart, spread) as (ahead, behind):
            value = code.lanes(gathered(code, 0, builder.add(at, ahead), offsets))
            code.masked_store(value, 4, builder.add(to, behind), mask)
        return context.get_dummy_value()

    return types.void(image, at, offset, i, out, to, count, planes, apart, spread), generate


@intrinsic
def pick_lanes(typing, image, at, near, weight, i, out, to, count, fill, c, planes, apart, spread):
    """Do the same by weights, from channel c on: the tap where it is 1, the fill value where it is 0, otherwise NaN."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        code = Code(context, builder, signature, arguments)
        _, at, _, _, i, _, to, count, _, c, planes, apart, spread = arguments
        places = builder.load(code.pointer(2, i, INT32), typ=code.vector(INT32), align=4)
        weights, mask = code.load(3, i).value, code.mask(count)
        one, zero = (ir.Constant(weights.type, [number] * weights.type.count) for number in (1.0, 0.0))
        whole, none = (builder.fcmp_ordered("==", weights, number) for number in (one, zero))
        with code.each_plane(planes, apart, spread, INT64(1)) as (ahead, behind, plane):
            value, nothing = gathered(code, 0, builder.add(at, ahead), places), code.number(8, builder.add(c, plane)).value
            found = builder.select(whole, value, builder.select(none, nothing, weights))
            code.masked_store(code.lanes(found), 5, builder.add(to, behind), mask)
        return context.get_dummy_value()

    return types.void(image, at, near, weight, i, out, to, count, fill, c, planes, apart, spread), generate
