"""Keep the network of a run as weights of the package: `python -m stn.lab.experiments.release RUN NAME`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from stn import _check
from stn.lab.data import load
from stn.lab.experiments.batches import TEST, evaluation_batches
from stn.lab.experiments.evaluate import mean_and_spread, scores, trained_network
from stn.lab.experiments.folder import RunFolder
from stn.lab.experiments.runs import Run
from stn.lab.experiments.tasks import TASKS
from stn.models.digits import MODELS
from stn.models.lines import TEXT_MODELS
from stn.models.trained import Card, file_of, load_file, save_file


class Released(NamedTuple):
    """The runs of a task that can be released, and the words of their cards."""

    task: str
    input_shape: tuple[int, int, int]
    models: tuple[str, ...]  # those with a layer
    network: Callable[[Run], dict[str, Any]]  # builder and arguments
    source: str
    as_table: str
    test: str


RELEASED = {
    "rts": Released(
        "Digits that are turned by up to 45 degrees, scaled by 0.7 to 1.2 and moved, in 42x42 pixels, light on black.",
        (1, 42, 42),
        MODELS,
        lambda run: {"builder": "digits", "model": run.model, "side": 42, "transform": run.transform},
        "Jaderberg et al. 2015, table 1",
        "This is the recipe of `stn reproduce seeds`, with fewer epochs than that of Table 1.",
        "10,000 test images of MNIST",
    ),
    "curved": Released(
        "Lines of three to six digits on an arc of up to 150 degrees, up or down, turned by up to 15 degrees and in "
        "perspective, cut out and stretched to 64x200 pixels, light on black.",
        (1, 64, 200),
        TEXT_MODELS,
        lambda run: {"builder": "lines", "model": run.model},
        "Shi et al. 2016 (RARE, CRNN), smaller",
        "This is the recipe of `stn reproduce text`, with twice as many epochs.",
        "lines with at least one wrong digit, of 10,000 lines that begin with the test images of MNIST",
    ),
}
MNIST = (
    "MNIST (LeCun, Cortes, Burges). The weights have the license of the library, MIT. The data set states none; it is "
    "published for research and contained in neither the weights nor the package."
)


def release(folder: RunFolder, name: str, path: Path | None = None) -> Card:
    """Write the network of a run on digits, measure the test error of the written weights, and return their card.

    Raises: InputError if the run is of another task, or not complete.
    """
    run, network = folder.run(), trained_network(folder)
    _check.choice("distortion", run.distortion, RELEASED)
    kind, path = RELEASED[run.distortion], path or file_of(name)
    _check.choice("data", run.data, ("mnist",))
    _check.choice("model", run.model, [model for model in kind.models if model.startswith("st-")])
    if len(folder.rows()) < run.epochs + run.draws:
        _check.fail(f"the run in {folder.path} must be complete; it has {len(folder.rows())} rows")
    card = Card(
        name=name,
        task=kind.task,
        input_shape=kind.input_shape,
        data="60,000 training images of MNIST, 5,000 of them held out, with new distortions in each epoch.",
        license=MNIST,
        recipe=recipe(run, kind),
        error_percent=0.0,
        test="",
        distortion=run.distortion,
        network=kind.network(run),
    )
    save_file(path, network, card)
    mean, spread = measured(load_file(path), run)
    test = f"{kind.test}, mean of {run.draws} draws of the distortions, spread {spread:.2f} %."
    card = replace(card, error_percent=round(mean, 4), test=test)
    save_file(path, network, card)
    return card


def measured(network: nn.Module, run: Run) -> tuple[float, float]:
    """Return the test error of a network on the task of a run, in percent, and its spread over draws."""
    task, test = TASKS[run.distortion], load(run.data, run.root).test
    rows = []
    for draw in range(run.draws):
        batches = evaluation_batches(test, task.evaluated, seed=0, stream=TEST, number=draw)
        rows.append({"split": "test"} | scores(network, task, batches))
    return mean_and_spread(rows)


def recipe(run: Run, kind: Released) -> str:
    smoothed = f"labels smoothed by {run.label_smoothing:g}, " if run.label_smoothing else ""
    return (
        f"{run.model.upper()} of {kind.source}, with the transform {run.transform}: {run.epochs} epochs of "
        f"batches of {run.batch_size}, {run.optimizer}, learning rate {run.lr:g} in one cycle, {smoothed}"
        f"running mean of the weights, seed {run.seed}. {kind.as_table}"
    )


if __name__ == "__main__":
    print(release(RunFolder(sys.argv[1]), sys.argv[2]))
