"""Pictures of what the layer does, from tensors and rows. Nothing here trains."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from stn.data import DISTORTIONS, load
from stn.experiments.batches import TEST, evaluation_batches
from stn.experiments.evaluate import trained_network
from stn.experiments.folder import Row, RunFolder, write_atomically
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
            ax.imshow(images[n, 0].numpy(), cmap="gray", vmin=0, vmax=1)
            for k in range(lines.shape[1]):
                ax.plot(*lines[n, k].permute(2, 1, 0).numpy(), color=COLORS[k % len(COLORS)], linewidth=width)
            ax.set_xlim(-0.15 * size[1], 1.15 * size[1])
            ax.set_ylim(1.15 * size[0], -0.15 * size[0])
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
    if isinstance(transformer, SpatialTransformer):
        test = load(run.data, run.root).test[:count]
        x, y = next(evaluation_batches(test, DISTORTIONS[run.distortion], seed=0, stream=TEST))
        with torch.inference_mode():
            output, warp = transformer(x, return_warp=True)
            answers = network(x).argmax(dim=1)
        titles = [f"{truth}, read as {answer}" for truth, answer in zip(y.tolist(), answers.tolist(), strict=True)]
        paths.append(save(looks(x, warp, output, titles), folder.figures / "looks.png"))
    return paths


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
