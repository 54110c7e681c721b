"""How a result is stored: as it is, or rounded to a byte."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types
from numba.extending import overload

from stn.ops.cpu.compiling import INLINED


def stored(value: Any, fill: Any, out: Any) -> Any:
    raise NotImplementedError("for compiled code alone: the value as `out` stores it; where bytes have none, of NaN, `fill`")


@overload(stored, jit_options=INLINED)
def stored_as(value, fill, out):
    if not isinstance(out.dtype, types.Integer):
        return lambda value, fill, out: value
    if not isinstance(value, types.Float):
        return lambda value, fill, out: np.uint8(value)

    def rounded(value, fill, out):
        x = np.rint(value if value == value else fill)
        x = x if x >= 0.0 else 0.0
        return np.uint8(x if x <= 255.0 else 255.0)

    return rounded
