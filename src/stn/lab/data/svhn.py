"""SVHN, house numbers in the street (Netzer et al. 2011): readers of its full-number and of its cropped format."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from stn import _check
from stn.io.files import read_tensors, write_tensors
from stn.lab.data.files import CLIPPED, RECOLORED, Repairs, clip_boxes, need_files, open_rgb
from stn.lab.data.splits import Labeled, Splits
from stn.lab.data.strings import NONE

if TYPE_CHECKING:
    import h5py

SOURCE = "http://ufldl.stanford.edu/housenumbers/"
DIGITS = 5  # places of a label
MARGIN = 0.3
VALID = 5_000  # the last training images, held out
TOO_LONG = f"numbers of more than {DIGITS} digits left out"
OUTSIDE = "numbers with a digit's box empty or outside the image left out"
ANNOTATION = "digitStruct.mat"
FIELDS = ("label", "left", "top", "width", "height")
CHUNK = 256  # images decoded between two looks at the progress


class Number(NamedTuple):
    """What digitStruct.mat says of one image."""

    name: str
    digits: np.ndarray  # (k,), in reading order
    boxes: np.ndarray  # (k, 4): left, top, right, bottom in pixels from the image's top left corner


def load_svhn(
    root: Path | str,
    size: int = 64,
    *,
    margin: float = MARGIN,
    extra: bool = False,
    cache: Path | str | None = None,
    quiet: bool = False,
) -> tuple[Splits, Repairs]:
    """House numbers from the folders train/ and test/ (and extra/, to be learned from too) of the full-number format.

    Images are crops as of `read_numbers`. The last 5,000 of train/, at most a tenth of it, are held out. Crops are made
    once and kept in the folder `cache` (default: root), 3 size^2 bytes an image: one file for each folder and setting,
    such as train-64px-margin0.3.pt. It is made anew when digitStruct.mat changes; delete it if only images did.

    Raises: InputError, which names the file and what was expected of it.
    """
    _check.at_least("size", size, 1)
    _check.not_negative("margin", margin)
    root, repairs = Path(root), Repairs()
    parts: dict[str, Labeled] = {}
    for name in ("train", "test", "extra")[: 3 if extra else 2]:
        parts[name], found = _kept(root / name, size, margin, Path(cache or root), quiet)
        repairs.update(found)
    return _split(parts["train"], parts["test"], parts.get("extra")), repairs


def load_svhn_cropped(root: Path | str, *, extra: bool = False) -> Splits:
    """Single digits of 32x32 pixels, from train_32x32.mat and test_32x32.mat (and extra_32x32.mat, to be learned from too).

    The last 5,000 training images, at most a tenth of them, are held out. Digits are labeled 0 to 9.

    Raises: InputError, which names the file and what was expected of it.
    """
    root = Path(root)
    return _split(
        read_cropped(root / "train_32x32.mat"),
        read_cropped(root / "test_32x32.mat"),
        read_cropped(root / "extra_32x32.mat") if extra else None,
    )


def read_numbers(
    folder: Path | str, size: int = 64, *, margin: float = MARGIN, quiet: bool = False
) -> tuple[Labeled, Repairs]:
    """One folder of the full-number format: images (N, 3, size, size) uint8, labels (N, 5) int64 with 10 for "no digit".

    A crop is the smallest box around the boxes of all digits, made wider and higher by `margin` about its middle: by 0.3
    it is 1.3 times as wide, 15 % of the width more on either side (Goodfellow et al. 2013, section 5.1). What lies outside
    the image is cut off, and the rest is resized, whatever its shape, by anti-aliased bicubic interpolation.
    Numbers of more than five digits, and those with a digit's box empty or outside the image, are left out; digits' boxes
    that stick out are clipped; images that are not RGB are converted. All are counted.

    Raises: InputError for files missing or damaged, and for labels out of range.
    """
    _check.installed("PIL", "train")
    folder, repairs = Path(folder), Repairs()
    numbers = read_digit_struct(folder / ANNOTATION, quiet=quiet)
    short = [number for number in numbers if len(number.digits) <= DIGITS]
    repairs[TOO_LONG] = len(numbers) - len(short)
    need_files(folder, [number.name for number in short], SOURCE)
    images = torch.empty(len(short), 3, size, size, dtype=torch.uint8)
    kept: list[Number] = []
    for number, crop in zip(short, _crops(folder, short, size, margin, repairs, quiet), strict=True):
        if crop is not None:
            images[len(kept)] = torch.from_numpy(crop).permute(2, 0, 1)
            kept.append(number)
    if not kept:
        _check.fail(f"{folder} must hold at least one usable image; {len(numbers)} are listed, and none is usable")
    return Labeled(images[: len(kept)], torch.stack([_label(number) for number in kept])), repairs


def _crops(
    folder: Path, numbers: list[Number], size: int, margin: float, repairs: Repairs, quiet: bool
) -> Iterator[np.ndarray | None]:
    """The images' crops (size, size, 3) in order, None where one is left out.

    By as many threads as torch has: decoding and resizing let go of Python's lock.
    """

    def work(number: Number) -> tuple[np.ndarray | None, Repairs]:
        return crop_number(folder / number.name, number.boxes, size, margin)

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        for start in _track(range(0, len(numbers), CHUNK), f"{folder.name}: images", quiet):
            for crop, found in pool.map(work, numbers[start : start + CHUNK]):
                repairs.update(found)
                yield crop


def crop_number(path: Path, boxes: np.ndarray, size: int, margin: float) -> tuple[np.ndarray | None, Repairs]:
    """The crop of one image (size, size, 3), None if a digit is not in it, and what was repaired."""
    from PIL import Image

    picture, was_rgb = open_rgb(path)
    inside, stuck_out, empty = clip_boxes(boxes, picture.size)
    if empty.any():
        return None, Repairs({OUTSIDE: 1})
    around = clip_boxes(enlarged(inside, margin)[None], picture.size)[0][0]
    crop = picture.resize((size, size), Image.Resampling.BICUBIC, box=tuple(around.tolist()))
    return np.array(crop), Repairs({CLIPPED: int(stuck_out.sum()), RECOLORED: int(not was_rgb)})


def enlarged(boxes: np.ndarray, margin: float) -> np.ndarray:
    """The box (4,) around boxes (k, 4), wider and higher by the share `margin` about its middle."""
    low, high = boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)
    more = margin / 2 * (high - low)
    return np.concatenate([low - more, high + more])


def _label(number: Number) -> Tensor:
    digits = torch.full((DIGITS,), NONE)
    digits[: len(number.digits)] = torch.from_numpy(number.digits)
    return digits


def read_digit_struct(path: Path | str, *, quiet: bool = False) -> list[Number]:
    """The names, digits (0 to 9) and boxes that digitStruct.mat, a MATLAB v7.3 file, has for each image.

    Its `left` and `top` count pixels before the box, from 0: so the data set's own see_bboxes.m reads them.

    Raises: InputError if it is missing, damaged or another file, or a label is not 1 to 10.
    """
    _check.installed("h5py", "train")
    import h5py

    path = Path(path)
    need_files(path.parent, [path.name], SOURCE)
    try:
        with h5py.File(path) as file:
            names, boxes = (file[f"digitStruct/{field}"][()].ravel() for field in ("name", "bbox"))
            pairs = list(zip(names, boxes, strict=True))
            numbers = [_number(file, *pair) for pair in _track(pairs, f"{path.parent.name}: {path.name}", quiet)]
    except (OSError, KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:  # as h5py takes it
        fields = ", ".join(FIELDS)
        _check.fail(
            f"{path} must be a complete MATLAB v7.3 file with digitStruct/name and digitStruct/bbox ({fields}); got {error}"
        )
    for name, digits, _ in numbers:
        if not np.isin(digits, range(1, 11)).all():
            _check.fail(f"{path} must have labels from 1 to 10 (digit 0); {name} has {digits.tolist()}")
    return [Number(name, digits.astype(np.int64) % 10, boxes) for name, digits, boxes in numbers]


def _number(file: h5py.File, name: h5py.Reference, boxes: h5py.Reference) -> Number:
    """One image. Through h5py's lower level, which takes half the time: 200,000 images have three million values."""
    from h5py import h5d, h5r

    group = h5r.dereference(boxes, file.id)
    columns = []
    for field in FIELDS:
        values = _values(h5d.open(group, field.encode()))
        if values.dtype == object:  # of several digits: references to single numbers; of one digit, the number itself
            values = np.concatenate([_values(h5r.dereference(reference, file.id)) for reference in values])
        columns.append(values)
    digits, left, top, width, height = np.stack(columns)
    letters = _values(h5r.dereference(name, file.id))  # UTF-16
    return Number(letters.tobytes().decode("utf-16-le"), digits, np.stack([left, top, left + width, top + height], axis=1))


def _values(dataset: Any) -> np.ndarray:
    from h5py import h5s

    values = np.empty(dataset.shape, dataset.dtype)
    dataset.read(h5s.ALL, h5s.ALL, values)
    return values.ravel()


def read_cropped(path: Path | str) -> Labeled:
    """A file of the cropped format: images (N, 3, 32, 32) uint8, labels (N,) int64 from 0 to 9.

    Raises: InputError if it is missing, damaged or another file, or a label is not 1 to 10.
    """
    _check.installed("scipy", "train")
    from scipy.io import loadmat

    path = Path(path)
    need_files(path.parent, [path.name], SOURCE)
    try:
        arrays = loadmat(path, variable_names=("X", "y"))
        pixels, digits = arrays["X"], arrays["y"].ravel()
    except Exception as error:  # scipy raises whatever the damage leads to: zlib's, struct's, its own
        _check.fail(f"{path} must be a complete MATLAB file with X and y; got {type(error).__name__}: {error}")
    if pixels.dtype != np.uint8 or pixels.shape != (32, 32, 3, len(digits)):
        expected = f"(32, 32, 3, {len(digits)}) uint8, an image for each label"
        _check.fail(f"{path} must hold X of {expected}; got {pixels.shape} {pixels.dtype}")
    if not np.isin(digits, range(1, 11)).all():
        _check.fail(f"{path} must have labels from 1 to 10 (digit 0); got {np.unique(digits).tolist()}")
    images = np.ascontiguousarray(pixels.transpose(3, 2, 0, 1))
    return Labeled(torch.from_numpy(images), torch.from_numpy(digits.astype(np.int64) % 10))


def _split(train: Labeled, test: Labeled, extra: Labeled | None) -> Splits:
    """Held out are images of train alone: the easier ones of extra would tell less about the test."""
    held_out = min(VALID, len(train) // 10)
    start = len(train) - held_out
    learned, valid = train[:start], train[start:]
    if extra is not None:
        learned = Labeled(torch.cat([learned.images, extra.images]), torch.cat([learned.labels, extra.labels]))
    return Splits(learned, valid, test)


def _kept(folder: Path, size: int, margin: float, cache: Path, quiet: bool) -> tuple[Labeled, Repairs]:
    """A folder's numbers from the file that keeps them, which is made if it is not there or out of date."""
    need_files(folder, [ANNOTATION], SOURCE)
    state = (folder / ANNOTATION).stat()
    key = {"format": 1, "annotation": [state.st_size, state.st_mtime_ns]}
    path = cache / f"{folder.name}-{size}px-margin{margin}.pt"
    try:
        kept = read_tensors(path)
        if kept["key"] == key:
            return Labeled(kept["images"], kept["labels"]), Repairs(kept["repairs"])
    except Exception:  # not there, or damaged
        pass
    data, repairs = read_numbers(folder, size, margin=margin, quiet=quiet)
    _keep(path, {"key": key, "images": data.images, "labels": data.labels, "repairs": dict(repairs)})
    return data, repairs


def _keep(path: Path, value: dict[str, Any]) -> None:
    """The file appears whole or not at all. Processes that make it at the same time do not meet."""
    try:
        write_tensors(path, value)
    except _check.FileError as error:
        warnings.warn(f"the crops could not be saved in {path} and will be made again each time: {error}", stacklevel=4)


def _track(items: Sequence[Any], what: str, quiet: bool) -> Iterable[Any]:
    """A bar on a terminal while these are gone through."""
    from rich.console import Console
    from rich.progress import track

    console = Console()
    return track(items, what, console=console, transient=True, disable=quiet or not console.is_terminal)
