"""Nearest neighbor inside the image as vectors: each of eight pixels is a copy of its only tap, a number of any kind."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from stn.ops.cpu.lanes import GATHERS, INT32, INT64, LANES

TRUTH = ir.VectorType(ir.IntType(1), LANES)
WIDE = ir.VectorType(INT64, LANES)


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
        offsets = builder.zext(builder.load(places, typ=ir.VectorType(INT32, LANES), align=4), WIDE)
        with cgutils.for_range(builder, planes) as loop:
            base = builder.gep(start, [builder.add(at, builder.mul(loop.index, apart))], source_etype=number)
            found = gathered(builder, base, offsets, number)
            target = builder.gep(result, [builder.add(to, builder.mul(loop.index, spread))], source_etype=number)
            builder.store(found, builder.bitcast(target, found.type.as_pointer()), align=number.width // 8)
        return context.get_dummy_value()

    return types.void(image, at, offset, i, out, to, planes, apart, spread), generate


def gathered(builder: Any, base: Any, offsets: Any, number: Any) -> Any:
    """The integers at these offsets, by the processor's instruction where it is quick and has one for their size."""
    vector, align = ir.VectorType(number, LANES), number.width // 8
    if not GATHERS or align < 4:
        found = ir.Constant(vector, ir.Undefined)
        for lane in range(LANES):
            place = builder.gep(base, [builder.extract_element(offsets, INT32(lane))], source_etype=number)
            found = builder.insert_element(found, builder.load(place, typ=number), INT32(lane))
        return found
    bytes_ahead = builder.mul(offsets, ir.Constant(WIDE, [align] * LANES))
    first = builder.insert_element(ir.Constant(WIDE, ir.Undefined), builder.ptrtoint(base, INT64), INT32(0))
    starts = builder.shuffle_vector(first, first, ir.Constant(ir.VectorType(INT32, LANES), [0] * LANES))
    pointers = builder.inttoptr(builder.add(starts, bytes_ahead), ir.VectorType(number.as_pointer(), LANES))
    name, given = f"llvm.masked.gather.v{LANES}i{number.width}.v{LANES}p0", [pointers.type, INT32, TRUTH, vector]
    function = builder.module.globals.get(name) or ir.Function(builder.module, ir.FunctionType(vector, given), name)
    everywhere = ir.Constant(TRUTH, [1] * LANES)
    return builder.call(function, [pointers, INT32(align), everywhere, ir.Constant(vector, ir.Undefined)])
