"""Running a kernel on as many threads as torch has, if its work is worth them."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numba
import torch
from numba import prange

from stn.ops.cpu.compiling import compiled
from stn.ops.cpu.words import call_at

# Pixels times channels of an affine map below which a second thread costs more than it brings: forward, 224x224 0.87 times
# as fast with it, 3x224x224 1.49 times.
SMALL = 1 << 16
CHUNKS = 4  # pieces of work a thread

# OpenMP does not survive a fork: a child, such as a DataLoader's worker, uses the serial twin of a kernel.
forked = False


def _mark_forked() -> None:
    global forked
    forked = True


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_mark_forked)


def thread_count(work: int) -> int:
    most: int = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]  # set when Numba reads its environment
    return 1 if forked or work < SMALL else min(torch.get_num_threads(), most)


def chunk_count(threads: int) -> int:
    return CHUNKS * threads if threads > 1 else 1


def drive(before, kernel, after, words, chunks):  # type: ignore[no-untyped-def]  # Numba types it
    """Call the kernel at an address chunk by chunk: one parallel loop for all kernels, compiled once. `before` and `after`
    are what its rule does on either side of it, or 0."""
    if before != 0:
        call_at(before, words.ctypes.data, 0, 1)
    for chunk in prange(chunks):
        call_at(kernel, words.ctypes.data, chunk, chunk + 1)
    if after != 0:
        call_at(after, words.ctypes.data, 0, 1)


serial = compiled(drive, False)


def run(threads: int, kernel: Any, *arguments: Any) -> None:
    """Run the kernel, then restore the number of threads that the caller's own use of Numba has set."""
    if threads == 1:
        compiled(kernel, False)(*arguments)
        return
    with _parallel_turn() as may_run_parallel:
        if not may_run_parallel:
            compiled(kernel, False)(*arguments)
            return
        before = numba.get_num_threads()
        numba.set_num_threads(threads)
        try:
            compiled(kernel, True)(*arguments)
        finally:
            numba.set_num_threads(before)


SHARED = ("omp", "tbb")  # Numba's layers that two Python threads may use at once: "workqueue" aborts the process then
_parallel_lock = threading.Lock()


@contextmanager
def _parallel_turn() -> Iterator[bool]:
    """Yield whether this thread may run a parallel kernel now. If not, the serial twin gives the same result bit for bit."""
    if _layer() in SHARED:
        yield True
    elif _parallel_lock.acquire(blocking=False):
        try:
            yield True
        finally:
            _parallel_lock.release()
    else:
        yield False


def _layer() -> str | None:
    """Numba's layer, or None before the first parallel call, which chooses it: no other thread may run one meanwhile."""
    try:
        return str(numba.threading_layer())
    except ValueError:
        return None
