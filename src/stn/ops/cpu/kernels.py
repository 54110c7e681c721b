"""All kernels, and what they read from their words: a call, and the memory of a chunk."""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np

from stn.ops.cpu.axis_taps import AXIS, LOOPS, PADDED, axis_taps
from stn.ops.cpu.compiling import entry
from stn.ops.cpu.coordinates_backward import coordinates_pixels, coordinates_planes
from stn.ops.cpu.cubic import (
    cubic_coordinates_pixels,
    cubic_coordinates_planes,
    cubic_forward_pixels,
    cubic_forward_planes,
    cubic_image_pixels,
    cubic_image_planes,
)
from stn.ops.cpu.cubic_taps import CubicTaps, cubic_arrays
from stn.ops.cpu.forward import forward_pixels, forward_planes
from stn.ops.cpu.image_backward import image_pixels, image_planes
from stn.ops.cpu.labels import label_pixels, label_planes
from stn.ops.cpu.numbers import data_record, shared_fields
from stn.ops.cpu.tile import AT_AXIS, AT_CHUNK, AT_MEMORY, AT_TABLE, Sizes, Tile, tile_arrays
from stn.ops.cpu.window_taps import Curve, WindowTaps, window_arrays
from stn.ops.cpu.windows import (
    window_coordinates_pixels,
    window_coordinates_planes,
    window_forward_pixels,
    window_forward_planes,
    window_image_pixels,
    window_image_planes,
)
from stn.ops.cpu.words import MEMORY, NOWHERE, WORD_BYTES, Array, Flag, Int, Place, Real, Record
from stn.ops.interpolation import Cubic

LINE = 64  # bytes of a cache line, on which each array begins


class Call(NamedTuple):
    """The description of a call for a kernel, without the memory of its chunk."""

    image: Any  # flat: planes one after the other, or channels last. The gradient in it, where that is asked for
    out: Any  # flat, the result: given to a gradient as its gradient
    fill: Any  # (C,)
    memory: Any  # the address of the chunks' memory
    axis: Any  # the address of a kernel of `axis_taps.py`, or 0 if none is needed
    apart: Any  # how many bytes of it a chunk has
    chunks: Any
    groups: Any  # into which channels are divided, where the gradient in the image is written
    bands: Any  # the same of the slowest axis
    ndim: Any
    nearest: Any
    last: Any  # channels last
    one: Any  # in the working precision
    cubic: Any
    curve: Any
    sizes: Any
    grid: Any
    sums: Any
    bends: Any


class Chunk(NamedTuple):
    """The memory of a chunk."""

    tile: Any
    taps: Any  # of cubic kernels
    windows: Any  # of kernels with a table


@cache
def call_record(kind: str, real: str, number: str, stored: str, labels: bool) -> Record:
    """kind: of the rule. real: the working precision. number: that of the data. stored: the numbers of the image and the
    result. labels: whether the fill value is one of those."""
    flat, integers = Array(stored, 1, NOWHERE), ("memory", "axis", "apart", "chunks", "groups", "bands", "ndim")
    fill = Array(stored if labels else real, 1, NOWHERE)
    fields: dict[str, Any] = {"image": flat, "out": flat, "fill": fill, "one": Real(real)}
    fields |= {name: Int() for name in integers} | {name: Flag() for name in ("nearest", "last")}
    fields |= {"cubic": Record(Cubic, dict.fromkeys(Cubic._fields, Real("f8")))}
    counts = dict.fromkeys(("taps", "span", "cells"), Int())
    curve = {"numbers": Array("f8", 1, NOWHERE), "sums_to_one": Flag(), "support": Real("f8")} | counts
    fields |= {"curve": Record(Curve, curve)}
    fields |= {"sizes": Record(Sizes, dict.fromkeys(Sizes._fields, Int()))}
    return Record(Call, fields | shared_fields(kind, number))


class Memory(NamedTuple):
    """The layout of the memory of a chunk."""

    record: Record  # of a `Chunk`
    words: list[int]
    bytes: int


def memory_of(rows: int, knots: int, real: str, span: int = 0) -> Memory:
    """What no kernel of a plan touches costs nothing: it is no memory yet. span: of a window."""
    at, parts, values = 0, [], []
    tile = tile_arrays(rows, knots, real)
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


# ---- what is compiled ----

BODIES = {
    "forward": (
        forward_planes, forward_pixels, cubic_forward_planes, cubic_forward_pixels, window_forward_planes,
        window_forward_pixels,
    ),
    "coordinates": (
        coordinates_planes, coordinates_pixels, cubic_coordinates_planes, cubic_coordinates_pixels,
        window_coordinates_planes, window_coordinates_pixels,
    ),
    "labels": (label_planes, label_pixels),
    "image": (
        image_planes, image_pixels, cubic_image_planes, cubic_image_pixels, window_image_planes, window_image_pixels,
    ),
}  # fmt: skip  # of planes and of channels last: with up to two taps an axis, with four, with a table; of labels with one
read_call: Any = None  # for `kernel`, from `kernel_at`
read_chunk: Any = None
body: Any = None
CALL: Any = None  # where the words of a call begin, in bytes, behind those of `numbers.Data`
CHUNK: Any = None


def kernel(words, first, last):  # type: ignore[no-untyped-def]  # Numba types it
    call = read_call(words, words + CALL, 0)
    for chunk in range(first, last):
        memory = read_chunk(words, words + CHUNK, call.memory + chunk * call.apart)
        at = memory.tile.at
        at[AT_TABLE], at[AT_AXIS] = -1, call.axis  # no table yet
        at[AT_CHUNK], at[AT_MEMORY] = words + CHUNK, call.memory + chunk * call.apart
        body(call, memory, chunk)


@cache
def kernel_at(body: Any, kind: str, real: str, number: str, stored: str) -> int:
    """The address of this kernel for these types."""
    call = call_record(kind, real, number, stored, body in BODIES["labels"])
    chunk, at = memory_of(1, 0, real).record, data_record(kind, number).count
    constants = {"read_call": call.reader(), "read_chunk": chunk.reader(), "body": body}
    constants |= {"CALL": at * WORD_BYTES, "CHUNK": (at + call.count) * WORD_BYTES}
    name = f"{body.py_func.__name__}_{kind}_{real}_{number}" + (f"_{stored}" if stored != real else "")
    return entry(kernel, name, constants)


@cache
def axis_at(padding: int, real: str) -> int:
    """The address of the kernel for the taps along one axis under the padding with this code."""
    padded = PADDED[padding]
    constants = {"read_chunk": memory_of(1, 0, real).record.reader(), **LOOPS[padded]}
    return entry(axis_taps, f"axis_taps_{padded.py_func.__name__}_{real}", constants, AXIS)
