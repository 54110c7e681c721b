"""`stn warm-up`."""

from __future__ import annotations

import time
from typing import Annotated

import tyro


def warm_up(
    all: Annotated[bool, tyro.conf.arg(help_behavior_hint="")] = False,
    workers: Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="(default: number of cores)")] = None,
) -> None:
    """Compile the CPU kernels ahead of time, so that no first call has to wait, for example in a container image.

    The kernels are stored in Numba's cache. A second run compiles nothing.

    Args:
        all: Compile every kernel: all interpolations, float32 and float64. Otherwise compile those that a layer and
            `stn register` use with bilinear sampling in float32: affine, projective and thin-plate transforms and fields.
        workers: Number of processes. Each needs about 0.5 GB of memory.
    """
    from stn import _check
    from stn.ops.cpu.ahead import compile_ahead, everything, usual

    if workers is not None:
        _check.at_least("workers", workers, 1)
    start, compiled, found = time.perf_counter(), 0, 0
    for outcome in compile_ahead(everything() if all else usual(), workers):
        compiled, found = compiled + outcome.compiled, found + outcome.found
        if outcome.compiled:
            print(f"{outcome.name}: {outcome.seconds:.1f} s", flush=True)
    seconds = time.perf_counter() - start
    if compiled:
        print(f"compiled {compiled} functions in {seconds:.1f} s, and found {found} on disk")
    else:
        print(f"nothing to compile: all {found} functions are on disk ({seconds:.1f} s)")
