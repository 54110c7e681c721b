"""The pictures of a run as the page holds them: inside it."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageSequence

from stn import _check
from stn.experiments.folder import RunFolder
from stn.figures import draw_run

SHADES = 64  # colours of a frame of the film
CAPTIONS = {
    "looks.png": "Test images with the edges and the grid of the look, and what the layer hands on.",
    "means.png": "The mean of all test images and of each class, before and after the layer. What comes in all positions is "
    "a blur; the sharper the lower row, the more alike the layer has made its class.",
    "control_points.png": "Control points: where they look, and how they came there in training, from dark to light.",
    "determinant.png": "How much of the image each part of the look covers. Folds, where neighbours change places, are "
    "vermilion.",
}


class Picture(NamedTuple):
    name: str
    caption: str
    source: str  # data URI


class Pictures(NamedTuple):
    stills: list[Picture]
    film: list[str]  # data URIs of its frames
    note: str  # why some are missing, or old

    @property
    def some(self) -> bool:
        return bool(self.stills or self.film or self.note)


def pictures(folder: RunFolder) -> Pictures:
    """Those in the run's folder, drawn anew where its checkpoint is younger."""
    note = ""
    if not up_to_date(folder):
        try:
            draw_run(folder)
        except _check.InputError as reason:  # its data may be elsewhere
            note = f"Pictures could not be drawn: {reason}"
    files = [folder.figures / name for name in CAPTIONS]
    stills = [Picture(path.stem, CAPTIONS[path.name], data_uri(path.read_bytes())) for path in files if path.is_file()]
    film = folder.figures / "film.gif"
    return Pictures(stills, list(frames(film)) if film.is_file() else [], note)


def up_to_date(folder: RunFolder) -> bool:
    drawn = folder.figures / "curves.png"  # the first that is drawn
    return drawn.exists() and folder.checkpoint.exists() and drawn.stat().st_mtime > folder.checkpoint.stat().st_mtime


def frames(film: Path) -> Iterator[str]:
    """One by one, for a page can stop and turn these, and no browser a GIF."""
    with Image.open(film) as moving:
        for frame in ImageSequence.Iterator(moving):
            data = io.BytesIO()
            frame.convert("RGB").quantize(SHADES, Image.Quantize.MAXCOVERAGE).save(data, "PNG", optimize=True)
            yield data_uri(data.getvalue())


def data_uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
