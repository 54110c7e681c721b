"""The cost of a training step with and without a spatial transformer, part by part.

    python -m stn.lab.studies.step_cost [--out results/step_cost] [--threads 2] [--rounds 21]

A step follows the recipe of Table 1: 256 digits are distorted, the network runs forward and backward (in bfloat16 if the
processor supports it), the gradient is clipped, AdamW updates the weights, and their running mean is updated. The digits
are those of scikit-learn; only their size matters here. Each round measures a whole step of both networks and then each
part alone, forward and backward together. The remainder is the whole step minus its parts: the loss, zeroing the gradients,
the learning rate, and cold caches, which are warm when a part is measured alone. The page has one section per processor; a
run replaces the section of its processor.
"""

from __future__ import annotations

import argparse
import dataclasses
import re
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median, quantiles
from typing import Any, TypeVar

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from stn.io.files import write_text
from stn.lab.data import load
from stn.lab.experiments.batches import training_batches
from stn.lab.experiments.folder import RunFolder
from stn.lab.experiments.machine import arithmetic, keep_memory, machine
from stn.lab.experiments.runs import Run
from stn.lab.experiments.train import Trainer
from stn.lab.tables import TABLES
from stn.nn import AbstractSpatialTransformer

K = TypeVar("K")


def trainer(run: Run) -> Trainer:
    precision: Any = arithmetic(run.precision, "cpu")
    fabric = Fabric(accelerator="cpu", devices=1, precision=precision)
    return Trainer(run, RunFolder(tempfile.mkdtemp()), fabric, load("digits"))


class Step:
    """Whole steps of one run, and their parts."""

    def __init__(self, run: Run) -> None:
        self.trainer = trainer(run)
        self.trainer.model.train()
        assert isinstance(self.trainer.network, nn.Sequential)
        self.network = self.trainer.network
        setting = {"batch_size": run.batch_size, "copies": 400, "seed": 0, "epoch": 0}
        self.batches = training_batches(self.trainer.data.train, self.trainer.task.draw, **setting)
        self.x, self.y, _ = next(self.batches)

    def __call__(self) -> None:
        self.trainer._step(next(self.batches))

    def parts(self) -> dict[str, Callable[[], object]]:
        parts: dict[str, Callable[[], object]] = {"distorting the digits": lambda: next(self.batches)}
        network, look, x = self.network, self.network[0], self.x
        if isinstance(look, AbstractSpatialTransformer):
            _, pool, classifier = network
            theta = look.localize(x).detach().requires_grad_()
            seen = look.family(theta).sample(x, look.size)
            pooled = pool(seen).detach().requires_grad_()
            parts["localization network"] = self._pass(look.localize, x)
            parts["sampling the look, 56x56"] = self._pass(lambda t: look.family(t).sample(x, look.size), theta)
            parts["pooling to 28x28"] = self._pass(pool, seen.detach().requires_grad_())
            parts["classifier, 28x28"] = self._pass(classifier, pooled)
        else:
            parts[f"classifier, {x.shape[2]}x{x.shape[2]}"] = self._pass(network, x)
        parts["clipping, AdamW, averaging"] = self._update
        return parts

    def _pass(self, module: nn.Module | Callable[[Tensor], Tensor], x: Tensor) -> Callable[[], object]:
        parameters = list(module.parameters()) if isinstance(module, nn.Module) else []
        if not parameters and not x.requires_grad:
            parameters = list(self.network[0].parameters())

        def run() -> object:
            with self.trainer.fabric.autocast():
                y = module(x)
            wanted = parameters + ([x] if x.requires_grad else [])
            return torch.autograd.grad(y, wanted, torch.ones_like(y))

        return run

    def _update(self) -> None:
        t = self.trainer
        t.fabric.clip_gradients(t.model, t.optimizer, max_norm=t.run.clip_norm, error_if_nonfinite=False)
        t.optimizer.step()
        t._follow()


def milliseconds(work: dict[K, Callable[[], object]], rounds: int) -> dict[K, list[float]]:
    """Return the times of all calls, which take turns in each round, after three calls as warm-up."""
    times: dict[K, list[float]] = {name: [] for name in work}
    for number in range(-3, rounds):
        for name, call in work.items():
            start = time.perf_counter()
            call()
            if number >= 0:
                times[name].append(1e3 * (time.perf_counter() - start))
    return times


def section(threads: int, rounds: int) -> str:
    """Measure, and return the section of this processor."""
    cells = {cell.name: cell.run for cell in TABLES["table1"].cells}
    local: dict[str, Any] = {"data": "digits", "batch_size": 256}
    runs = {"ST-CNN": cells["st-cnn-affine/rts"], "CNN": cells["cnn/rts"]}
    steps = {name: Step(dataclasses.replace(run, **local)) for name, run in runs.items()}
    parts = {(name, part): call for name, step in steps.items() for part, call in step.parts().items()}
    times = milliseconds({**{(name, "whole step"): step for name, step in steps.items()}, **parts}, rounds)
    whole = {name: median(times[name, "whole step"]) for name in steps}
    lines = [f"## {machine()}", ""]
    lines += [f"{threads} threads, {arithmetic('auto', 'cpu')}, torch {torch.__version__}.", ""]
    lines += [f"A step of the ST-CNN takes {whole['ST-CNN'] / whole['CNN']:.2f} times as long as one of the CNN (RTS).", ""]
    lines += ["| network | part | ms | interquartile range, ms | share |", "|---|---|---:|---:|---:|"]
    for name in steps:
        mine = {part: t for (of, part), t in times.items() if of == name}
        for part, t in mine.items():
            low, _, high = quantiles(t)
            lines.append(f"| {name} | {part} | {median(t):.1f} | {high - low:.1f} | {100 * median(t) / whole[name]:.0f} % |")
        rest = 2 * whole[name] - sum(map(median, mine.values()))
        lines.append(f"| {name} | remainder | {rest:.1f} | | {100 * rest / whole[name]:.0f} % |")
    return "\n".join(lines) + "\n"


def with_section(page: str, new: str) -> str:
    """Return the page with the section of a processor added or replaced."""
    title, *sections = re.split(r"^(?=## )", page, flags=re.MULTILINE)
    found = {old.splitlines()[0]: old.rstrip("\n") + "\n" for old in [*sections, new]}
    return "\n".join([f"# Cost of a training step\n\n{(__doc__ or '').rstrip()}\n", *found.values()])


def main(out: Path, threads: int, rounds: int) -> None:
    torch.set_num_threads(threads)
    keep_memory()
    new = section(threads, rounds)
    page = out.with_suffix(".md")
    write_text(page, with_section(page.read_text() if page.exists() else "", new))
    print(new)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/step_cost"), help="without its suffix")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=21)
    arguments = parser.parse_args()
    main(arguments.out, arguments.threads, arguments.rounds)
