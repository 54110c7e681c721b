"""Vectors of bytes in LLVM's terms, and of numbers in the working precision."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from llvmlite import ir

BYTE, WORD, INT32 = ir.IntType(8), ir.IntType(16), ir.IntType(32)


def to_numbers(builder: Any, vector: Any, real: Any) -> Any:
    """Convert bytes to numbers. Other vectors stay."""
    if not isinstance(vector.type.element, ir.IntType):
        return vector
    count = vector.type.count
    return builder.sitofp(builder.zext(vector, ir.VectorType(INT32, count)), ir.VectorType(real, count))


def to_bytes(builder: Any, vector: Any) -> Any:
    """The nearest bytes of numbers; 0 of NaN."""
    kind, count = vector.type, vector.type.count
    name = f"llvm.rint.v{count}{'f64' if isinstance(kind.element, ir.DoubleType) else 'f32'}"
    function = builder.module.globals.get(name) or ir.Function(builder.module, ir.FunctionType(kind, [kind]), name)
    x = builder.call(function, [vector])
    for sign, bound in ((">=", 0.0), ("<=", 255.0)):
        end = ir.Constant(kind, [bound] * count)
        x = builder.select(builder.fcmp_ordered(sign, x, end), x, end)
    return builder.trunc(builder.fptosi(x, ir.VectorType(INT32, count)), ir.VectorType(BYTE, count))


def byte_pairs(builder: Any, base: Any, offsets: Sequence[Any], real: Any) -> tuple[Any, Any]:
    """The bytes at these offsets and those behind them, as numbers: one load for both."""
    count = len(offsets)
    pairs = ir.Constant(ir.VectorType(WORD, count), ir.Undefined)
    for lane, offset in enumerate(offsets):
        pair = builder.load(builder.gep(base, [offset], source_etype=BYTE), typ=WORD, align=1)
        pairs = builder.insert_element(pairs, pair, INT32(lane))
    wide = builder.zext(pairs, ir.VectorType(INT32, count))
    low = builder.and_(wide, ir.Constant(wide.type, [255] * count))
    high = builder.lshr(wide, ir.Constant(wide.type, [8] * count))
    first, second = (builder.sitofp(side, ir.VectorType(real, count)) for side in (low, high))
    return (first, second) if sys.byteorder == "little" else (second, first)
