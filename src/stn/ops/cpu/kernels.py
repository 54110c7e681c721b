"""All kernels, and how each is compiled. They are made of parts that call each other at addresses.

A kernel walks over tiles. It calls one that finds the taps of a tile, which calls that of the coordinate rule for each row;
and for the gradient in coordinates one that adds up a tile by its rule. So there is one part for each rule, and one for each
way to sample, not one for each pair of them.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from stn.ops.cpu.axis_taps import AXIS, LOOPS, PADDED, axis_taps
from stn.ops.cpu.calls import AT_CHUNK, AT_RULE, call_record, memory_of, sizes_reader, tile_reader
from stn.ops.cpu.compiling import KERNEL, TAPS, entry, specialized
from stn.ops.cpu.coordinates_backward import coordinates_pixels, coordinates_planes
from stn.ops.cpu.cubic import (
    cubic_coordinates_pixels,
    cubic_coordinates_planes,
    cubic_forward_pixels,
    cubic_forward_planes,
    cubic_image_pixels,
    cubic_image_planes,
)
from stn.ops.cpu.forward import forward_pixels, forward_planes
from stn.ops.cpu.framed import coordinates_framed, fill_framed, forward_framed, image_framed
from stn.ops.cpu.image_backward import image_pixels, image_planes
from stn.ops.cpu.labels import label_pixels, label_planes
from stn.ops.cpu.numbers import STAGES, data_record
from stn.ops.cpu.points import POINTS
from stn.ops.cpu.reductions import REDUCTIONS
from stn.ops.cpu.tile import AT_AXIS, AT_MEMORY, AT_POINTS, AT_TABLE, AT_TAPS, AT_WORDS, fill_rows
from stn.ops.cpu.windows import (
    window_coordinates_pixels,
    window_coordinates_planes,
    window_forward_pixels,
    window_forward_planes,
    window_image_pixels,
    window_image_planes,
)

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
    "framed forward": (forward_framed,),
    "framed coordinates": (coordinates_framed,),
    "framed image": (image_framed,),
    "image": (
        image_planes, image_pixels, cubic_image_planes, cubic_image_pixels, window_image_planes, window_image_pixels,
    ),
}  # fmt: skip  # of planes and of channels last: with up to two taps an axis, with four, with a table; of labels with one

# ---- what is compiled: (address of the words, ..) -> nothing. Names that are None are constants of an entry ----

read_call: Any = None
read_chunk: Any = None
read_tile: Any = None
read_sizes: Any = None
read_rule: Any = None
body: Any = None


def kernel(words, first, last):  # type: ignore[no-untyped-def]  # Numba types it
    """Chunks first .. last - 1 of a call."""
    call = read_call(words, 0)
    for chunk in range(first, last):
        place = call.memory + chunk * call.apart
        memory = read_chunk(words, place)
        at = memory.tile.at
        at[AT_WORDS], at[AT_MEMORY], at[AT_TABLE] = words, place, -1  # no table yet
        at[AT_POINTS], at[AT_TAPS], at[AT_AXIS] = call.points, call.taps, call.axis
        body(call, memory, chunk)


def points(words, memory, r):  # type: ignore[no-untyped-def]  # Numba types it
    """The points of row r of a tile. memory: the address of its chunk's."""
    tile = read_tile(words, memory)
    body(read_rule(words, 0).grid, read_sizes(words, 0), r, tile.at, tile.points, tile.table)


def taps(words, memory, low, high, derivative):  # type: ignore[no-untyped-def]  # Numba types it
    """The taps of a tile: see `tile.fill_tile`."""
    tile = read_tile(words, memory)
    body(
        derivative != 0, read_sizes(words, 0), low, high, tile.at, tile.box, tile.points, tile.runs, tile.offset,
        tile.fraction, tile.near, tile.far, tile.weight, tile.slope,
    )  # fmt: skip


def reduction(words, memory, _):  # type: ignore[no-untyped-def]  # Numba types it
    """The gradient of a rule's numbers, or of a field, from that of the pixels of a tile."""
    tile, rule = read_tile(words, memory), read_rule(words, 0)
    body(rule.grid, read_sizes(words, 0), tile.at, tile.points, tile.table, tile.gradient, rule.sums, rule.bends)


def stage(words, first, last):  # type: ignore[no-untyped-def]  # Numba types it
    """What a rule does before a kernel, or after it."""
    body(read_rule(words, 0))


@cache
def kernel_at(body: Any, ndim: int, nearest: bool, real: str, stored: str) -> int:
    """The address of this kernel. stored: the numbers of the image and the result."""
    call = call_record(real, stored, body in BODIES["labels"])
    constants = {"read_call": call.reader(0), "read_chunk": memory_of(1, 0, real).record.reader(AT_CHUNK)}
    of_labels = f"_{stored}" if stored != real else ""
    return _entry(kernel, body, f"{_kind(ndim, nearest)}_{real}{of_labels}", constants, ndim, nearest)


@cache
def taps_at(ndim: int, nearest: bool, real: str, framed: bool = False) -> int:
    constants = {"read_tile": tile_reader(real), "read_sizes": sizes_reader}
    body = fill_framed if framed else fill_rows
    return _entry(taps, body, f"{_kind(ndim, nearest)}_{real}", constants, ndim, nearest, TAPS)


@cache
def axis_at(padding: int, real: str) -> int:
    """The address of the kernel for the taps along one axis under the padding with this code."""
    padded = PADDED[padding]
    constants = {"read_tile": tile_reader(real), **LOOPS[padded]}
    return entry(axis_taps, f"axis_taps_{padded.py_func.__name__}_{real}", constants, AXIS)


@cache
def points_at(kind: str, ndim: int, number: str) -> int:
    """The address of the kernel of a rule. number: the precision of its data."""
    constants = {"read_tile": tile_reader("<f4"), "read_sizes": sizes_reader, "read_rule": _rule_reader(kind, number)}
    return _entry(points, POINTS[kind], f"{ndim}d_{number}", constants, ndim, False)


@cache
def reduction_at(kind: str, ndim: int, number: str, real: str) -> int:
    constants = {"read_tile": tile_reader(real), "read_sizes": sizes_reader, "read_rule": _rule_reader(kind, number)}
    return _entry(reduction, REDUCTIONS[kind], f"{ndim}d_{number}_{real}", constants, ndim, False)


@cache
def stage_at(after: bool, kind: str, number: str) -> int:
    """The address of what runs before a kernel, or after it, or 0 for nothing."""
    body = STAGES[kind][after]
    constants = {"read_rule": _rule_reader(kind, number), "body": body}
    return entry(stage, f"{body.py_func.__name__}_{kind}_{number}", constants) if body else 0


@cache
def _rule_reader(kind: str, number: str) -> Any:
    return data_record(kind, number).reader(AT_RULE)


def _kind(ndim: int, nearest: bool) -> str:
    return f"{ndim}d{'_nearest' if nearest else ''}"


def _entry(
    function: Any, body: Any, name: str, constants: dict[str, Any], ndim: int, nearest: bool, kind: Any = KERNEL
) -> int:
    made = specialized(body, {"NDIM": ndim, "NEAREST": nearest})
    return entry(function, f"{body.py_func.__name__}_{name}", constants | {"body": made}, kind)
