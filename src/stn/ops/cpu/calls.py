"""What kernels read from their words: a call, the memory of a chunk, and behind them what belongs to a rule (`numbers.py`).

Each stands at the same place in all words, whatever its numbers are.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np

from stn.ops.cpu.cubic_taps import CubicTaps, cubic_arrays
from stn.ops.cpu.tile import Sizes, Tile, tile_arrays
from stn.ops.cpu.window_taps import Curve, WindowTaps, window_arrays
from stn.ops.cpu.words import MEMORY, NOWHERE, Array, Flag, Int, Place, Real, Record
from stn.ops.interpolation import Cubic

LINE = 64  # bytes of a cache line, on which each array begins
SIZES = Record(Sizes, dict.fromkeys(Sizes._fields, Int()))


class Call(NamedTuple):
    """The description of a call for a kernel, without the memory of its chunk."""

    image: Any  # flat: planes one after the other, or channels last. The gradient in it, where that is asked for
    out: Any  # flat, the result: given to a gradient as its gradient
    fill: Any  # (C,)
    memory: Any  # the address of the chunks' memory
    points: Any  # addresses of the kernels that it calls: for the points of a row, by its rule
    taps: Any  # for the taps of a tile: 0 if it finds its own
    axis: Any  # for the taps along an axis, of `axis_taps.py`: 0 if none is needed
    reduction: Any  # for the gradient of a rule, of a tile
    apart: Any  # how many bytes of it a chunk has
    chunks: Any
    groups: Any  # into which channels are divided, where the gradient in the image is written
    bands: Any  # the same of the slowest axis
    pieces: Any  # how many sums of its own a look has
    shared: Any  # whether all looks share the table of a tile, so that they come one after the other
    straight: Any  # whether points of a row and of a column lie on a line, in even steps
    one: Any  # in the working precision
    cubic: Any
    curve: Any
    sizes: Any


class Chunk(NamedTuple):
    """The memory of a chunk."""

    tile: Any
    taps: Any  # of cubic kernels
    windows: Any  # of kernels with a table


@cache
def call_record(real: str, stored: str, labels: bool) -> Record:
    """real: the working precision. stored: the numbers of the image and the result. labels: whether the fill value is one
    of those."""
    flat = Array(stored, 1, NOWHERE)
    fields: dict[str, Any] = {**dict.fromkeys(Call._fields, Int()), "image": flat, "out": flat, "one": Real(real)}
    fields |= {"fill": Array(stored if labels else real, 1, NOWHERE), "shared": Flag(), "straight": Flag()}
    fields |= {"cubic": Record(Cubic, dict.fromkeys(Cubic._fields, Real("f8")))}
    counts = dict.fromkeys(("taps", "span", "cells"), Int())
    curve = {"numbers": Array("f8", 1, NOWHERE), "sums_to_one": Flag(), "support": Real("f8")} | counts
    return Record(Call, fields | {"curve": Record(Curve, curve), "sizes": SIZES})


class Memory(NamedTuple):
    """The layout of the memory of a chunk."""

    record: Record  # of a `Chunk`
    words: list[int]
    bytes: int


def memory_of(rows: int, knots: int, real: str, span: int = 0, frame: int = 0) -> Memory:
    """What no kernel of a plan touches costs nothing: it is no memory yet. span: of a window. frame: of a framed image."""
    at, parts, values = 0, [], []
    tile = tile_arrays(rows, knots, real, frame)
    for kind, arrays in ((Tile, tile), (CubicTaps, cubic_arrays(real)), (WindowTaps, window_arrays(real, span))):
        places = {}
        for name, (shape, dtype) in arrays.items():
            places[name] = Place(at, shape)
            at += -(-int(np.prod(shape)) * np.dtype(dtype).itemsize // LINE) * LINE
        fields = {name: Array(np.dtype(dtype).str, len(shape), MEMORY) for name, (shape, dtype) in arrays.items()}
        parts.append(Record(kind, fields))
        values.append(kind(**places))
    record = Record(Chunk, dict(zip(Chunk._fields, parts, strict=True)))
    return Memory(record, record.pack(values), at)


# The first word of each: a call has the first of all.
AT_SIZES = call_record("<f4", "<f4", False).first["sizes"]
AT_CHUNK = call_record("<f4", "<f4", False).count
AT_RULE = AT_CHUNK + memory_of(1, 0, "<f4").record.count


@cache
def tile_reader(real: str) -> Any:
    """For kernels that others call. What has one type in all precisions may be read in any."""
    record = memory_of(1, 0, real).record
    return record.fields["tile"].reader(AT_CHUNK + record.first["tile"])


sizes_reader = SIZES.reader(AT_SIZES)
