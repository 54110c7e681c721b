"""The cost of the sampling options, relative to plain bilinear sampling, and torch for comparison."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample, interpolate

from stn.lab.bench.cases import Case
from stn.ops import Pyramid, affine_sample

Row = dict[str, Any]
PLAIN = "plain bilinear"
OPTIONS: dict[str, dict[str, Any]] = {
    PLAIN: {},
    "antialias=True": {"antialias": True},
    'antialias="anisotropic"': {"antialias": "anisotropic"},
    'gradient="wide"': {"gradient": "wide"},
    "return_mask=True": {"return_mask": True},
    **{f'mode="{mode}"': {"mode": mode} for mode in ("nearest", "bicubic", "catmull_rom", "bspline", "lanczos3")},
}


def qualities(case: Case) -> dict[str, Callable[[], Any]]:
    """Return name -> call. Each call builds its pyramid, except the one with an existing pyramid."""
    calls = {name: call(case, options) for name, options in OPTIONS.items()}
    calls["antialias=True, existing pyramid"] = call(case, {"antialias": True}, at_hand=True)
    image, weight, theta = case.image(), case.weight(), case.theta()
    shape, needs = [*case.shape[:2], *case.size], case.inputs(image, theta)

    def bind(sample: Callable[[], Tensor], inputs: Sequence[Tensor]) -> Callable[[], Any]:
        return (lambda: torch.autograd.grad(sample(), inputs, weight)) if inputs else sample

    for mode in ("bilinear", "bicubic"):
        calls[f"torch {mode}"] = bind(partial(torchs, image, theta, shape, mode), needs)
    if case.task == "forward":  # it cannot rotate
        calls["torch interpolate, antialias=True"] = lambda: interpolate(
            image, size=case.size, mode="bilinear", antialias=True
        )
    return calls


def torchs(image: Tensor, theta: Tensor, shape: list[int], mode: str) -> Tensor:
    return grid_sample(image, affine_grid(theta, shape, align_corners=False), mode, align_corners=False)


def call(case: Case, options: dict[str, Any], *, at_hand: bool = False) -> Callable[[], Any]:
    image, weight, theta = case.image(), case.weight(), case.theta()
    needs = case.inputs(image, theta)
    if at_hand:
        if case.task == "both":  # its gradient goes through the pyramid, which then is part of the call
            return call(case, options)
        options = {**options, "pyramid": Pyramid(image)}

    def sample() -> Any:
        out = affine_sample(image, theta, case.size, **options)
        return out[0] if options.get("return_mask") else out

    return (lambda: torch.autograd.grad(sample(), needs, weight)) if needs else sample


def prices(rows: Sequence[Row]) -> Iterator[str]:
    """Yield the lines of a table: milliseconds, and the ratio to plain sampling."""
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    times = {(row["contender"], row["task"]): row["median_ms"] for row in rows}
    yield f"| {rows[0]['case']} | {' | '.join(f'{task}, ms | relative to plain' for task in tasks)} |"
    yield "|---|" + "---:|---:|" * len(tasks)
    for name in dict.fromkeys(row["contender"] for row in rows):
        cells = [
            f"{times[name, task]:.2f} | {times[name, task] / times[PLAIN, task]:.2f}" if (name, task) in times else " | "
            for task in tasks
        ]
        yield f"| {name} | {' | '.join(cells)} |"
