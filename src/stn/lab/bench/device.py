"""Time on a CUDA device, by its own clock: between events, so that calls follow each other as they do in training."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

Call = Callable[[], Any]
WARM, BLOCK = 3, 0.02  # calls before any is measured (compilers compile now), and seconds that a measurement lasts at least
COPY = "device copy"


def times_on_device(calls: dict[str, Call], rounds: int) -> dict[str, list[float]]:
    """Seconds of a call of each contender, in turns."""
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
    """Of one call among so many, on the current device's current stream."""
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    for _ in range(count):
        call()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3 / count  # it answers in milliseconds


def copying(nbytes: int, device: str) -> Call:
    """Half of the bytes read, and as many written: as fast as memory allows."""
    source = torch.zeros(nbytes // 2, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return lambda: target.copy_(source)
