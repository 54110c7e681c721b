"""What a call needs beside its tensors, found once for all calls that are alike.

A small call is mostly Python: of the 240 us of a training step at 1x1x28x28 the kernels took 45. So the sizes, the scales,
the division of work and of memory, and the addresses of kernels are put into words once (`words.py`). A call copies the
words, fills in the addresses of its tensors, and runs: `launch.py`.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Hashable
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from stn.grid import axes
from stn.ops.cpu import memory, threads
from stn.ops.cpu.axis_taps import is_needed
from stn.ops.cpu.calls import AT_RULE, Call, call_record, memory_of
from stn.ops.cpu.framed import frame_length
from stn.ops.cpu.kernels import BODIES, axis_at, kernel_at, points_at, reduction_at, stage_at, taps_at
from stn.ops.cpu.numbers import Data, data_record
from stn.ops.cpu.taps import COLUMNS, ROWS
from stn.ops.cpu.tile import Sizes, tiles_of_a_look
from stn.ops.cpu.window_taps import Curve
from stn.ops.cpu.words import WORD_BYTES, Place, Record
from stn.ops.interpolation import Cubic
from stn.ops.layout import is_channels_last, order_of
from stn.ops.padding import BORDER, ZEROS
from stn.ops.reference import prefilter_reach
from stn.ops.rules import Rule
from stn.ops.rules.spline import GROUP
from stn.ops.sampling import Sampling
from stn.ops.tables import Table, table_of

TASKS = 8  # of the gradient of a small batch, where their number must not depend on the threads
SHORT = 32  # pixels of a row
FEW_ROWS = 16  # of a small output, whose tile takes a quarter of the memory
# Numbers of a framed image times its channels squared, at most, by the dimensions: a frame saves most of its time once for
# all channels, and is copied for each. 1x256x256 and 3x48x48 pixels gain, 3x128x128 do not; 1x64x64x64 voxels gain. Stored
# points, which may be anywhere, gain more: 16x3x128x128 0.7 (noise) to 1.1 times (the identity) as long forward.
FRAMED = {2: 1 << 17, 3: 1 << 19}
FEW = 4  # looks or images of a call that several threads may share
TABLE = 1 << 15  # pixels times knots of a tile's radial functions, 256 KiB: half, twice and four times that were slower
NAMES = {torch.float32: "<f4", torch.float64: "<f8"}
NO_CUBIC = Cubic(*[0.0] * len(Cubic._fields))
FORMS = ((False, False), (True, False), (False, True))  # of BODIES: whether there is a cubic, whether there is a table
FRAMES = "forward", "coordinates", "image"  # kernels that may read a framed image
BLEND = (1, 4, 8)  # price of a value by its form, in values of a bilinear affine map, as measured at 28x28


class Slots(NamedTuple):
    """The words that each call fills in."""

    image: int
    out: int
    fill: int
    memory: int
    taps: int  # the kernel that finds those of a tile
    points: int  # the field, or what the data are read from
    sums: int
    knots: int
    gradient: int
    reduction: int  # where the gradient in the data is asked for


class Plan:
    """Everything that calls with the same key share."""

    def __init__(self, rule: Rule, image: Tensor, data: Tensor, sampling: Sampling, last: bool) -> None:
        interpolation, self.padding, self.align_corners = sampling[:3]
        self.dtype, self.data_dtype, self.last, self.ndim = image.dtype, data.dtype, last, image.ndim - 2
        self.nearest, self.cubic, self.prefilter = interpolation.rounds, interpolation.cubic, interpolation.prefilter
        self.table = None if interpolation.support is None else table_of(interpolation, image.dtype)
        self.form = FORMS.index((self.cubic is not None, self.table is not None))  # of the kernels
        self.real = torch.float64 if image.dtype == torch.float64 else torch.float32
        self.has_labels = self.nearest and not image.is_floating_point()
        self.stored = self.real if image.is_floating_point() else image.dtype  # of the image and the result
        self.stored_name = NAMES[self.real] if self.stored is self.real else f"u{image.dtype.itemsize}"
        self.number = torch.float64 if data.dtype == torch.float64 else torch.float32
        form = torch.channels_last if self.ndim == 2 else torch.channels_last_3d
        self.format = form if last else torch.contiguous_format
        self.reads_planes = not last and image.dtype is self.stored  # as they are, if dense
        each, own = rule.canonical(image, data), rule.dimensions(image)
        n, looks, self.size = image.shape[0], each.shape[1], tuple(rule.out_size(each))
        self.looks, self.batch, self.image_shape, self.data_shape = n * looks, n, tuple(image.shape), tuple(data.shape)
        self.given_looks = math.prod(data.shape[: data.ndim - own])
        self.has_looks = data.ndim == own + 2
        lead = (n, looks) if self.has_looks else (n,)
        # Not a view of a (N * K, ..) tensor: forward-mode autograd refuses one as the result of a Function.
        self.out_shape = (*lead, image.shape[1], *self.size)
        self.out_strides = memory.strides(self.out_shape, order_of(self.ndim, len(lead), last))
        self.is_small = math.prod(self.out_shape) * self.stored.itemsize < memory.LEAST
        self.is_empty = math.prod(self.out_shape) == 0
        self.margin = prefilter_reach(self.padding, self.real)[1] if self.prefilter else 0
        self.source_size = tuple(length + 2 * self.margin for length in image.shape[2:])
        self.source_shape = (*image.shape[:2], *self.source_size)
        self.source_strides = memory.strides(self.source_shape, order_of(self.ndim, 1, last))
        self.zeros = np.zeros(image.shape[1], self.stored_name if self.has_labels else NAMES[self.real])
        self.zeros_at = self.zeros.ctypes.data
        self.kind, arrays = rule.numbers(each, axes(image.shape[2:], self.size, self.align_corners))
        self.is_field = self.kind == "field"
        self.is_expanded = self.is_field and self.given_looks != self.looks  # one field for all images
        self.reads_data = data.dtype is self.number and not self.is_expanded  # as they are, if dense
        self.points_shape = tuple(each.shape) if self.is_expanded else self.data_shape
        self.points_strides = memory.strides(self.points_shape, range(len(self.points_shape)))
        self.knots = int(rule.key[1]) if self.kind == "basis" else 0  # type: ignore[index]  # a Spline's key is a pair
        self.threads = threads.thread_count(self._work())
        self.frame = self._frame()
        self.chunks = threads.chunk_count(self.threads)
        if self.frame and self.looks < self.chunks:
            self.chunks = self.threads  # each frames the images that it reads
        self.addresses: dict[str, tuple[int, int]] = {}  # of kernels, and of the taps that each reads
        self.before = 0 if self.is_field else stage_at(False, self.kind, NAMES[self.number])
        self._write(arrays)

    def _work(self) -> int:
        """Return the time of the call forward, in values (pixels times channels) of a bilinear affine map in 2-D."""
        values, pixels = math.prod(self.out_shape), self.looks * math.prod(self.size)
        place = 1 if self.kind == "lattice" else -(-self.knots // 16)  # of a pixel, above that of an affine map
        return (values * BLEND[self.form] + pixels * place) * (self.ndim - 1)

    def _frame(self) -> int:
        """Return how many numbers the framed image has, 0 if it is not worth its copy: see `framed.py`."""
        channels, length = self.image_shape[1], frame_length(self.image_shape[1:])
        known = self.form == 0 and self.stored is self.real and self.padding.code in (ZEROS, BORDER)
        seen = math.prod(self.size) * self.looks // max(self.batch, 1)
        weight = channels if self.is_field else channels**2
        cheap = weight * length <= FRAMED[self.ndim] << self.is_field and math.prod(self.image_shape[2:]) <= 2 * seen
        # Threads that share an image frame it each.
        return length if known and cheap and self._is_divided(self.looks) and not (self.nearest or self.last) else 0

    def _is_divided(self, count: int) -> bool:
        """Return True if `count` pieces of work are enough for the threads, whatever their number, for a frame may change
        the last bit of a result."""
        return count >= FEW or self._work() < threads.SMALL

    # ---- words ----

    def _write(self, arrays: dict[str, Any]) -> None:
        real, number, ndim = NAMES[self.real], NAMES[self.number], self.ndim
        data, call = data_record(self.kind, number), call_record(real, self.stored_name, self.has_labels)
        knots = -(-self.knots // GROUP) * GROUP
        is_lattice = self.kind == "lattice"
        walked = walked_as(self.size) if has_no_order(self.kind, arrays) else self.size
        rows = ROWS if walked[-2] > FEW_ROWS else FEW_ROWS
        if knots:
            rows = max(1, min(rows, TABLE // (COLUMNS * knots)))
        chunk = memory_of(rows, 1 if is_lattice else knots, real, self.table.span if self.table else 0, self.frame)
        self.memory = self.chunks * chunk.bytes
        sizes, (groups, bands) = self._sizes(walked, rows), self._division()
        region = Region(data.count + call.count + chunk.record.count)
        grid = {name: region.add(array) for name, array in self._shifted(arrays).items()}
        scale = grid.pop("scale", Place(0, (0, 0)))
        self.static = region.end
        own = {"coef": (self.looks, 4, 4), "bend": (self.looks, ndim, knots), "knots": (knots, ndim)}
        points = Place(0, (self.looks, math.prod(self.size), ndim))
        fields = data.fields["grid"].fields
        grid |= {name: region.room(shape) for name, shape in own.items() if name in fields}
        grid |= {"field": points} if self.is_field else {}
        grid |= {"nodes": Place(0, (math.prod(self.data_shape),))} if is_lattice else {}
        self.count = region.end
        tiles = tiles_of_a_look.py_func(sizes)
        # One thread adds up the gradient in an image, tile by tile. A table that all images share would be made for each.
        alone = self._is_divided(self.batch) and not (self.kind == "basis" and tiles > 1)
        self.framed = FRAMES[: 0 if not self.frame else (3 if alone else 2)]
        given = (0, 0, 0) if self.is_field else (self.given_looks, *self.data_shape[-2:])
        sums, parts = points if self.is_field else region.room((self.looks, tiles, 4, 4)), tiles
        if is_lattice:
            given = self.given_looks, math.prod(self.data_shape[-ndim - 1 : -1]), ndim
            parts = pieces(self.looks, tiles, given[1], math.prod(self.size))
            sums = region.room((self.looks, parts, *given[1:]))
        bends = region.room((self.looks, tiles, ndim, knots))
        self.most = region.end
        where = data.fields["grid"].kind(**grid)
        known = Data(where, sums, bends, scale, Place(0, given), Place(0, (self.knots, ndim)), Place(0, given))
        flat = Place(0, (0,))
        values = Call(
            image=flat, out=flat, fill=Place(0, (len(self.zeros),)), memory=0, apart=chunk.bytes,
            points=points_at(self.kind, ndim, number),
            taps=0, axis=self._axis(), reduction=0,
            chunks=self.chunks, groups=groups, bands=bands, pieces=parts, shared=self.kind == "basis",
            straight=self.kind == "affine", one=1.0, cubic=self.cubic or NO_CUBIC, curve=curve_of(self.table), sizes=sizes,
        )  # fmt: skip
        self.words = region.words(call.pack(values) + chunk.words + data.pack(known))
        self.slots = slots(data, call)

    def _axis(self) -> int:
        code = self.padding.code
        return 0 if self.form or not is_needed(code, self.source_size) else axis_at(code, NAMES[self.real])

    def _sizes(self, walked: tuple[int, ...], rows: int) -> Sizes:
        ones = (1,) * (3 - len(walked))
        lengths = *self.source_size[::-1], *ones, *walked[::-1], *ones
        looks = self.looks // max(self.batch, 1)
        return Sizes._make(
            (self.batch, looks, self.image_shape[1], *lengths, rows, self.padding.code, int(self.align_corners))
        )

    def _division(self) -> tuple[int, int]:
        """Divide the gradient in the image into groups of channels and bands of its slowest axis, as many as threads need.

        Each group and each band computes all coordinates again, and none changes the bits of a pixel. Kernels of four and
        more taps round differently for few channels side by side, so that division depends on the shape alone.
        """
        n, channels = max(self.batch, 1), self.image_shape[1]
        tasks = TASKS if self.form and self.last else self.threads
        bands = 1 if self.form else max(1, min(-(-tasks // n), self.image_shape[2] // 32))
        return max(1, min(-(-tasks // (n * bands)), channels)), bands

    def _shifted(self, arrays: dict[str, Any]) -> dict[str, Any]:
        """Return the numbers for an image with a margin on each side."""
        if "center" in arrays:
            return arrays | {"center": arrays["center"] + self.margin}
        return arrays | {"axes": arrays["axes"] + np.array([0, 0, self.margin])}

    # ---- code ----

    def compile(self, name: str) -> tuple[int, int]:
        """The addresses of one of BODIES and of its taps, 0 if it finds its own, which `addresses` keeps."""
        real, framed = NAMES[self.real], name.startswith("framed")
        body = BODIES["labels"][self.last] if self.has_labels else BODIES[name][0 if framed else 2 * self.form + self.last]
        taps = 0 if self.form else taps_at(self.ndim, self.nearest, real, framed)
        self.addresses[name] = kernel_at(body, self.ndim, self.nearest, real, self.stored_name), taps
        return self.addresses[name]

    @cached_property
    def reduction(self) -> int:
        return reduction_at(self.kind, self.ndim, NAMES[self.number], NAMES[self.real])

    @cached_property
    def after(self) -> int:
        """The address of what the rule does after the kernel for the gradient in its data."""
        return 0 if self.is_field else stage_at(True, self.kind, NAMES[self.number])


def curve_of(table: Table | None) -> Curve:
    if table is None:
        return Curve(Place(0, (0,)), 0, 0, 0, False, 0.0)
    numbers = table.numbers  # which the plan holds
    return Curve(
        Place(numbers.ctypes.data, (numbers.size,)), table.taps, table.span, table.cells, table.sums_to_one, table.support
    )


def has_no_order(kind: str, arrays: dict[str, Any]) -> bool:
    """Return True if the points are stored and do not depend on the position of the pixel in the output."""
    return kind == "field" and not arrays["axes"][:, 1].any()


def walked_as(size: tuple[int, ...]) -> tuple[int, ...]:
    """Return the size as which stored points without an order are walked: rows unlike a tile's are cut to fill tiles."""
    count = math.prod(size)
    if size[-1] % COLUMNS == 0 and size[-2] >= ROWS or count == 0:
        return size
    width = next((w for w in (COLUMNS, 96, 64) if count % w == 0), count if size[-1] <= SHORT else size[-1])
    return (*(1 for _ in size[2:]), count // width, width)


def pieces(looks: int, tiles: int, nodes: int, pixels: int) -> int:
    """Return into how many pieces of tiles a look is divided, each with sums of all control points of its own.

    It depends on the shape alone, and sums are never larger than the output."""
    return max(1, min(-(-TASKS // max(looks, 1)), tiles, pixels // max(nodes, 1)))


class Region:
    """Arrays of float64 behind the words, one after another."""

    def __init__(self, end: int) -> None:
        self.end = end
        self.arrays: list[Any] = []

    def room(self, shape: tuple[int, ...]) -> Place:
        place = Place(self.end * WORD_BYTES, shape)
        self.end += math.prod(shape)
        return place

    def add(self, array: Any) -> Place:
        self.arrays.append(np.ascontiguousarray(array, np.float64).reshape(-1).view(np.int64))
        return self.room(array.shape)

    def words(self, words: list[int]) -> Any:
        """Return the words that no call changes, followed by room for the others."""
        return np.concatenate([np.array(words, np.int64), *self.arrays])


def slots(data: Record, call: Record) -> Slots:
    first = call.first | {name: AT_RULE + at for name, at in data.first.items()}
    grid = data.fields["grid"]
    read = next((first["grid"] + grid.first[name] for name in ("field", "nodes") if name in grid.first), first["given"])
    named = {name: first[name] for name in Slots._fields if name != "points"}
    return Slots(**named, points=read)


# ---- the plans that are kept ----

MOST = 512
_plans: dict[Hashable, Plan] = {}
_lock = threading.RLock()  # a destructor that the garbage collector runs in here may sample


def plan_of(rule: Rule, image: Tensor, data: Tensor, sampling: Sampling) -> Plan:
    """Return the plan of such a call. Reading a dictionary needs no lock; the oldest plan is removed first."""
    last = not image.is_contiguous() and is_channels_last(image)
    key = (
        type(rule), rule.key, image.shape, image.dtype, last, data.shape, data.dtype, sampling[0].name,
        sampling[0].tables.get("now"), sampling[1].code, sampling[2], torch.get_num_threads(), threads.SMALL, threads.forked,
    )  # fmt: skip
    found = _plans.get(key)
    if found is None:
        found = Plan(rule, image, data, sampling, last)
        with _lock:
            if len(_plans) >= MOST:
                del _plans[next(iter(_plans))]
            _plans[key] = found
    return found
