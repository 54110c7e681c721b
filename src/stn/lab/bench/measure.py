"""Interleaved rounds: the contenders of a case take turns, so that a slow minute of the machine affects all of them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils.benchmark import Timer

from stn.lab.bench import attention
from stn.lab.bench.cases import Case, traffic
from stn.lab.bench.contenders import contenders, ours, torch_eager
from stn.lab.bench.device import COPY, HOST_COPY, copying, times_on_device
from stn.lab.bench.quality import qualities

BLOCK = 0.01  # least seconds of a measurement
Row = dict[str, Any]


def calls_of(case: Case) -> dict[str, Callable[[], Any]]:
    if case.suite == "attention":
        return attention.calls(case.shape, case.task)
    return qualities(case) if case.suite == "quality" else contenders(case)


def measure_on_device(case: Case, rounds: int) -> list[Row]:
    """Measure on a device, beside a copy of as many bytes as the call must move. The host uses one thread."""
    bytes_moved = traffic(case)
    calls = calls_of(case) | {COPY: copying(bytes_moved, case.device)}
    rows = []
    for name, times in times_on_device(calls, rounds).items():
        row = {**describe(case), "contender": name, "threads": 1, "device": case.device, **summary(times)}
        rows.append(row | {"gigabytes_per_second": bytes_moved / row["median_ms"] / 1e6})
    return rows


def measure_case(case: Case, threads: int, rounds: int) -> list[Row]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        calls = calls_of(case)
        if case.suite not in ("quality", "attention"):  # whose pyramids and maps move more
            calls[HOST_COPY] = copying(traffic(case), case.device)
        timers = {name: Timer("call()", globals={"call": call}, num_threads=threads) for name, call in calls.items()}
        numbers = {name: repeats(timer) for name, timer in timers.items()}
        times: dict[str, list[float]] = {name: [] for name in calls}
        for _ in range(rounds):
            for name, timer in timers.items():
                times[name].append(timer.timeit(numbers[name]).median)
    finally:
        torch.set_num_threads(before)
    rows = [{**describe(case), "contender": name, "threads": threads, **summary(times[name])} for name in calls]
    return [row | ({"bytes": traffic(case)} if HOST_COPY in calls else {}) for row in rows]


def repeats(timer: Timer) -> int:
    """Warm up (compilers compile now), then return how many calls fill a block."""
    timer.timeit(2)
    return max(1, math.ceil(BLOCK / timer.timeit(1).median))


def describe(case: Case) -> Row:
    return {"suite": case.suite, "case": case.name, "task": case.task}


def summary(times: Sequence[float]) -> Row:
    low, middle, high = statistics.quantiles(times, n=4)
    return {"median_ms": 1e3 * middle, "spread_ms": 1e3 * (high - low), "rounds": len(times)}


def accuracy(case: Case) -> Row:
    """Measure errors against our result in float64, which the tests compare with the reference: absolute errors of the
    value (white noise), relative errors of theta's gradient."""

    def run(operator: Any, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        theta = case.theta().to(dtype).requires_grad_()
        out = operator(case.image().to(dtype), theta)
        return out.detach().double(), torch.autograd.grad(out, theta, case.weight().to(dtype))[0].double()

    value, gradient = run(ours(case), torch.float64)
    row: Row = {**describe(case), "task": "accuracy"}
    for name, operator in (("stn", ours(case)), ("torch", torch_eager(case))):
        out, found = run(operator, torch.float32)
        row[f"{name}_value"] = float((out - value).abs().max())
        row[f"{name}_gradient"] = float((found - gradient).abs().max() / gradient.abs().max())
    return row
