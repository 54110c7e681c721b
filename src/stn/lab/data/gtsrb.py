"""GTSRB, photographs of German traffic signs (Stallkamp et al. 2012): a reader of the official folders or zip files.

The training images are tracks: about 30 frames of one sign that a car approaches. Tracks are held out whole, because a
frame next to one that was trained on would tell nothing.
"""

from __future__ import annotations

import csv
import io
import os
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from stn import _check
from stn.lab.data.download import fetch
from stn.lab.data.files import RECOLORED, Repairs
from stn.lab.data.splits import Labeled, Splits
from stn.ops import affine_sample

SOURCE = "https://benchmark.ini.rub.de/gtsrb_dataset.html"
TRAINING, TEST, TRUTH = "Final_Training/Images", "Final_Test", "GT-final_test.csv"
MIRRORS = ("https://sid.erda.dk/public/archives/daaeac0d7ce1152aea9b61d9f1e19370/",)
MD5 = {
    "GTSRB_Final_Training_Images.zip": "f33fd80ac59bff73c82d25ab499e03a3",
    "GTSRB_Final_Test_Images.zip": "c7e4e6327067d32654124b0fe9e82185",
    "GTSRB_Final_Test_GT.zip": "fe31e9c9270bbcd7b84b7f21a9d9d9e5",
}  # of the official archives
ZIPS = tuple(MD5)
COLUMNS = ("Filename", "Width", "Height", "Roi.X1", "Roi.Y1", "Roi.X2", "Roi.Y2", "ClassId")
CLASSES = 43
NAMES = (
    *(f"limit {speed}" for speed in (20, 30, 50, 60, 70, 80)),
    *(
        "end of limit 80",
        "limit 100",
        "limit 120",
        "no overtaking",
        "no overtaking by trucks",
        "right of way",
        "priority road",
    ),
    *("yield", "stop", "no vehicles", "no trucks", "no entry", "danger", "curve left", "curve right", "double curve"),
    *("bumpy road", "slippery road", "road narrows", "road work", "traffic lights", "pedestrians", "children", "bicycles"),
    *("ice", "deer", "end of all limits", "turn right", "turn left", "straight on", "straight or right"),
    *("straight or left", "keep right", "keep left", "roundabout", "end of no overtaking", "trucks may overtake"),
)  # of the classes 0 .. 42
VALID = 10  # one of so many tracks of each class is held out


@dataclass(frozen=True, eq=False)
class Signs:
    """Images in memory, with their classes, their tracks, and the region of the sign in each."""

    images: Tensor  # (N, 3, size, size) uint8
    labels: Tensor  # (N,) int64: 0 .. 42
    tracks: Tensor  # (N,) int64: equal numbers are frames of one sign; -1 where that is not known
    boxes: Tensor  # (N, 4) float32: left, top, right, bottom of the sign, in pixels of `images`

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: Tensor) -> Signs:
        return Signs(self.images[index], self.labels[index], self.tracks[index], self.boxes[index])

    @property
    def labeled(self) -> Labeled:
        return Labeled(self.images, self.labels, self.tracks)


class SignSplits(NamedTuple):
    """Training, validation and test images."""

    train: Signs
    valid: Signs
    test: Signs


class Row(NamedTuple):
    """A line of a table: an image, and what is known of it."""

    name: str  # its path within the data set
    size: tuple[int, int]  # width and height of the original
    box: tuple[float, float, float, float]
    label: int
    track: int


def load_gtsrb(root: Path | str, size: int = 32) -> tuple[SignSplits, Repairs]:
    """Read the data set from the official zip files, or from their folders: `root` holds GTSRB/ or Final_Training/.

    Images of any format that Pillow reads are resized to size^2 pixels by anti-aliased sampling. Of the tracks of each
    class every tenth is held out. Images that are not RGB are converted, and counted.

    Raises: InputError, which names the file and what was expected of it.
    """
    _check.installed("PIL", "train")
    _check.at_least("size", size, 1)
    root = Path(root)
    with opened(root) as read:
        tables = {name: read.names[name] for name in read.names if name.endswith(".csv")}
        training = [row for name in sorted(tables) if TRAINING in name for row in rows_of(read, name)]
        test = [row for name in sorted(tables) if name.endswith(f"/{TRUTH}") for row in rows_of(read, name)]
        for what, rows in ((f"{TRAINING}/CCCCC/GT-CCCCC.csv", training), (f"{TEST}/{TRUTH}", test)):
            if not rows:
                _check.fail(f"{root} must hold {what}, or its zip file; it does not. The data set comes from {SOURCE}")
        repairs = Repairs()
        learned, final = (decoded(read, rows, size, repairs) for rows in (training, test))
    held = held_out(learned)
    return SignSplits(learned.take(~held), learned.take(held), final), repairs


def sign_splits(root: Path | str) -> tuple[Splits, Repairs]:
    """The same at 32x32 pixels, with tracks as groups, without boxes."""
    parts, repairs = load_gtsrb(root)
    return Splits(*(part.labeled for part in parts)), repairs


def held_out(signs: Signs) -> Tensor:  # (N,) bool
    """Return the images of every tenth track of each class, at least of one."""
    held = torch.zeros(len(signs), dtype=torch.bool)
    for label in signs.labels.unique().tolist():
        mine = signs.labels == label
        tracks = signs.tracks[mine].unique()
        if len(tracks) > 1:
            held |= mine & torch.isin(signs.tracks, tracks[VALID - 1 :: VALID] if len(tracks) >= VALID else tracks[-1:])
    return held


def download_gtsrb(root: Path | str, *, mirrors: Sequence[str] = MIRRORS) -> None:
    """Download the official archives (320 MB) whose contents `root` lacks, and those that are not complete zip files.

    Raises: InputError with what each mirror answered.
    """
    root = Path(root)
    for name in lacking(root):
        fetch(root / name, [mirror.rstrip("/") + f"/{name}" for mirror in mirrors], MD5[name])


def lacking(root: Path) -> list[str]:
    """Return the archives whose contents are not there: classes of training images, test images, their classes."""
    damaged = [name for name in ZIPS if (root / name).is_file() and not zipfile.is_zipfile(root / name)]
    with opened(root, without=damaged) as read:
        tables = [name for name in read.names if name.endswith(".csv")]
        there = (
            any(TRAINING in name for name in tables),
            any(name.startswith(f"{TEST}/Images/") and not name.endswith(".csv") for name in read.names),
            any(name.endswith(f"/{TRUTH}") for name in tables),
        )
    return [name for name, found in zip(ZIPS, there, strict=True) if not found or name in damaged]


# ---- files: in folders, or in zip files ----


class Files(NamedTuple):
    """The files of a data set by their paths within it, and how each is read."""

    names: Mapping[str, Callable[[], bytes]]

    def read(self, name: str) -> bytes:
        if name not in self.names:
            _check.fail(f"the image {name} must exist; it does not")
        try:
            return self.names[name]()
        except (OSError, zipfile.BadZipFile, RuntimeError, EOFError) as error:
            _check.fail(f"{name} must be a complete file; it is damaged ({error})")


@contextmanager
def opened(root: Path, without: Sequence[str] = ()) -> Iterator[Files]:
    """Collect the files of all zips and folders of the data set in this folder."""
    found: dict[str, Callable[[], bytes]] = {}
    with ExitStack() as stack:
        for path in (root / name for name in ZIPS if name not in without and (root / name).is_file()):
            try:
                archive = stack.enter_context(zipfile.ZipFile(path))
            except zipfile.BadZipFile as error:
                _check.fail(f"{path} must be a complete zip file; it is not ({error})")
            found |= {inner(name): reader(archive, name) for name in archive.namelist() if not name.endswith("/")}
        for folder in (root / "GTSRB", root):
            for part in ("Final_Training", "Final_Test"):
                for path in sorted((folder / part).rglob("*")):
                    if path.is_file():
                        found.setdefault(path.relative_to(folder).as_posix(), path.read_bytes)
        yield Files(found)


def reader(archive: zipfile.ZipFile, name: str) -> Callable[[], bytes]:
    return lambda: archive.read(name)


def inner(name: str) -> str:
    """Return the path within the data set. The zip of the test's classes has its table at the top."""
    name = name.removeprefix("GTSRB/")
    return f"{TEST}/{name}" if name == TRUTH else name


def rows_of(read: Files, table: str) -> list[Row]:
    text = read.read(table).decode("utf-8-sig", errors="replace")
    lines = csv.DictReader(io.StringIO(text), delimiter=";")
    missing = sorted(set(COLUMNS) - set(lines.fieldnames or ()))
    if missing:
        _check.fail(f"{table} must have the columns {', '.join(COLUMNS)}; it lacks {', '.join(missing)}")
    folder = table.rsplit("/", 1)[0] + ("/Images" if table.endswith(f"/{TRUTH}") else "")
    return [row_of(table, folder, number, line) for number, line in enumerate(lines, 2)]


def row_of(table: str, folder: str, number: int, line: Mapping[str, Any]) -> Row:
    try:
        width, height, left, top, right, bottom, label = (int(line[name]) for name in COLUMNS[1:])
    except (TypeError, ValueError):
        _check.fail(f"{table} must have whole numbers; line {number} has {';'.join(map(str, line.values()))}")
    if not 0 <= label < CLASSES or min(width, height) < 1:
        _check.fail(f"{table} must have classes from 0 to {CLASSES - 1} and sizes from 1; line {number} has another")
    name = str(line["Filename"])
    track = name.split("_")[0]
    known = TRAINING in table and track.isdigit()
    # The box has the first and the last pixel of the sign.
    box = (float(left), float(top), float(right + 1), float(bottom + 1))
    return Row(f"{folder}/{name}", (width, height), box, label, 100_000 * label + int(track) if known else -1)


# ---- pixels ----


def decoded(read: Files, rows: Sequence[Row], size: int, repairs: Repairs) -> Signs:
    images = torch.empty(len(rows), 3, size, size, dtype=torch.uint8)
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # decoding lets other threads run; zip files are read one at a time
        pictures = (read.read(row.name) for row in rows)
        for i, (pixels, was_rgb) in enumerate(pool.map(pixels_of, (row.name for row in rows), pictures)):
            images[i] = resized(pixels, size)
            repairs[RECOLORED] += not was_rgb
    scale = torch.tensor([row.size * 2 for row in rows], dtype=torch.float32)
    boxes = torch.tensor([row.box for row in rows]) * (size / scale)
    labels, tracks = (torch.tensor([getattr(row, name) for row in rows]) for name in ("label", "track"))
    return Signs(images, labels, tracks, boxes)


def pixels_of(name: str, content: bytes) -> tuple[Tensor, bool]:
    """Decode a picture: (3, H, W) uint8, and whether it was RGB."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content)) as picture:
            array = np.array(picture.convert("RGB"))
            return torch.from_numpy(array).permute(2, 0, 1), picture.mode == "RGB"
    except (OSError, SyntaxError, EOFError, ValueError, TypeError, LookupError, Image.DecompressionBombError) as error:
        _check.fail(f"the image {name} must be a complete picture file; it is damaged or of another kind ({error})")


def resized(image: Tensor, size: int) -> Tensor:  # (3, H, W) uint8 -> (3, size, size)
    if image.shape[1:] == (size, size):
        return image
    whole = torch.eye(2, 3)
    found = affine_sample(image[None].float(), whole, (size, size), padding_mode="border", antialias="anisotropic")
    assert isinstance(found, Tensor)
    return found[0].round().clamp(0, 255).to(torch.uint8)
