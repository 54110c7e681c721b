"""Pictures of what the layer does, from tensors and rows. Nothing here trains."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from stn.data import load
from stn.data.strings import NONE
from stn.experiments.batches import TEST, evaluation_batches
from stn.experiments.evaluate import trained_network
from stn.experiments.folder import Row, RunFolder, write_atomically
from stn.experiments.tables import Table
from stn.experiments.tasks import TASKS
from stn.grid import normalized_to_pixel
from stn.nn import SpatialTransformer
from stn.transforms import Warp

COLORS = ("#ff8c1a", "#1f9bcf", "#6abf4b", "#c94fbf")  # one a look
FINE = 33  # points along a drawn line, which a spline may bend


def looks(images: Tensor, warp: Warp, outputs: Tensor, titles: Sequence[str]) -> Figure:
    """One column an image: the input with the outline of the look, the input with its grid, what the layer returned.

    images (N, 1, H, W), outputs (N, 1, h, w) or (N, K, 1, h, w): the looks of K transforms stand below one another.
    """
    outputs = outputs if outputs.ndim == 5 else outputs.unsqueeze(1)
    rows, columns = 2 + outputs.shape[1], len(images)
    figure = Figure(figsize=(1.35 * columns, 1.4 * rows + 0.3), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for ax in axes.flat:
        ax.set_xticks([])
        ax.set_yticks([])
    size = tuple(images.shape[2:])
    outline, mesh = (_lines(warp, lines, size) for lines in (_square(), _mesh()))
    for n in range(columns):
        axes[0, n].set_title(titles[n], fontsize=8)
        for ax, lines, width in ((axes[0, n], outline, 1.8), (axes[1, n], mesh, 0.7)):
            _input(ax, images[n, 0], lines[n], width)
            ax.set_facecolor("#333333")
        for k in range(outputs.shape[1]):
            axes[2 + k, n].imshow(outputs[n, k, 0].numpy(), cmap="gray", vmin=0, vmax=1)
    for ax, label in zip(axes[:, 0], ["input and look", "grid", *["output"] * outputs.shape[1]], strict=True):
        ax.set_ylabel(label, fontsize=8)
    return figure


def curves(rows: Sequence[Row], name: str) -> Figure:
    """Training and validation error by epoch, with the test error as a line."""
    valid = [row for row in rows if row["split"] == "valid"]
    test = [row["error_percent"] for row in rows if row["split"] == "test"]
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    ax = figure.subplots()
    epochs = [row["epoch"] for row in valid]
    ax.plot(epochs, [row["train_error_percent"] for row in valid], "o-", color=COLORS[1], label="training")
    ax.plot(epochs, [row["error_percent"] for row in valid], "s-", color=COLORS[0], label="validation")
    if test:
        mean = sum(test) / len(test)
        ax.axhline(mean, color="#333333", linestyle="--", label=f"test, {mean:.2f} % over {len(test)} draws")
    ax.set(title=name, xlabel="epoch", ylabel="error (%)", yscale="symlog", ylim=(0, 100))
    ax.set_yticks([0, 1, 2, 5, 10, 20, 50, 100], ["0", "1", "2", "5", "10", "20", "50", "100"])
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.grid(alpha=0.3)
    ax.legend()
    return figure


def save(figure: Figure, path: Path) -> Path:
    write_atomically(path, lambda file: figure.savefig(file, format=path.suffix[1:], dpi=120))
    return path


def draw_run(folder: RunFolder, *, count: int = 8) -> list[Path]:
    """Draw a run's pictures into its folder: its curves and, if it has a spatial transformer, looks at test images."""
    run = folder.run()
    network = trained_network(folder)
    paths = [save(curves(folder.rows(), run.name), folder.figures / "curves.png")]
    transformer = getattr(network, "transformer", None)
    if isinstance(transformer, SpatialTransformer) and transformer.family.ndim == 2:
        test = load(run.data, run.root).test[:count]
        task = TASKS[run.distortion]
        x, y, _ = next(evaluation_batches(test, task.draw, seed=0, stream=TEST))
        with torch.inference_mode():
            output, warp = transformer(x, return_warp=True)
            answers = task.read(network(x))
        titles = [f"{_read(truth)}, read as {_read(answer)}" for truth, answer in zip(y, answers, strict=True)]
        figure = looks(x.amax(dim=1, keepdim=True), warp, output.amax(dim=-3, keepdim=True), titles)
        paths.append(save(figure, folder.figures / "looks.png"))
    return paths


def _read(classes: Tensor) -> str:
    """A class, or the digits of a string."""
    return str(classes.item()) if classes.ndim == 0 else "".join(str(c) for c in classes.tolist() if c != NONE)


def draw_table(table: Table, runs: Path, out: Path, *, each: int = 2) -> Path | None:
    """The paper's figure: for each family two rows (input with the look, output), for each distortion `each` test digits.

    It shows the runs of seed 0 below `runs` that have a checkpoint; None if there is none.
    """
    pictured = [cell for cell in table.cells if cell.run.model in table.pictured]
    shown = [cell for cell in pictured if RunFolder(runs / cell.run.name).checkpoint.exists()]
    if not shown:
        return None
    labels = list(dict.fromkeys(cell.row for cell in shown))
    columns = list(dict.fromkeys(cell.column for cell in table.cells if cell.column in {cell.column for cell in shown}))
    figure = Figure(figsize=(0.95 * each * len(columns) + 0.5, 2.0 * len(labels) + 0.3), layout="constrained")
    axes = figure.subplots(2 * len(labels), each * len(columns), squeeze=False)
    for ax in axes.flat:
        ax.set_axis_off()
    for cell in shown:
        top, left = 2 * labels.index(cell.row), each * columns.index(cell.column)
        for n, (x, line, y) in enumerate(_seen(RunFolder(runs / cell.run.name), each)):
            above, below = axes[top : top + 2, left + n]
            _input(above, x, line, 1.6)
            below.imshow(y.numpy(), cmap="gray", vmin=0, vmax=1)
            above.set_title(f"{cell.row.split()[-1]}, {cell.column}", fontsize=6)
    return save(figure, out)


def _seen(folder: RunFolder, count: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Test images of a run, the outline of the look at each, in pixels, and what the look returned."""
    run, network = folder.run(), trained_network(folder)
    test = load(run.data, run.root).test[:count]
    x, *_ = next(evaluation_batches(test, TASKS[run.distortion].draw, seed=0, stream=TEST))
    with torch.inference_mode():
        output, warp = network.get_submodule("transformer")(x, return_warp=True)
    outline = _lines(warp, _square(), tuple(x.shape[2:]))  # (N, K, 4, FINE, 2)
    seen = output.unsqueeze(1) if output.ndim == 4 else output
    beside = torch.cat(seen.amax(dim=2).unbind(dim=1), dim=-1)  # K looks in a row, (N, h, K w)
    yield from zip(x.amax(dim=1), outline, beside, strict=True)


def _input(ax: Axes, image: Tensor, lines: Tensor, width: float) -> None:
    """An image with the lines (K, L, P, 2) of K looks over it, and room around it for those that leave it."""
    height, wide = image.shape
    ax.imshow(image.numpy(), cmap="gray", vmin=0, vmax=1)
    for k in range(len(lines)):
        ax.plot(*lines[k].permute(2, 1, 0).numpy(), color=COLORS[k % len(COLORS)], linewidth=width)
    ax.set_xlim(-0.15 * wide, 1.15 * wide)
    ax.set_ylim(1.15 * height, -0.15 * height)


def _lines(warp: Warp, lines: Tensor, size: tuple[int, ...]) -> Tensor:
    """Where the warp takes lines (L, P, 2) of the output, in input pixels: (N, K, L, P, 2)."""
    points = warp.points(lines.flatten(0, 1))  # (N[, K], L * P, 2)
    if points.ndim == 3:
        points = points.unsqueeze(1)
    return normalized_to_pixel(points, size).unflatten(2, lines.shape[:2])


def _square() -> Tensor:
    """The four edges of the output: (4, FINE, 2)."""
    along, side = torch.linspace(-1, 1, FINE), torch.ones(FINE)
    edges = [(along, -side), (side, along), (along, side), (-side, along)]
    return torch.stack([torch.stack(edge, dim=-1) for edge in edges])


def _mesh(lines: int = 8) -> Tensor:
    """Lines across the output, its edges among them: (2 (lines + 1), FINE, 2)."""
    along, at = torch.meshgrid(torch.linspace(-1, 1, FINE), torch.linspace(-1, 1, lines + 1), indexing="ij")
    return torch.cat([torch.stack([along.T, at.T], dim=-1), torch.stack([at.T, along.T], dim=-1)])
