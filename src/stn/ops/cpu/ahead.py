"""Compilation ahead of time, in several processes: `stn warm-up`."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from typing import NamedTuple

import torch

from stn.ops.averaging import averaging
from stn.ops.cpu import threads
from stn.ops.cpu.axis_taps import PADDED
from stn.ops.cpu.compiling import counts
from stn.ops.cpu.kernels import BODIES, axis_at, kernel_at, points_at, reduction_at, stage_at, taps_at
from stn.ops.cpu.numbers import GRIDS, STAGES
from stn.ops.cpu.plan import NAMES
from stn.ops.cpu.prefilter import coefficients, filtered
from stn.ops.cpu.pyramid import average_axes
from stn.ops.padding import BORDER, PADDINGS, REFLECTION, WRAP

SINGLE, DOUBLE = torch.float32, torch.float64
BILINEAR = 2  # the first two of each of BODIES: planes, channels last
TASKS = ("forward", "coordinates", "image")
SMALL = tuple(f"framed {task}" for task in TASKS)  # of small images: planes
BYTES, INTEGERS = range(6), ("u1", "u2", "u4", "u8")  # the bodies of "forward" for bytes; sizes of labels


class Job(NamedTuple):
    """A function of this module by name, with arguments: what another process can be told."""

    function: str
    arguments: tuple[object, ...]


class Outcome(NamedTuple):
    """The numbers of functions that a job compiled, and that it found on disk."""

    name: str
    compiled: int
    found: int
    seconds: float


# ---- what can be compiled ----


def kernel(task: str, index: int, ndim: int, nearest: bool, real: torch.dtype, stored: str = "") -> str:
    """stored: the integers of the image, if it is not `real`."""
    body = BODIES[task][index]
    kernel_at(body, ndim, nearest, NAMES[real], stored or NAMES[real])
    return f"{body.py_func.__name__}, {_kind(ndim, nearest)}, {_types(real, real)}{f', integers {stored}' if stored else ''}"


def taps(ndim: int, nearest: bool, real: torch.dtype, framed: bool = False) -> str:
    taps_at(ndim, nearest, NAMES[real], framed)
    return f"taps of a tile, {_kind(ndim, nearest)}{', framed' if framed else ''}, {_types(real, real)}"


def points(kind: str, ndim: int, number: torch.dtype) -> str:
    points_at(kind, ndim, NAMES[number])
    return f"points, {kind}, {ndim}-D, {_types(number, number)}"


def reduction(kind: str, ndim: int, number: torch.dtype, real: torch.dtype) -> str:
    reduction_at(kind, ndim, NAMES[number], NAMES[real])
    return f"gradient of a tile, {kind}, {ndim}-D, {_types(real, number)}"


def axis(padding: int, real: torch.dtype) -> str:
    axis_at(padding, NAMES[real])
    return f"taps by an image that is {PADDED[padding].py_func.__name__}, {_types(real, real)}"


def stages(kind: str, number: torch.dtype) -> str:
    for after in (False, True):
        stage_at(after, kind, NAMES[number])
    return f"numbers and gradient, {kind}, {_types(number, number)}"


def drive(parallel: bool) -> str:
    """The loop that calls kernels. Of no chunks: nothing runs."""
    with _threads(parallel):
        threads.run(1 + parallel, threads.drive, 0, 0, 0, torch.zeros(1, dtype=torch.int64).numpy(), 0)
    return f"loop over chunks, {_layout(parallel)}"


def pyramid(ndim: int, real: torch.dtype, parallel: bool) -> str:
    """Levels of anti-aliasing and of registration."""
    with _threads(parallel):
        image, how = _image(ndim, real, parallel), averaging(False, "zeros")
        average_axes(image, tuple(image.shape[2:]), how, False)
    return f"pyramid, {ndim}-D, {_types(real, real)}, {_layout(parallel)}"


def bspline(real: torch.dtype, parallel: bool) -> str:
    with _threads(parallel):
        image, padding = _image(2, real, parallel), PADDINGS["border"]
        found = coefficients(image, False, padding, None, False)
        filtered(found, False, padding, False, tuple(image.shape[2:]), True)
    return f"prefilter, {_types(real, real)}, {_layout(parallel)}"


PARTS = kernel, taps, axis, points, reduction, stages, drive, pyramid, bspline
FUNCTIONS: dict[str, Callable[..., str]] = {f.__name__: f for f in PARTS}


@contextmanager
def _threads(parallel: bool) -> Iterator[None]:
    """Set one thread of torch for serial kernels, two for parallel ones."""
    before = torch.get_num_threads()
    torch.set_num_threads(1 + parallel)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _image(ndim: int, real: torch.dtype, parallel: bool) -> torch.Tensor:
    """Return an image that is just large enough for several threads, or a small one."""
    return torch.zeros(1, 1, *(8,) * (ndim - 1), threads.SMALL // 8 ** (ndim - 1) if parallel else 8, dtype=real)


def _types(real: torch.dtype, number: torch.dtype) -> str:
    names = [str(dtype).removeprefix("torch.") for dtype in (real, number)]
    return names[0] if real is number else f"image {names[0]}, data {names[1]}"


def _kind(ndim: int, nearest: bool) -> str:
    return f"{ndim}-D{', nearest' if nearest else ''}"


def _layout(parallel: bool) -> str:
    return "parallel" if parallel else "serial"


# ---- lists of jobs ----


def usual() -> list[Job]:
    """List the kernels of layers and `register`: all coordinate rules, bilinear, float32, planes and channels last.

    Coefficients of thin plates have float64, and a matrix of float64 enlarges the field of `Displacement`.
    """
    both = 2, 3
    kernels = [
        Job("kernel", (task, i, ndim, False, SINGLE)) for task, i, ndim in itertools.product(TASKS, range(BILINEAR), both)
    ]
    kernels += [Job("kernel", (task, 0, ndim, False, SINGLE)) for task, ndim in itertools.product(SMALL, both)]
    found = [Job("taps", (ndim, False, SINGLE, framed)) for ndim, framed in itertools.product(both, (False, True))]
    rules = [*((kind, DOUBLE if kind == "basis" else SINGLE) for kind in GRIDS), ("affine", DOUBLE)]
    for (kind, number), ndim in itertools.product(rules, both):
        found += [Job("points", (kind, ndim, number)), Job("reduction", (kind, ndim, number, SINGLE))]
    numbers = [Job("stages", rule) for rule in rules if rule[0] in STAGES]
    levels = [Job("pyramid", (ndim, SINGLE, parallel)) for ndim in both for parallel in _parallel()]
    axes = [Job("axis", (padding, SINGLE)) for padding in (BORDER, REFLECTION, WRAP)]  # zeros have the code of the border
    return [*kernels, *found, *axes, *numbers, *levels, *(Job("drive", (parallel,)) for parallel in _parallel())]


def everything() -> list[Job]:
    """Every kind of points, interpolation, precision and layout."""
    both, dimensions = (SINGLE, DOUBLE), (2, 3)
    kernels = [
        Job("kernel", (task, i, ndim, False, real))
        for task in (*TASKS, *SMALL)
        for i, ndim, real in itertools.product(range(len(BODIES[task])), dimensions, both)
    ]
    for ndim, i in itertools.product(dimensions, range(BILINEAR)):
        kernels += [
            Job("kernel", (task, i, ndim, True, real)) for task, real in itertools.product(("forward", "image"), both)
        ]
        kernels += [Job("kernel", ("labels", i, ndim, True, SINGLE, stored)) for stored in INTEGERS]
    kernels += [Job("kernel", ("forward", i, ndim, False, SINGLE, "u1")) for i, ndim in itertools.product(BYTES, dimensions)]
    parts = [Job("taps", how) for how in itertools.product(dimensions, (False, True), both)]
    parts += [Job("taps", (ndim, False, real, True)) for ndim, real in itertools.product(dimensions, both)]
    parts += [Job("points", how) for how in itertools.product(GRIDS, dimensions, both)]
    parts += [Job("reduction", how) for how in itertools.product(GRIDS, dimensions, both, both)]
    numbers = [Job("stages", pair) for pair in itertools.product(STAGES, both)]
    levels = [Job("pyramid", how) for how in itertools.product((2, 3), both, _parallel())]
    filters = [Job("bspline", how) for how in itertools.product(both, _parallel())]
    axes = [Job("axis", (padding, real)) for padding, real in itertools.product((BORDER, REFLECTION, WRAP), both)]
    found = [*kernels, *parts, *axes, *numbers, *levels, *filters]
    return [*found, *(Job("drive", (parallel,)) for parallel in _parallel())]


def _parallel() -> Sequence[bool]:
    """Return the kinds of kernels, serial and parallel. With one thread of Numba there are only serial ones."""
    most: int = threads.numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]  # set when Numba reads its environment
    return (False, True) if most > 1 else (False,)


# ---- compilation ----


def perform(job: Job) -> Outcome:
    before, start = counts(), time.perf_counter()
    name = FUNCTIONS[job.function](*job.arguments)
    after, seconds = counts(), time.perf_counter() - start
    return Outcome(name, after.compiled - before.compiled, after.found - before.found, seconds)


def compile_ahead(jobs: Sequence[Job], workers: int | None = None) -> Iterator[Outcome]:
    """Perform jobs in new processes, by default as many as there are cores; yields in the order of completion."""
    count = min(workers or cores(), len(jobs))
    with ProcessPoolExecutor(count, multiprocessing.get_context("spawn"), initializer=_quiet) as pool:
        for done in as_completed([pool.submit(perform, job) for job in jobs]):
            yield done.result()


def cores() -> int:
    """Return the number of cores that this process may use."""
    usable = getattr(os, "sched_getaffinity", None)  # not on macOS and Windows
    return len(usable(0)) if usable else os.cpu_count() or 1


def _quiet() -> None:
    os.environ["STN_QUIET"] = "1"  # the command itself prints a line for each job
