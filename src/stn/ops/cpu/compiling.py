"""How Numba compiles: the settings of functions and loops, and kernels that are kept on disk."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import FunctionType
from typing import Any, NamedTuple

from numba import cfunc, njit, types
from numba.core.caching import FunctionCache

from stn.ops import interpolation, padding, reference
from stn.ops.cpu.notice import noticed
from stn.ops.rules import lattice, matrix, spline

# What kernels are made of, others' files for their constants. It is part of their names, see `compiled`.
OTHERS = reference, interpolation, padding, lattice, matrix, spline
FILES = [*sorted(Path(__file__).parent.glob("*.py")), *(Path(str(module.__file__)) for module in OTHERS)]
SOURCES = hashlib.sha256(b"".join(path.read_bytes() for path in FILES)).hexdigest()

# What takes tuples of arrays is inlined into its kernel, and there is little of it: Numba takes half a second for each such
# function. All else takes plain arrays and numbers and is compiled alone, once for all kernels: LLVM then keeps pointers in
# registers. Such a loop becomes vector code if it runs over unsigned integers, has few arrays, makes no views, and chooses
# by `a if c else b`, not by min. Coordinates of 256x1x42x42: 0.8 ns a pixel so, 7.3 otherwise.
# None is ever called from Python, so none needs Numba's wrappers for that; nor does any but the `_new` ones make arrays, so
# none counts references to them: kernels of an affine training step take 18.1 s to compile so, and 20.4 otherwise.
BARE: Any = {"nogil": True, "error_model": "numpy", "no_cpython_wrapper": True, "no_cfunc_wrapper": True, "_nrt": False}
INLINED: Any = BARE | {"forceinline": True}


def for_types(**options: Any) -> Any:
    """`njit` for functions that are compiled for the types of numbers, not for their values.

    To Numba each constant has a type of its own, and so has, at first, a variable that begins as one: whatever takes it
    would be compiled for the constant, then for all numbers. Kernels of an affine training step compile in half the time so.

    Each function gets a name that no other has. Numba tells those of one name apart by a number that begins anew in each
    process, and keeps all that a kernel calls in the kernel's file: of files that two processes have written, one would run
    what the other calls, such as code of two dimensions in three.
    """

    def decorate(function: Any) -> Any:
        function.__qualname__ += f"_{uuid.uuid4().hex}"
        made: Any = njit(**options)(function)
        template = made.get_call_template

        def general(arguments: Any, keywords: Any) -> Any:
            plain = {name: types.unliteral(kind) for name, kind in keywords.items()}
            return template(tuple(map(types.unliteral, arguments)), plain)

        made.get_call_template = general
        made.decorate = decorate
        return made

    return decorate


def merged(function: Any) -> Any:
    """For functions that are inlined before types are inferred: the same kernels with their outer loops so, 13.8 s."""
    made: Any = njit(**BARE, inline="always")(function)
    made.decorate = merged
    return made


inline: Any = for_types(**INLINED)
loop: Any = for_types(**BARE)
loop_fused: Any = for_types(**BARE, fastmath={"contract"})  # a b + c in one step
loop_new: Any = for_types(**BARE | {"_nrt": True})  # may make arrays
inline_new: Any = for_types(**INLINED | {"_nrt": True})
loop_sum: Any = for_types(**BARE, fastmath={"reassoc", "contract"})  # sums in vector order


# What a kernel knows when it is compiled, as constants of the functions that it is made of: see `specialized`. Numba drops
# the branches of others, so who works in two dimensions waits for no code of three.
NDIM: Any = None  # 2 or 3
NEAREST: Any = None  # whether one tap makes a pixel


def specialized(function: Any, constants: Mapping[str, Any]) -> Any:
    """The function of a kernel, and those that it calls, with these constants. Who uses none of them stays the same."""
    key = function, *sorted(constants.items())
    if key not in _specialized:
        body, known = function.py_func, {}
        for name in body.__code__.co_names:
            value = constants.get(name, body.__globals__.get(name))
            made = specialized(value, constants) if hasattr(value, "decorate") else value
            if made is not body.__globals__.get(name):
                known[name] = made
        _specialized[key] = function
        if known:
            made = FunctionType(body.__code__, body.__globals__ | known, body.__name__, closure=body.__closure__)
            _specialized[key] = function.decorate(made)
    return _specialized[key]


_specialized: dict[Any, Any] = {}

KERNEL = types.void(types.int64, types.int64, types.int64)  # (address of the words, first chunk, last + 1)
TAPS = types.void(*[types.int64] * 5)  # of `kernels.taps`


def named(function: Any, name: str, constants: Mapping[str, Any]) -> Any:
    """The function under a name that says all of it, and with these globals beside its own.

    Numba names the file of its cache after the function, and knows what lies there by the function's own bytes: neither by
    the functions and constants that it uses, nor by `parallel`. A file of an earlier version may even refer to classes that
    are no more. So the name says them all.
    """
    name = f"{name}_{SOURCES[:12]}"
    found = FunctionType(function.__code__, function.__globals__ | dict(constants), name)
    found.__qualname__ = name
    return found


class Counts(NamedTuple):
    found: int  # on disk
    compiled: int


def counts() -> Counts:
    """Return the numbers of functions that this process has found on disk, and that it has compiled."""
    stats = [function.stats for function in _dispatchers]
    found = sum(made.cache_hits for made in _entries) + sum(sum(s.cache_hits.values()) for s in stats)
    missed = sum(not made.cache_hits for made in _entries) + sum(sum(s.cache_misses.values()) for s in stats)
    return Counts(found, missed)


def is_kept(function: Any) -> bool:
    """Return True if Numba has a folder that this user can write. Otherwise functions are compiled in each process."""
    try:
        FunctionCache(function)
    except RuntimeError:  # no locator available
        return False
    return True


def entry(function: Any, name: str, constants: Mapping[str, Any], kind: Any = KERNEL) -> int:
    """The address of `function(words, first, last)`, a kernel or a stage around one, compiled now or found on disk."""
    options: Any = {"error_model": "numpy", "_nrt": False}
    function = named(function, name, constants)
    kept = is_kept(function)
    with noticed(name, kept):
        made: Any = cfunc(kind, cache=kept, **options)(function)
    _entries.append(made)  # the code lives as long as this
    return int(made.address)


_entries: list[Any] = []
_dispatchers: list[Any] = []


@cache
def compiled(kernel: Any, parallel: bool) -> Any:
    """`kernel`, compiled when first called and then cached on disk."""
    function = named(kernel, f"{kernel.__name__}_{'parallel' if parallel else 'serial'}", {})
    kept = is_kept(function)
    made: Any = njit(function, nogil=True, parallel=parallel, cache=kept, error_model="numpy")
    compile_now = made.compile

    def compile_with_notice(signature: Any) -> Any:
        with noticed(kernel.__name__, kept):
            return compile_now(signature)

    made.compile = compile_with_notice
    _dispatchers.append(made)
    return made
