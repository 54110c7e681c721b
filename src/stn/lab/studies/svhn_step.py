"""The cost of spatial transformers in a training step of the network for house numbers.

    python -m stn.lab.studies.svhn_step [--out benchmarks/results/svhn_step] [--threads 2] [--rounds 41]

A step is the forward and backward pass of the sequence loss in float32 and channels-last memory, by default on 32 images
of 64x64 pixels. The images are noise, because only sizes matter here. The looks are near the identity, as in training. The
networks of Jaderberg et al. 2015, section 4.2, take turns in one process; their order is reversed in each round. The
overhead is the median over rounds of the ratio to the network without a transformer in the same round, minus one.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stn.io.files import write_rows
from stn.lab.experiments.machine import machine
from stn.lab.networks import SVHN_MODELS, build_svhn, num_parameters
from stn.models.blocks import channels_last
from stn.nn import AbstractSpatialTransformer

WARM_UP = 3  # rounds


class Step:
    """Forward and backward of one network."""

    def __init__(self, model: str, side: int, batch: int) -> None:
        torch.manual_seed(0)
        self.network = build_svhn(model, side)
        for layer in self.network.modules():
            if isinstance(layer, AbstractSpatialTransformer):  # at the exact identity theta may have no gradient
                nn.init.normal_(layer.regression.weight, std=1e-2)
        channels_last(self.network)
        self.x = torch.rand(batch, 3, side, side).contiguous(memory_format=torch.channels_last)
        self.y = torch.randint(11, (batch, 5))

    def __call__(self) -> None:
        self.network.zero_grad(set_to_none=True)
        logits: Tensor = self.network(self.x)
        F.cross_entropy(logits.transpose(1, 2), self.y).backward()


def measured(steps: dict[str, Step], rounds: int) -> dict[str, list[float]]:
    """Return the milliseconds of each step in each round."""
    times: dict[str, list[float]] = {model: [] for model in steps}
    for number in range(-WARM_UP, rounds):
        for model in list(steps) if number % 2 else reversed(list(steps)):
            start = time.perf_counter()
            steps[model]()
            if number >= 0:
                times[model].append(1e3 * (time.perf_counter() - start))
    return times


def row(model: str, step: Step, times: dict[str, list[float]]) -> dict[str, Any]:
    """Return quartiles of the time, and of its ratio to the time of the CNN in the same round."""
    low, middle, high = quantiles(times[model])
    ratios = [a / b for a, b in zip(times[model], times["cnn"], strict=True)]
    best, _, worst = quantiles(ratios)
    return {
        "model": model,
        "parameters": num_parameters(step.network),
        "ms": middle,
        "ms_apart": high - low,
        "ratio": median(ratios),
        "ratio_low": best,
        "ratio_high": worst,
        "rounds": len(ratios),
    }


def table(rows: list[dict[str, Any]], title: str) -> str:
    lines = [f"## {title}", "", __doc__ or "", ""]
    lines += ["| network | parameters | ms | interquartile range, ms | overhead | quartiles of the overhead, % |"]
    lines += ["|---|---:|---:|---:|---:|---:|"]
    for r in rows:
        more = f"{100 * (r['ratio'] - 1):+.1f} % | {100 * (r['ratio_low'] - 1):+.1f} to {100 * (r['ratio_high'] - 1):+.1f}"
        lines.append(f"| {r['model']} | {r['parameters'] / 1e6:.1f} M | {r['ms']:.0f} | {r['ms_apart']:.0f} | {more} |")
    return "\n".join(lines) + "\n"


def main(out: Path, threads: int, rounds: int, side: int, batch: int) -> None:
    torch.set_num_threads(threads)
    steps = {model: Step(model, side, batch) for model in SVHN_MODELS}
    times = measured(steps, rounds)
    rows = [row(model, step, times) for model, step in steps.items()]
    setting = {"side": side, "batch": batch, "threads": threads, "machine": machine(), "torch": torch.__version__}
    title = f"A step of {batch} images of {side} pixels, {threads} threads, {machine()}, torch {torch.__version__}"
    text = table(rows, title)
    write_rows(out, [setting | r for r in rows], text)
    print(text)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/svhn_step"), help="without its suffix")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=41)
    parser.add_argument("--side", type=int, default=64, help="pixels, a multiple of 16")
    parser.add_argument("--batch", type=int, default=32)
    arguments = parser.parse_args()
    main(arguments.out, arguments.threads, arguments.rounds, arguments.side, arguments.batch)
