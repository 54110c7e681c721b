"""Keep the network of a run as weights of the package: `python -m stn.lab.experiments.release RUN NAME`."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from stn import _check
from stn.lab.data import load
from stn.lab.experiments.batches import TEST, evaluation_batches
from stn.lab.experiments.evaluate import mean_and_spread, scores, trained_network
from stn.lab.experiments.folder import RunFolder
from stn.lab.experiments.runs import Run
from stn.lab.experiments.tasks import TASKS
from stn.models.digits import MODELS
from stn.models.trained import Card, file_of, load_file, save_file

TASK = {
    "rts": "Digits that are turned by up to 45 degrees, scaled by 0.7 to 1.2 and moved, in 42x42 pixels, light on black."
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
    _check.choice("distortion", run.distortion, TASK)
    _check.choice("data", run.data, ("mnist",))
    _check.choice("model", run.model, [model for model in MODELS if model.startswith("st-")])
    if len(folder.rows()) < run.epochs + run.draws:
        _check.fail(f"the run in {folder.path} must be complete; it has {len(folder.rows())} rows")
    task, path = TASKS[run.distortion], path or file_of(name)
    card = Card(
        name=name,
        task=TASK[run.distortion],
        input_shape=(1, 42, 42),
        data="60,000 training images of MNIST, 5,000 of them held out, with new distortions in each epoch.",
        license=MNIST,
        recipe=recipe(run),
        error_percent=0.0,
        test="",
        distortion=run.distortion,
        network={"builder": "digits", "model": run.model, "side": 42, "transform": run.transform},
    )
    save_file(path, network, card)
    test = load(run.data, run.root).test
    written = load_file(path)
    rows = []
    for draw in range(run.draws):
        batches = evaluation_batches(test, task.evaluated, seed=0, stream=TEST, number=draw)
        rows.append({"split": "test"} | scores(written, task, batches))
    mean, spread = mean_and_spread(rows)
    measured = f"10,000 test images of MNIST, mean of {run.draws} draws of the distortions, spread {spread:.2f} %."
    card = replace(card, error_percent=round(mean, 4), test=measured)
    save_file(path, network, card)
    return card


def recipe(run: Run) -> str:
    return (
        f"{run.model.upper()} of Jaderberg et al. 2015, table 1, with the transform {run.transform}: {run.epochs} epochs of "
        f"batches of {run.batch_size}, {run.optimizer}, learning rate {run.lr:g} in one cycle, labels smoothed by "
        f"{run.label_smoothing:g}, running mean of the weights, seed {run.seed}. This is the recipe of `stn reproduce "
        "seeds`, with fewer epochs than that of Table 1."
    )


if __name__ == "__main__":
    print(release(RunFolder(sys.argv[1]), sys.argv[2]))
