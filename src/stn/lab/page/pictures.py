"""The pictures of a run, embedded in the page."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from PIL import Image, ImageSequence

from stn import _check
from stn.lab.experiments.folder import RunFolder
from stn.lab.figures import draw_run

SHADES = 64  # colors of a frame of the film
CAPTIONS = {
    "looks.png": "Test images with the outline and the sampling grid of the look, and the output of the layer.",
    "means.png": "The mean of all test images and of each class, before and after the layer. A sharper lower row means "
    "that the layer aligns the images of a class better.",
    "control_points.png": "Sampling positions of the control points, and their paths during training, from dark to light.",
    "determinant.png": "Area of the image that a part of the look covers. Folds, where it reverses orientation, are "
    "vermilion.",
}


class Picture(NamedTuple):
    name: str
    caption: str
    source: str  # data URI


class Pictures(NamedTuple):
    stills: list[Picture]
    film: list[str]  # data URIs of its frames
    note: str  # reason for missing or old pictures

    @property
    def some(self) -> bool:
        return bool(self.stills or self.film or self.note)


def pictures(folder: RunFolder, root: Path | None = None, download: bool = False) -> Pictures:
    """Return the pictures in the folder of the run, drawn again if the checkpoint is newer or one is damaged. If the folder
    is read-only, they are drawn in a temporary one."""
    if up_to_date(folder):
        return collected(folder.figures)
    try:
        draw_run(folder, root=root, download=download)
    except _check.FileError:
        with TemporaryDirectory() as elsewhere:
            note = ""
            try:
                draw_run(folder, to=Path(elsewhere), root=root, download=download)
            except _check.InputError as reason:
                note = str(reason)
            return collected(Path(elsewhere), note)
    except _check.InputError as reason:  # its data may be elsewhere
        return collected(folder.figures, str(reason))
    return collected(folder.figures)


def collected(figures: Path, note: str = "") -> Pictures:
    """Return the complete pictures."""
    files = [figures / name for name in CAPTIONS]
    stills = [Picture(path.stem, CAPTIONS[path.name], data_uri(path.read_bytes())) for path in files if whole(path)]
    film = figures / "film.gif"
    note = f"Pictures could not be drawn: {note}" if note else ""
    return Pictures(stills, list(frames(film)) if whole(film) else [], note)


def up_to_date(folder: RunFolder) -> bool:
    drawn = folder.figures / "curves.png"  # the first that is drawn
    try:
        younger = drawn.stat().st_mtime > folder.checkpoint.stat().st_mtime
        return younger and all(whole(path) for path in folder.figures.iterdir() if path.suffix in (".png", ".gif"))
    except OSError:
        return False


def whole(picture: Path) -> bool:
    """Return True if the whole file can be read."""
    try:
        with Image.open(picture) as moving:
            for frame in ImageSequence.Iterator(moving):
                frame.load()
    except Exception:  # whatever damaged bytes lead Pillow to
        return False
    return True


def frames(film: Path) -> Iterator[str]:
    """Return the frames one by one, because a page can pause and step them, unlike a GIF."""
    with Image.open(film) as moving:
        for frame in ImageSequence.Iterator(moving):
            data = io.BytesIO()
            frame.convert("RGB").quantize(SHADES, Image.Quantize.MAXCOVERAGE).save(data, "PNG", optimize=True)
            yield data_uri(data.getvalue())


def data_uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
