"""The pictures of a run, in its folder, and of several runs together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from stn import _check
from stn.lab import _check as lab_check
from stn.lab.data import load
from stn.lab.data.strings import NONE
from stn.lab.experiments.batches import TEST, evaluation_batches
from stn.lab.experiments.evaluate import trained_network
from stn.lab.experiments.film import developed
from stn.lab.experiments.folder import Row, RunFolder
from stn.lab.experiments.runs import Run
from stn.lab.experiments.tasks import TASKS, Task
from stn.lab.figures.control import control_points, handles
from stn.lab.figures.curves import curves, errors
from stn.lab.figures.determinant import determinants
from stn.lab.figures.film import film, save_gif, save_mp4
from stn.lab.figures.looks import looks
from stn.lab.figures.means import means
from stn.lab.figures.style import save
from stn.models import cards
from stn.models import load as trained_model
from stn.nn import AbstractSpatialTransformer
from stn.transforms import Warp

MANY = 1000  # test images for the means
MOST = 64  # largest number of images in a picture


class Seen(NamedTuple):
    """Test images, and the looks and outputs of a trained layer."""

    images: Tensor  # (N, C, H, W)
    warp: Warp
    outputs: Tensor  # (N, C, h, w), or (N, K, C, h, w)
    truth: Tensor  # (N,), or (N, L)
    answers: Tensor


def draw_run(
    folder: RunFolder,
    *,
    count: int = 8,
    to: Path | None = None,  # default: its figures/
    root: Path | None = None,  # folder of the data, if it has moved
    download: bool = False,
) -> list[Path]:
    """Draw a run into its folder: its curves and, if it has a 2-D spatial transformer, its looks at `count` test images,
    mean images, and the film of the training.

    Raises: InputError if the folder is not that of a run, or its data cannot be read.
    """
    run, to = folder.run(), to or folder.figures
    rows = folder.told()
    paths = [save(curves(rows, run.label), to / "curves.png")]
    network = trained_network(folder)
    layer = getattr(network, "transformer", None)
    if not isinstance(layer, AbstractSpatialTransformer) or layer.family.ndim != 2:
        return paths
    task, test = TASKS[run.distortion], load(run.data, root or run.root, download=download).test
    lab_check.at_most("count", count, min(len(test), MOST))
    test = test[:MANY]
    x, y, _ = next(evaluation_batches(test, task.evaluated, seed=0, stream=TEST))
    return paths + draw_seen(network, layer, task, x, y, count, to) + draw_film(folder, to, rows)


def draw_model(name: str, to: Path, *, count: int = 8, root: Path | None = None, download: bool = False) -> list[Path]:
    """Draw the looks and the mean images of a trained network of the package, at the digits of scikit-learn, or of MNIST if
    `root` is the folder of its files.

    Raises: InputError for an unknown name, or too large a count.
    """
    _check.choice("model", name, cards())
    network, task = trained_model(name), TASKS[cards()[name].distortion]
    layer = network.get_submodule("transformer")
    assert isinstance(layer, AbstractSpatialTransformer)
    test = (load("mnist", root, download=download) if root else load("digits")).test[:MANY]
    lab_check.at_most("count", count, min(len(test), MOST))
    x, y, _ = next(evaluation_batches(test, task.evaluated, seed=0, stream=TEST))
    return draw_seen(network, layer, task, x, y, count, to)


def draw_seen(
    network: nn.Module, layer: AbstractSpatialTransformer, task: Task, x: Tensor, y: Tensor, count: int, to: Path
) -> list[Path]:
    """Draw the means of many images and their looks, and the first `count` looks one by one."""
    many, few = see(network, layer, task, x, y), see(network, layer, task, x[:count], y[:count])
    paths = [save(means(many.images, many.outputs, many.truth), to / "means.png")]
    pairs = list(zip(few.truth, few.answers, strict=True))
    titles, wrong = [f"{_read(y)}, read as {_read(answer)}" for y, answer in pairs], [_read(y) != _read(a) for y, a in pairs]
    paths.append(save(looks(few.images, few.warp, few.outputs, titles, wrong=wrong), to / "looks.png"))
    if bends(few.warp):
        paths.append(save(determinants(few.images, few.warp), to / "determinant.png"))
    return paths


def draw_film(folder: RunFolder, to: Path, rows: Sequence[Row]) -> list[Path]:
    """Draw the film of the run: film.gif, film.mp4 if ffmpeg is installed, and the motion of control points."""
    found = developed(folder)
    if found is None:
        return []
    layer, images, scenes = found
    frames = list(film(images, scenes, rows))
    paths = [save_gif(frames, to / "film.gif"), save_mp4(frames, to / "film.mp4")]
    if (places := handles(layer.family)) is not None:
        figure = control_points(images, places, [scene.warp for scene in scenes])
        paths.append(save(figure, to / "control_points.png"))
    return [path for path in paths if path]


def draw_runs(folders: Sequence[RunFolder], out: Path) -> Path:
    """Draw the validation errors of several runs; runs that differ only in their seed form one line."""
    groups: dict[str, list[list[Row]]] = {}
    for folder in folders:
        groups.setdefault(_group(folder.run(), [other.run() for other in folders]), []).append(folder.told())
    return save(errors(groups), out)


def see(network: nn.Module, layer: AbstractSpatialTransformer, task: Task, x: Tensor, y: Tensor) -> Seen:
    with torch.inference_mode():
        output, warp = layer(x, return_warp=True)
        return Seen(x, warp, output, y, task.read(network(x)))


def bends(warp: Warp) -> bool:
    """Return True if the covered area varies over the output, unlike for affine maps."""
    area = warp.jacobian_determinant((8, 8))
    return bool((area.amax(dim=(-2, -1)) - area.amin(dim=(-2, -1))).max() > 1e-3)


def _group(run: Run, others: Sequence[Run]) -> str:
    """Return the name of the run without its seed, and its other differing settings."""
    name = run.label.rsplit("-seed", 1)[0]
    same = [other for other in others if other.label.rsplit("-seed", 1)[0] == name]
    apart = sorted({key for other in same for key in run.differences(other)} - {"seed"})
    return ", ".join([name, *(f"{key} {getattr(run, key)}" for key in apart)])


def _read(classes: Tensor) -> str:
    """Format a class, or the digits of a string."""
    return str(classes.item()) if classes.ndim == 0 else "".join(str(c) for c in classes.tolist() if c != NONE)
