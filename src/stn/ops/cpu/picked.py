"""Nearest neighbor inside the image as vectors: each of eight pixels is a copy of its only tap, a number of any kind."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from stn.ops.cpu.lanes import GATHERS, INT32, INT64, LANES, gather_from


@intrinsic
def copy_block(typing, image, at, offset, i, out, to, planes, apart, spread):
    """out[to + k] = image at offset[i + k] from `at` on, for LANES pixels, whatever their numbers are.

    The same for `planes` channels, which are `apart` in the image and `spread` in the output.
    """
    number = ir.IntType(image.dtype.bitwidth)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _, at, _, i, _, to, planes, apart, spread = arguments
        start, places, result = (
            context.make_array(signature.args[k])(context, builder, arguments[k]).data for k in (0, 2, 4)
        )
        places = builder.gep(places, [i], source_etype=INT32)
        offsets = builder.load(places, typ=ir.VectorType(INT32, LANES), align=4)
        with cgutils.for_range(builder, planes) as loop:
            base = builder.gep(start, [builder.add(at, builder.mul(loop.index, apart))], source_etype=number)
            found = taken(builder, base, offsets, number)
            target = builder.gep(result, [builder.add(to, builder.mul(loop.index, spread))], source_etype=number)
            builder.store(found, builder.bitcast(target, found.type.as_pointer()), align=number.width // 8)
        return context.get_dummy_value()

    return types.void(image, at, offset, i, out, to, planes, apart, spread), generate


def taken(builder: Any, base: Any, offsets: Any, number: Any) -> Any:
    """The integers at these offsets, by the processor's instruction where it is quick and has one for their size."""
    if GATHERS and number in (INT32, INT64):
        return gather_from(builder, base, offsets, number, number.width // 8)
    found = ir.Constant(ir.VectorType(number, LANES), ir.Undefined)
    for lane in range(LANES):
        offset = builder.zext(builder.extract_element(offsets, INT32(lane)), INT64)
        value = builder.load(builder.gep(base, [offset], source_etype=number), typ=number)
        found = builder.insert_element(found, value, INT32(lane))
    return found
