"""The film of the looks during training."""

from __future__ import annotations

import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from stn import _check
from stn.io.files import write_atomically
from stn.lab.experiments.film import Scene
from stn.lab.experiments.folder import Row
from stn.lab.figures.lines import draw, mesh, outline
from stn.lab.figures.looks import framed
from stn.lab.figures.style import COLORS, DPI, WIDTH, color, rgb, show

MOST_FRAMES = 48  # of a long training: a GIF of 800 pixels' width then stays below 2 MB
RATE = 8  # frames a second
PAUSES = {0: 1000, -1: 3000}  # milliseconds of the first and the last frame
SHADES = 256  # colors of a GIF, the same in all of its frames


def film(images: Tensor, scenes: Sequence[Scene], rows: Sequence[Row] = ()) -> Iterator[np.ndarray]:
    """Yield frames (H, W, 3) uint8: the images (N, C, H, W) with the edges and grids of the looks, the looks, and the
    validation error so far."""
    scenes = thinned(scenes)
    size = tuple(images.shape[2:])
    edges = torch.stack([outline(scene.warp, size) for scene in scenes], dim=1)  # (N, scenes, K, 4, P, 2)
    figure, axes, below = _stage(images, scenes[0], edges)
    canvas = FigureCanvasAgg(figure)
    last = max(scenes[-1].step, 1)
    valid = [row for row in rows if row["split"] == "valid"]
    _error_line(below, valid, last)
    now = below.axvline(0, color="#333333", linewidth=2)
    for i, scene in enumerate(scenes):
        grid = mesh(scene.warp, size)
        for n, ax in enumerate(axes[0]):
            for line in [*ax.lines]:
                line.remove()
            draw(ax, grid[n], 0.4)
            draw(ax, edges[n, i], 1.8)
            for k, shown in enumerate(scene.outputs[n]):
                axes[1 + k, n].images[0].set_data(rgb(shown))
        now.set_xdata([scene.step, scene.step])
        below.set_xlabel(f"step {scene.step:,} of {last:,}", fontsize=9)
        canvas.draw()
        yield np.asarray(canvas.buffer_rgba())[..., :3].copy()


def thinned(scenes: Sequence[Scene], most: int = MOST_FRAMES) -> list[Scene]:
    """Return at most so many frames, evenly spaced, including the first and the last."""
    if len(scenes) <= most:
        return list(scenes)
    return [scenes[int(i)] for i in torch.linspace(0, len(scenes) - 1, most).round()]


def _stage(images: Tensor, scene: Scene, edges: Tensor) -> tuple[Figure, np.ndarray, Axes]:
    """Axes with a fixed layout; a new layout per frame would be slow and unsteady."""
    (n, looks), ratio = scene.outputs.shape[:2], images.shape[2] / images.shape[3]
    gap, left, foot = 0.06, 0.55, 0.95  # inches
    across = (WIDTH - left - gap * n) / n
    heights = [across * ratio, *[across * scene.outputs.shape[3] / scene.outputs.shape[4]] * looks]
    tall = sum(heights) + gap * (looks + 2) + foot
    figure = Figure(figsize=(WIDTH, round(tall * DPI / 2) * 2 / DPI), dpi=DPI)  # even, for video
    axes, top = np.empty((1 + looks, n), dtype=object), tall - gap
    for row, height in enumerate(heights):
        top -= height + gap * (row > 0)
        for column in range(n):
            box = [(left + column * (across + gap)) / WIDTH, top / tall, across / WIDTH, height / tall]
            ax = axes[row, column] = figure.add_axes((box[0], box[1], box[2], box[3]), xticks=[], yticks=[])
            if row:
                show(ax, scene.outputs[column, row - 1])
            else:
                show(ax, images[column], around=edges[column])
            if looks > 1 and row:
                framed(ax, color(row - 1))
        axes[row, 0].set_ylabel("look" if row == 0 else "output", fontsize=9)
    below = figure.add_axes((left / WIDTH, 0.42 / tall, 1 - (left + gap) / WIDTH, (foot - 0.5) / tall))
    return figure, axes, below


def _error_line(ax: Axes, valid: Sequence[Row], last: int) -> None:
    ax.set(xlim=(-0.01 * last, 1.01 * last), yscale="symlog", ylim=(0, 130), yticks=(1, 10, 100), yticklabels=(1, 10, 100))
    ax.tick_params(labelsize=8)
    ax.tick_params(which="minor", left=False)
    ax.grid(axis="y", color="#dddddd", linewidth=0.6)
    ax.set_ylabel("error, %", fontsize=9)
    ax.plot([row["step"] for row in valid], [row["error_percent"] for row in valid], "s-", color=COLORS[0], markersize=4)
    for row in valid[-1:]:
        label = f"{row['error_percent']:.1f} % of held-out images in the end"
        ax.annotate(label, (0.5, 0.9), xycoords="axes fraction", ha="center", va="top", fontsize=8)


def save_gif(frames: Sequence[np.ndarray], path: Path) -> Path:
    """Save with one palette for all frames, so that static parts do not flicker."""
    pictures = [Image.fromarray(frame) for frame in frames]
    some = Image.fromarray(np.concatenate(frames[:: max(1, len(frames) // 8)]))
    palette = some.quantize(SHADES, Image.Quantize.MAXCOVERAGE)  # the default leaves out colors that are rare
    indexed = [picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures]
    durations = [1000 // RATE] * len(indexed)
    for place, pause in PAUSES.items():
        durations[place] = pause
    options = {"save_all": True, "append_images": indexed[1:], "duration": durations, "loop": 0}
    write_atomically(path, lambda file: indexed[0].save(file, format="GIF", **options))
    return path


def save_mp4(frames: Sequence[np.ndarray], path: Path) -> Path | None:
    """Save with ffmpeg; None if it is missing or fails."""
    program = shutil.which("ffmpeg")
    if program is None:
        return None
    height, width = (side // 2 * 2 for side in frames[0].shape[:2])
    held = [f for i, f in enumerate(frames) for _ in range(_times(i, len(frames)))]
    raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", str(RATE), "-i", "-"]
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}.partial")
    coded = ["-pix_fmt", "yuv420p", "-movflags", "+faststart", "-f", "mp4", str(partial)]
    command = [program, "-y", "-loglevel", "error", *raw, *coded]
    pixels = b"".join(np.ascontiguousarray(frame[:height, :width]).tobytes() for frame in held)
    try:
        if subprocess.run(command, input=pixels, capture_output=True).returncode:
            return None
        with _check.writing(path):
            partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def _times(i: int, count: int) -> int:
    """Return how often a video repeats each frame, to match the durations of the GIF."""
    pause = PAUSES.get(i, PAUSES.get(i - count, 0))
    return max(1, pause * RATE // 1000)
