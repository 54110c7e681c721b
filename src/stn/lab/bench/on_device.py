"""The suites of `stn bench --device cuda --suites all`, each of which runs in a process of its own:

    python -m stn.lab.bench.on_device SUITE [--device cuda] [--rounds 7] [--trial]

It prints one row of JSON per line. An error becomes a row, and the next case follows.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch

from stn.lab.bench.cases import SUITES, Case, quick, traffic
from stn.lab.bench.contenders import bind, ours, torch_compiled, torch_eager
from stn.lab.bench.costs import run as in_process
from stn.lab.bench.device import COPY, copying, times_on_device
from stn.lab.bench.measure import Row, describe, summary
from stn.lab.networks import build

IN_ORDER = "stn, deterministic"
LARGE = ((16, 3, 512, 512), (8, 16, 512, 512), (4, 64, 512, 512), (4, 3, 2048, 2048))
CASES: dict[str, tuple[Case, ...]] = {
    "affine": SUITES["affine"],
    "small": SUITES["small"],
    "bandwidth": tuple(Case("bandwidth", shape, channels_last=last) for last in (False, True) for shape in LARGE),
    "deterministic": tuple(Case("deterministic", shape, "both") for shape in ((64, 1, 28, 28), (8, 64, 56, 56), LARGE[0])),
    "float16": tuple(Case("float16", shape, dtype=torch.float16) for shape in ((256, 1, 42, 42), (32, 3, 224, 224))),
    "grids": SUITES["grids"],
    "channels_last": SUITES["channels_last"],
    "thin_plate": SUITES["thin_plate"],
    "families": SUITES["families"],
    "compiled": tuple(replace(case, suite="compiled") for case in SUITES["affine"] if case.task != "theta"),
}
FIRST_USE = """
import json, sys, time, torch
torch.zeros(1, device=sys.argv[1])
start = time.perf_counter()
import stn
image, theta = (t.to(sys.argv[1]).requires_grad_() for t in (torch.rand(4, 3, 64, 64), torch.eye(2, 3)))
out = stn.affine_sample(image, theta); out.sum().backward(); theta.grad.sum().item()
print(json.dumps({"seconds": time.perf_counter() - start}))
"""
STEPS = ("st-cnn", "cnn")


def suites() -> tuple[str, ...]:
    """Return the suites, the most important first, in case that time runs out."""
    first = ("copy", "affine", "small", "bandwidth", "deterministic", "float16", "step", "first use")
    return (*first, *(name for name in CASES if name not in first))


def names(suite: str) -> list[Row]:
    """Return case and task of each row of a suite, before it runs."""
    if suite in CASES:
        return [describe(case) for case in CASES[suite]]
    found = {"copy": [f"{2**n} bytes" for n in COPIES], "step": [f"{name}, 256x1x42x42" for name in STEPS]}
    return [{"suite": suite, "case": name, "task": suite} for name in found.get(suite, ["affine_sample, both"])]


COPIES = range(16, 31, 2)  # powers of two


def contenders(case: Case) -> dict[str, Callable[[], Any]]:
    """Return name -> call; the first is stn. torch.compile takes most of the time, so it has a suite of its own."""
    found = {"stn": bind(case, operator)} if (operator := ours(case)) else {}
    if case.suite == "deterministic":
        return found | {IN_ORDER: in_order(found["stn"])}
    rival = torch_compiled(case) if case.suite == "compiled" else torch_eager(case)
    name = "torch.compile" if case.suite == "compiled" else "torch"
    return found | ({name: bind(case, rival)} if rival else {}) | {COPY: copying(traffic(case), case.device)}


def in_order(call: Callable[[], Any]) -> Callable[[], Any]:
    def run() -> Any:
        torch.use_deterministic_algorithms(True)
        try:
            return call()
        finally:
            torch.use_deterministic_algorithms(False)

    return run


def timed(place: Row, calls: dict[str, Callable[[], Any]], rounds: int, device: str, moved: int = 0) -> Iterator[Row]:
    """Yield a row for each contender that runs, and one with the error of each that does not."""
    kept = {}
    for name, call in calls.items():
        try:
            call()
            kept[name] = call
        except Exception as error:
            yield {**place, "contender": name, **failure(error)}
    for name, times in times_on_device(kept, rounds).items():
        row = {**place, "contender": name, "threads": 1, "device": device, **summary(times)}
        yield row | ({"gigabytes_per_second": moved / row["median_ms"] / 1e6} if moved else {})


def failure(error: BaseException) -> Row:
    lines = str(error).strip().splitlines()
    return {"error": f"{type(error).__name__}: {lines[0] if lines else ''}"[:200]}


def measured(case: Case, rounds: int) -> Iterator[Row]:
    if case.suite == "float16":
        yield {**describe(case), **units_in_the_last_place(case)}
    else:
        yield from timed(describe(case), contenders(case), rounds, case.device, traffic(case))


def units_in_the_last_place(case: Case) -> Row:
    """Return the largest error of a half-precision result, in units in the last place of the exact result."""
    image, theta = case.image().to(case.dtype), case.theta()
    operator = ours(case)
    assert operator is not None
    exact = operator(image.double(), theta.double())
    _, exponent = torch.frexp(exact)
    least = torch.finfo(case.dtype).smallest_normal
    unit = torch.finfo(case.dtype).eps * torch.ldexp(torch.ones_like(exact), exponent - 1).clamp_min(least)
    return {"units": float(((operator(image, theta).double() - exact).abs() / unit).max())}


def step(name: str, rounds: int, device: str, batch: int) -> Iterator[Row]:
    """Forward and backward of a network of Table 1, in float32."""
    torch.manual_seed(0)
    network, x = build(name, 42).to(device), torch.rand(batch, 1, 42, 42, device=device)

    def run() -> None:
        network.zero_grad(set_to_none=True)
        network(x).square().mean().backward()

    yield from timed({"suite": "step", "case": f"{name}, {batch}x1x42x42", "task": "step"}, {"stn": run}, rounds, device)


def first_use(device: str) -> Row:
    with tempfile.TemporaryDirectory() as cache:
        empty, full = (in_process(FIRST_USE, device, triton_cache=cache)["seconds"] for _ in range(2))
    return {**names("first use")[0], "empty_s": empty, "full_s": full}


def rows(suite: str, device: str, rounds: int, trial: bool) -> Iterator[Row]:
    if suite == "copy":
        for place, power in zip(names(suite), COPIES, strict=True):
            yield from timed(place, {COPY: copying(2**power, device)}, rounds, device, 2**power)
    elif suite == "step":
        for name in STEPS:
            yield from step(name, rounds, device, 8 if trial else 256)
    elif suite == "first use":
        yield first_use(device)
    else:
        for case in CASES[suite]:
            case = replace(quick(case) if trial else case, device=device)
            try:
                yield from measured(case, rounds)
            except Exception as error:
                yield {**describe(case), **failure(error)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suite", choices=suites())
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--trial", action="store_true")
    arguments = parser.parse_args()
    for found in rows(arguments.suite, arguments.device, arguments.rounds, arguments.trial):
        print(json.dumps(found), flush=True)
