"""Time on a CUDA device, between events, so that calls follow each other as in training."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

Call = Callable[[], Any]
WARM, BLOCK = 3, 0.02  # warm-up calls (compilers compile now), and the least seconds of a measurement
COPY, HOST_COPY = "device copy", "copy"


def times_on_device(calls: dict[str, Call], rounds: int) -> dict[str, list[float]]:
    """Return the seconds of a call of each contender, measured in turns."""
    numbers = {name: repeats(call) for name, call in calls.items()}
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            times[name].append(seconds(call, numbers[name]))
    return times


def repeats(call: Call) -> int:
    for _ in range(WARM):
        call()
    return max(1, math.ceil(BLOCK / max(seconds(call, 1), 1e-6)))


def seconds(call: Call, count: int) -> float:
    """Return the mean seconds of a call, on the current stream."""
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    for _ in range(count):
        call()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3 / count  # elapsed_time is in milliseconds


def copying(nbytes: int, device: str) -> Call:
    """Copy memory: half of the bytes are read, half are written."""
    source = torch.zeros(nbytes // 2, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return lambda: target.copy_(source)
