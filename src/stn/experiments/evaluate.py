"""Measure a network: on batches, or a finished run on fresh draws of its test set."""

from __future__ import annotations

import time
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import MeanMetric

from stn import _check
from stn.data import DISTORTIONS, load
from stn.experiments.batches import TEST, evaluation_batches
from stn.experiments.folder import Row, RunFolder
from stn.models import build


def scores(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> Row:
    """loss, error_percent and images_per_second over all batches, and over all processes of a parallel run."""
    start = time.perf_counter()
    device = next(model.parameters()).device
    loss, error, count = MeanMetric().to(device), MeanMetric().to(device), 0
    model.eval()
    with torch.inference_mode():
        for x, y in batches:
            logits = model(x).float()
            loss.update(F.cross_entropy(logits, y), weight=len(y))
            error.update((logits.argmax(dim=1) != y).float())
            count += len(y)
    measured = {"loss": loss.compute().item(), "error_percent": 100 * error.compute().item()}
    return measured | {"images_per_second": round(count / (time.perf_counter() - start), 1)}


def trained_network(folder: RunFolder) -> nn.Sequential:
    """The network of a run with the weights of its last checkpoint, in evaluation mode.

    Raises: InputError if the folder is not that of a run, or holds no checkpoint yet.
    """
    run, state = folder.run(), folder.load()
    if state is None:
        _check.fail(f"the run folder must hold a checkpoint; {folder.path} has not completed an epoch")
    network = build(run.model, DISTORTIONS[run.distortion].side, run.transform)
    network.load_state_dict(state["network"])
    return network.eval()


def evaluate(folder: RunFolder, *, draws: int = 3, device: torch.device | str = "cpu") -> list[Row]:
    """Test rows, one for each draw of the distortions. The first are those that the training itself reported."""
    _check.at_least("draws", draws, 1)
    run, network = folder.run(), trained_network(folder).to(device)
    test, distortion = load(run.data, run.root).test.to(device), DISTORTIONS[run.distortion]
    rows = []
    for draw in range(draws):
        batches = evaluation_batches(test, distortion, seed=0, stream=TEST, draw=draw)
        rows.append({"split": "test", "draw": draw} | scores(network, batches))
    return rows


def mean_and_spread(rows: Iterable[Row], key: str = "error_percent") -> tuple[float, float]:
    """Mean and sample standard deviation over the test rows."""
    values = torch.tensor([row[key] for row in rows if row["split"] == "test"], dtype=torch.float64)
    return values.mean().item(), values.std().item() if len(values) > 1 else 0.0
