"""CUB-200-2011, photographs of birds (Wah et al. 2011): a reader of its original layout, whole or with some classes only.

Images stay on disk. They are decoded when asked for, in a DataLoader's workers if it has any.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Generator, Tensor
from torch.utils.data import Dataset

from stn import _check
from stn.lab.data.files import CLIPPED, RECOLORED, Repairs, clip_boxes, look_at_header, need_files, open_rgb
from stn.lab.data.splits import Labeled, Splits

SOURCE = "https://www.vision.caltech.edu/datasets/cub_200_2011/"
FOLDER = "CUB_200_2011"
TABLES = ("images.txt", "image_class_labels.txt", "train_test_split.txt", "classes.txt", "bounding_boxes.txt")
SHORT_SIDE, SIZE = 512, 448  # pixels: of the resized image, of the view
SQUARE = 256  # of images that are held in memory
OUTSIDE = "boxes outside their image replaced by the whole image"


@dataclass(frozen=True, eq=False)
class Birds(Dataset[tuple[Tensor, int]]):
    """Item i is a view (3, size, size) uint8 of image i, and its class.

    The image is resized, anti-aliased, to a short side of `short_side` pixels. The view is its middle, or with a seed a
    random part, flipped or not: a function of the seed and i alone, whichever worker draws it.
    """

    paths: tuple[Path, ...]
    labels: Tensor  # (N,) int64: 0 .. len(classes) - 1
    classes: tuple[str, ...]  # in the order of their ids
    sizes: Tensor  # (N, 2): width and height of each file's image
    boxes: Tensor  # (N, 4): left, top, right, bottom of the bird, in pixels of the file's image
    parts: Tensor | None  # (N, P, 3): x and y in pixels of the file's image, and 1 where the part is visible
    short_side: int = SHORT_SIDE
    size: int = SIZE
    seed: int | None = None

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = read_resized(self.paths[index], self.short_side)
        if self.seed is None:
            return central_view(image, self.size), int(self.labels[index])
        state = np.random.SeedSequence([self.seed, index % len(self)]).generate_state(1, np.uint64)[0]
        return random_view(image, self.size, Generator().manual_seed(int(state) >> 1)), int(self.labels[index])

    def drawn(self, seed: int) -> Birds:
        """The same images in random views. Give each epoch another seed."""
        return dataclasses.replace(self, seed=seed)

    def take(self, index: Sequence[int]) -> Birds:
        """Some of the images."""
        rows = {name: getattr(self, name)[list(index)] for name in ("labels", "sizes", "boxes")}
        parts = None if self.parts is None else self.parts[list(index)]
        return dataclasses.replace(self, paths=tuple(self.paths[i] for i in index), parts=parts, **rows)

    def in_view(self, points: Tensor) -> Tensor:
        """Points (N, P, 2) in pixels of the files' images -> normalized coordinates (N, P, 2) of the middle views."""
        resized = torch.tensor([resized_to(size, self.short_side) for size in self.sizes.tolist()])  # (N, 2)
        corner = (resized - self.size) // 2
        pixels = points * (resized / self.sizes)[:, None] - corner[:, None]
        return 2 * pixels / self.size - 1


class BirdSplits(NamedTuple):
    """Training, validation and test images."""

    train: Birds
    valid: Birds
    test: Birds


def load_cub(root: Path | str, *, short_side: int = SHORT_SIDE, size: int = SIZE) -> tuple[BirdSplits, Repairs]:
    """The data set from a folder with images.txt and its companions, images/ and perhaps parts/, or with CUB_200_2011/.

    The last tenth of each class's training images is held out. Ids need not be contiguous; rows about images that
    images.txt does not list are passed over. A box that sticks out of its image is clipped, one outside it replaced by the
    whole image, and an image that is not RGB converted: all are counted.

    Raises: InputError, which names the file and what was expected of it; for truncated images when they are decoded.
    """
    _check.installed("PIL", "train")
    _check.at_least("size", size, 1)
    _check.at_least("short_side", short_side, size)
    root = Path(root)
    root = root / FOLDER if (root / FOLDER).is_dir() else root
    need_files(root, TABLES, SOURCE)
    ids, birds, repairs = _read(root)
    birds = dataclasses.replace(birds, short_side=short_side, size=size)
    in_training = _of_images(root / "train_test_split.txt", ids, int)
    unknown = sorted({flag for (flag,) in in_training} - {0, 1})
    if unknown:
        _check.fail(f"{root / 'train_test_split.txt'} must say 1 (training) or 0 of each image; got {unknown[0]}")
    training = [i for i, (flag,) in enumerate(in_training) if flag]
    test = [i for i, (flag,) in enumerate(in_training) if not flag]
    train, valid = _hold_out(training, birds.labels.tolist())
    return BirdSplits(birds.take(train), birds.take(valid), birds.take(test)), repairs


def square_pictures(root: Path | str, side: int = SQUARE) -> tuple[Splits, Repairs]:
    """All images in memory, the middle square of each resized to side^2 pixels: (N, 3, side, side) bytes, 2.3 GB for the
    whole data set at 256. Splits, repairs and errors as of `load_cub`."""
    parts, repairs = load_cub(root, short_side=side, size=side)

    def whole(birds: Birds) -> Labeled:
        images = torch.empty(len(birds), 3, side, side, dtype=torch.uint8)
        with ThreadPoolExecutor(os.cpu_count()) as pool:  # decoding lets other threads run
            for i, (view, _) in enumerate(pool.map(birds.__getitem__, range(len(birds)))):
                images[i] = view
        return Labeled(images, birds.labels)

    return Splits(*map(whole, parts)), repairs


def read_resized(path: Path, short_side: int) -> Tensor:
    """An image file as (3, H, W) uint8, its shorter side of this many pixels.

    Raises: InputError if it is missing, truncated or no picture.
    """
    from PIL import Image

    picture = open_rgb(path)[0]
    picture = picture.resize(resized_to(picture.size, short_side), Image.Resampling.BICUBIC)  # anti-aliased
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)


def resized_to(size: Sequence[int], short_side: int) -> tuple[int, int]:
    """Width and height after the shorter one has become `short_side`."""
    width, height = (max(short_side, round(n * short_side / min(size))) for n in size)
    return width, height


def central_view(image: Tensor, size: int) -> Tensor:
    """The middle of an image (.., H, W): (.., size, size)."""
    top, left = (room // 2 for room in _room(image, size))
    return image[..., top : top + size, left : left + size].contiguous()


def random_view(image: Tensor, size: int, generator: Generator) -> Tensor:
    """A part of an image (.., H, W) at a random place, half of the time flipped left to right: (.., size, size)."""
    top, left, flip = (
        int(torch.randint(most + 1, (), generator=generator, device=generator.device)) for most in (*_room(image, size), 1)
    )
    view = image[..., top : top + size, left : left + size]
    return view.flip(-1) if flip else view.contiguous()


def _room(image: Tensor, size: int) -> list[int]:
    """Rows and columns by which an image is larger than a view."""
    room = [length - size for length in image.shape[-2:]]
    if min(room) < 0:
        _check.fail(f"size must be at most the image's height and width; got {size} for {tuple(image.shape)}")
    return room


def _read(root: Path) -> tuple[list[int], Birds, Repairs]:
    """All images, in the order of images.txt, with their ids."""
    names = {number: row[0] for number, row in _table(root / "images.txt", str).items()}
    if not names:
        _check.fail(f"{root / 'images.txt'} must list at least one image; it lists none")
    ids = list(names)
    need_files(root / "images", list(names.values()), SOURCE)
    paths = tuple(root / "images" / name for name in names.values())
    classes = dict(sorted(_table(root / "classes.txt", str).items()))
    place = {number: i for i, number in enumerate(classes)}
    labels = []
    for number, (label,) in zip(ids, _of_images(root / "image_class_labels.txt", ids, int), strict=True):
        if label not in place:
            _check.fail(f"image_class_labels.txt must name classes of classes.txt; image {number} has class {label}")
        labels.append(place[label])
    looks = [look_at_header(path) for path in paths]
    boxes, repairs = _boxes(_of_images(root / "bounding_boxes.txt", ids, *[float] * 4), [size for size, _ in looks])
    repairs[RECOLORED] = sum(not was_rgb for _, was_rgb in looks)
    sizes = torch.tensor([size for size, _ in looks])
    names_of_classes = tuple(row[0] for row in classes.values())
    return ids, Birds(paths, torch.tensor(labels), names_of_classes, sizes, boxes, _parts(root, ids)), repairs


def _boxes(rows: list[tuple[Any, ...]], sizes: list[tuple[int, int]]) -> tuple[Tensor, Repairs]:
    """Boxes x, y, width, height -> (N, 4): left, top, right, bottom, none of them outside its image."""
    repairs, boxes = Repairs(), []
    for (left, top, width, height), size in zip(rows, sizes, strict=True):
        box = np.array([[left, top, left + width, top + height]])
        inside, stuck_out, empty = clip_boxes(box, size)
        if empty[0]:
            repairs[OUTSIDE] += 1
            inside[0] = (0, 0, *size)
        elif stuck_out[0]:
            repairs[CLIPPED] += 1
        boxes.append(torch.from_numpy(inside[0]).float())
    return torch.stack(boxes), repairs


def _parts(root: Path, ids: list[int]) -> Tensor | None:
    """Places of the birds' parts (N, P, 3), P the number of parts.txt, if the folder has them."""
    if not (root / "parts").is_dir():
        return None
    need_files(root / "parts", ["parts.txt", "part_locs.txt"], SOURCE)
    column = {number: i for i, number in enumerate(sorted(_table(root / "parts" / "parts.txt", str)))}
    row = {number: i for i, number in enumerate(ids)}
    places = torch.zeros(len(ids), len(column), 3)
    for image, part, x, y, visible in _rows(root / "parts" / "part_locs.txt", int, int, float, float, int):
        if part not in column:
            _check.fail(f"part_locs.txt must name parts of parts.txt; image {image} has part {part}")
        if image in row:
            places[row[image], column[part]] = torch.tensor([x, y, visible])
    return places


def _hold_out(training: list[int], labels: list[int]) -> tuple[list[int], list[int]]:
    """The last tenth of each class apart."""
    by_class: dict[int, list[int]] = {}
    for i in training:
        by_class.setdefault(labels[i], []).append(i)
    valid = sorted(i for members in by_class.values() for i in members[len(members) - len(members) // 10 :])
    held_out = set(valid)
    return [i for i in training if i not in held_out], valid


def _of_images(path: Path, ids: list[int], *kinds: Callable[[str], Any]) -> list[tuple[Any, ...]]:
    """A table's rows for these images."""
    table = _table(path, *kinds)
    missing = [number for number in ids if number not in table]
    if missing:
        _check.fail(f"{path} must have a row for each of {len(ids):,} images; {len(missing):,} lack one, first {missing[0]}")
    return [table[number] for number in ids]


def _table(path: Path, *kinds: Callable[[str], Any]) -> dict[int, tuple[Any, ...]]:
    """Rows by the id that they begin with."""
    table: dict[int, tuple[Any, ...]] = {}
    for number, *values in _rows(path, int, *kinds):
        if number in table:
            _check.fail(f"{path} must have each id once; {number} occurs again")
        table[number] = tuple(values)
    return table


def _rows(path: Path, *kinds: Callable[[str], Any]) -> list[tuple[Any, ...]]:
    """Lines of fields apart by blanks. The last may have blanks in it."""
    rows = []
    for place, line in enumerate(path.read_text("utf-8", "surrogateescape").splitlines(), 1):
        fields = line.split(maxsplit=len(kinds) - 1)
        if not fields:
            continue
        try:
            rows.append(tuple(kind(field.strip()) for kind, field in zip(kinds, fields, strict=True)))
        except ValueError:
            expected = ", ".join(kind.__name__ for kind in kinds)
            _check.fail(f"{path}, line {place}, must have the fields {expected}; got {line!r}")
    return rows
