"""Evaluate a network on batches, or a finished run on new draws of its test set."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor, nn

from stn import _check
from stn.lab import _check as lab_check
from stn.lab.data import load
from stn.lab.experiments.batches import TEST, Batches, evaluation_batches, generator
from stn.lab.experiments.folder import Row, RunFolder
from stn.lab.experiments.tasks import TASKS, Task
from stn.lab.experiments.watch import Watch


def scores(model: nn.Module, task: Task, batches: Batches, watch: Watch | None = None) -> Row:
    """Return loss, error_percent, images_per_second and the diagnostics of the watch, over all batches and processes."""
    from torchmetrics import MeanMetric  # from the extra `train`, which an export does not need

    start = time.perf_counter()
    device = next(model.parameters()).device
    means: dict[str, MeanMetric] = defaultdict(lambda: MeanMetric().to(device))
    count = 0
    model.eval()
    with torch.inference_mode():
        for example in batches:
            logits, y = model(example.x).float(), example.y
            measured = {"loss": task.loss(logits, y), "error_percent": 100 * task.wrong(logits, y).float().mean()}
            if watch:
                measured |= watch.diagnostics()
                if task.found and example.boxes is not None:
                    measured |= task.found(watch.warps()[0], example.boxes)
            for name, value in measured.items():
                means[name].update(value, weight=len(y))
            count += len(y)
    row = {name: mean.compute().item() for name, mean in means.items()}
    return row | {"images_per_second": round(count / (time.perf_counter() - start), 1)}


def trained_network(folder: RunFolder) -> nn.Module:
    """Return the network of a run with the evaluated weights of its last checkpoint, in evaluation mode.

    Raises: InputError if the folder is not that of a run, or has no checkpoint, or one of another network.
    """
    run, state = folder.run(), folder.load()
    if state is None:
        _check.fail(f"the run folder must hold a checkpoint; {folder.path} has not completed an epoch")
    network = TASKS[run.distortion].build(run.model, run.transform)
    with folder.fitting():
        network.load_state_dict(state["evaluated"])
    return network.eval()


def example_images(folder: RunFolder, count: int = 2) -> Tensor:
    """Return example inputs of the network of a run, (N, C, ..); noise for tasks with photographs. Reads no data."""
    task, noise = TASKS[folder.run().distortion], generator(0, TEST)
    pictures = torch.rand(count, *task.shape, generator=noise)
    return task.evaluated(pictures, torch.zeros(count, dtype=torch.int64), noise).x


def mistakes(folder: RunFolder, *, root: Path | None = None) -> Row:
    """Return the errors of the network of a run on the first draw of its test set, one by one.

    mistakes: [place in the test set, class, class read] of each. class_sizes: the number of test images of each class.
    """
    run, network = folder.run(), trained_network(folder)
    test, task = load(run.data, root or run.root).test, TASKS[run.distortion]
    with torch.inference_mode():
        batches = evaluation_batches(test, task.evaluated, seed=0, stream=TEST)
        read = torch.cat([task.read(network(example.x)) for example in batches])
    places = (read != test.labels).nonzero().flatten()
    found = torch.stack([places, test.labels[places], read[places]], dim=1).tolist()
    return {"mistakes": found, "class_sizes": test.labels.bincount(minlength=len(task.names)).tolist()}


def evaluate(
    folder: RunFolder,
    *,
    draws: int = 3,
    device: torch.device | str = "cpu",
    root: Path | None = None,  # folder of the data, if it has moved
    download: bool = False,
) -> list[Row]:
    """Return test rows, one per draw of the distortions. The first ones are equal to those of the training."""
    _check.at_least("draws", draws, 1)
    lab_check.device("device", str(device))
    run, network = folder.run(), trained_network(folder).to(device)
    test, task = load(run.data, root or run.root, download=download).test.to(device), TASKS[run.distortion]
    watch = Watch(network)
    rows = []
    for draw in range(draws):
        batches = evaluation_batches(test, task.evaluated, seed=0, stream=TEST, number=draw)
        rows.append({"split": "test", "draw": draw} | scores(network, task, batches, watch))
    return rows


def mean_and_spread(rows: Iterable[Row], key: str = "error_percent") -> tuple[float, float]:
    """Return the mean and the sample standard deviation over the test rows."""
    values = torch.tensor([row[key] for row in rows if row["split"] == "test"], dtype=torch.float64)
    return values.mean().item(), values.std().item() if len(values) > 1 else 0.0
