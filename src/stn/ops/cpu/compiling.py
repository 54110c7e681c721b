"""How Numba compiles: the settings of functions and loops, and kernels that are kept on disk."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from types import FunctionType
from typing import Any

from numba import njit

from stn.ops import interpolation, padding, reference
from stn.ops.rules import matrix, spline

# What kernels are made of, others' files for their constants. It is part of their names, see `compiled`.
OTHERS = reference, interpolation, padding, matrix, spline
FILES = [*sorted(Path(__file__).parent.glob("*.py")), *(Path(str(module.__file__)) for module in OTHERS)]
SOURCES = hashlib.sha256(b"".join(path.read_bytes() for path in FILES)).hexdigest()

# What takes tuples of arrays is inlined into its kernel, and there is little of it: Numba takes half a second for each such
# function. All else takes plain arrays and numbers and is compiled alone, once for all kernels: LLVM then keeps pointers in
# registers. Such a loop becomes vector code if it runs over unsigned integers, has few arrays, makes no views, and chooses
# by `a if c else b`, not by min. Coordinates of 256x1x42x42: 0.8 ns a pixel so, 7.3 otherwise.
# None is ever called from Python, so none needs Numba's wrappers for that.
BARE: Any = {"nogil": True, "error_model": "numpy", "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
INLINED: Any = BARE | {"forceinline": True}
inline: Any = njit(**INLINED)
loop: Any = njit(**BARE)
loop_fused: Any = njit(**BARE, fastmath={"contract"})  # a b + c in one step
loop_sum: Any = njit(**BARE, fastmath={"reassoc", "contract"})  # sums in vector order


@cache
def compiled(kernel: Any, parallel: bool) -> Any:
    """`kernel`, compiled when first called and then cached on disk.

    Numba names the file of its cache after the function, and knows what lies there by the function's own bytes and
    constants: neither by the functions that it calls, nor by `parallel`. A file of an earlier version may even refer to
    classes that are no more. So the name says them all.
    """
    name = f"{kernel.__name__}_{'parallel' if parallel else 'serial'}_{SOURCES[:12]}"
    named = FunctionType(kernel.__code__, kernel.__globals__, name)
    named.__qualname__ = name
    return njit(named, nogil=True, parallel=parallel, cache=True, error_model="numpy")
