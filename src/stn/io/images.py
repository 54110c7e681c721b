"""Reading and writing of picture and numpy files. The meaning of pixel values is preserved, or an error is raised first."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stn import _check
from stn.io import png, tiff
from stn.io.arrays import to_images
from stn.io.files import write_atomically
from stn.io.pictures import (
    DEEP,
    FULL,
    Kind,
    closed,
    deep_values,
    on_white,
    opened,
    opened_deep,
    premultiplied,
    straight,
)

MAX_PIXELS = 178_956_970  # the limit above which Pillow refuses a file
INTEGERS = {
    np.dtype(np.bool_): ("L", "RGB", "RGBA"),
    np.dtype(np.uint8): ("L", "RGB", "RGBA"),
    np.dtype(np.uint16): ("I;16", "RGB;16", "RGBA;16"),
}


@dataclass(frozen=True)
class Source:
    """An image to warp, and the kind of its file."""

    pixels: Tensor  # (1, C, *size); colors times opacity if there is an opacity
    kind: Kind | None  # for a picture
    restore: Callable[[Tensor], Any]  # for an array: back to its axes and its dtype
    dtype: Any = None  # for an array
    inside: bool = True  # whether all values are in [0, 1]

    @property
    def transparent(self) -> bool:
        return self.kind is not None and self.kind.transparent

    def gray(self) -> Tensor:
        """Return the mean of the colors (1, 1, *size), to compare images with different channels."""
        colors = self.pixels[:, :-1] if self.transparent else self.pixels[:, :3]
        return colors.mean(dim=1, keepdim=True)


# ---- reading ----


def read_source(path: Path | str, *, name: str = "the image", max_pixels: int = MAX_PIXELS) -> Source:
    """Read a picture file, or a numpy or TIFF file of numbers (H, W), (H, W, C) or a volume (D, H, W).

    Raises: InputError if there is no such file, it is not an image, or of more than `max_pixels` pixels.
    """
    path = Path(path)
    if path.suffix.lower() == ".npy":
        return _array_source(path, _read_array(path))
    numbers = tiff.read_numbers(path, max_pixels)
    if numbers is not None:
        return _array_source(path, numbers)
    pixels, kind = _read_picture(path, name, max_pixels)
    if kind.mode == "I" and not tiff.is_tiff(path) and pixels.min() >= 0 and pixels.max() <= 1:
        pixels, kind = pixels.float(), Kind("I;16", kind.profile)  # some versions of Pillow read 16 bits like this
    images = premultiplied(pixels[None]) if kind.transparent else pixels[None]
    return Source(images, kind, lambda found: found, inside=bool(((images >= 0) & (images <= 1)).all()))


def _array_source(path: Path, array: np.ndarray) -> Source:
    images, restore = to_images(f"the array in {path}", array)
    floating = array.dtype.kind == "f"
    inside = bool(((images >= 0) & (images <= 1)).all()) if floating else True
    return Source(images, None, restore, array.dtype, inside)


def read_picture(path: Path | str, *, max_pixels: int = MAX_PIXELS) -> Tensor:
    """Read an image file as (C, H, W), float32 in [0, 1]: C is 1 (gray) or 3 (color), plus one with transparency.

    A numpy file (.npy), or a TIFF file that Pillow cannot return unchanged, holds (H, W), (H, W, C), or a volume
    (D, H, W), read as (1, D, H, W). Integers are divided by the maximum of their dtype. Floating-point pictures and
    arrays are not changed.

    Raises: InputError if there is no such file, or it is not an image.
    """
    path = Path(path)
    if path.suffix.lower() == ".npy":
        return to_images(f"the array in {path}", _read_array(path))[0][0].float()
    numbers = tiff.read_numbers(path, max_pixels)
    if numbers is not None:
        return to_images(f"the array in {path}", numbers)[0][0].float()
    return _read_picture(path, "the image", max_pixels)[0].float()


def _read_picture(path: Path, name: str, max_pixels: int) -> tuple[Tensor, Kind]:
    _check.installed("PIL", "cli")
    from PIL import Image

    try:
        with _without_limit(), Image.open(path) as picture:
            width, height = picture.size
            if width * height > max_pixels:
                size = f"{width} x {height} = {width * height:,}"
                _check.fail(f"max_pixels must be at least the pixels of {path}, {size}; got {max_pixels:,}")
            return opened_deep(path, picture) or opened(name, picture)
    except _check.InputError:
        raise
    except FileNotFoundError:
        _check.fail(f"the image must be a file; {path} does not exist")
    except IsADirectoryError:
        _check.fail(f"the image must be a file; {path} is a folder")
    except PermissionError:
        _check.fail(f"the image must be a readable file; permission is denied for {path}")
    except Exception as error:  # whatever damaged bytes lead Pillow to
        _check.fail(f"the image must be a complete picture file (PNG, JPEG, ..); {path} is not ({error})")


@contextmanager
def _without_limit() -> Iterator[None]:
    """Replace the limit of Pillow, which warns or raises its own error, by `max_pixels`."""
    from PIL import Image

    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def _read_array(path: Path | str) -> Any:
    try:
        return np.load(path, allow_pickle=False)
    except FileNotFoundError:
        _check.fail(f"the image must be a file; {path} does not exist")
    except IsADirectoryError:
        _check.fail(f"the image must be a file; {path} is a folder")
    except MemoryError:
        _check.fail(f"the image must fit into memory; {path} declares a larger size")
    except Exception as error:  # whatever damaged bytes lead to
        _check.fail(f"the image must be a complete array of numbers; {path} is not ({error})")


# ---- writing ----


def check_output(name: str, path: Path, source: Source) -> str:
    """Check before the work that `path` can hold the result of `source`. Returns a note for the user, or "".

    Raises: InputError, which names a suitable file ending.
    """
    if path.suffix.lower() == ".npy":
        return ""
    if source.kind is None and tiff.writes(path, source.dtype):
        return ""
    _check.installed("PIL", "cli")
    kind = _written_as(name, path, source)
    if kind.transparent and not _keeps(path, kind):
        opaque = Kind(_opaque(kind))
        if _keeps(path, opaque):
            return f"a {path.suffix.lower()} file has no transparency: it is written on white"
    if not _keeps(path, kind):
        better = ".tif or .npy" if kind.mode in DEEP else ".png, .tif or .npy" if kind.deep else ".png"
        _check.fail(f"{name} must end in {better} for pixels of mode {kind.mode}; got {path.name}")
    return ""


def write_source(found: Tensor, path: Path, source: Source) -> None:  # (1, C, *size)
    """Write a warped `source` atomically. In a numpy file a picture is float32 in [0, 1] with colors not multiplied by the
    opacity, floating-point and 32-bit pictures keep their values, and an array keeps its axes and dtype."""
    if path.suffix.lower() == ".npy":
        write_numbers(_numbers(found, source), path)
        return
    if source.kind is None and tiff.writes(path, source.dtype):
        tiff.write_numbers(source.restore(found), path)
        return
    kind = _written_as("out", path, source)
    image = straight(found)[0] if source.transparent else found[0]
    if kind.transparent and not _keeps(path, kind):
        kind, image = Kind(_opaque(kind), kind.profile), on_white(image)
    _save(image, path, kind)


def _numbers(found: Tensor, source: Source) -> np.ndarray:
    if source.kind is None:
        restored: np.ndarray = source.restore(found)
        return restored
    if source.kind.mode == "I":
        return (found[0, 0].double() * FULL["I"]).round().cpu().numpy().astype(np.int64)
    image = straight(found)[0] if source.transparent else found[0]
    return _axes(image.float())


def _axes(image: Tensor) -> np.ndarray:  # (C, *size)
    moved = image.squeeze(0) if len(image) == 1 else image.movedim(0, -1)
    return moved.detach().cpu().contiguous().numpy()


def _written_as(name: str, path: Path, source: Source) -> Kind:
    """Return the kind of the picture for a source. Raises: InputError if there is none for an array."""
    if source.kind is not None:
        return source.kind
    if source.pixels.ndim != 4:
        _check.fail(f"{name} must end in .npy for a volume; got {path.name}")
    channels = source.pixels.shape[1]
    fitting = [mode for mode in _modes(source, path) if Kind(mode).channels == channels]
    if not fitting:
        what = f"{channels} channels of {source.dtype}" + ("" if source.inside else " beyond 0 and 1")
        _check.fail(f"{name} must end in .npy for an array of {what}; got {path.name}")
    return Kind(fitting[0])


def _modes(source: Source, path: Path) -> tuple[str, ...]:
    if source.dtype.kind != "f":
        return INTEGERS.get(source.dtype.newbyteorder("="), ())
    exact = ("F",) if path.suffix.lower() in (".tif", ".tiff") and source.dtype.itemsize <= 4 else ()
    return exact + (("L", "RGB", "RGBA") if source.inside else ())


def _opaque(kind: Kind) -> str:
    return {"LA": "L", "RGBA": "RGB", "LA;16": "I;16", "RGBA;16": "RGB;16"}[kind.mode]


def _format(path: Path) -> str:
    from PIL import Image

    formats = Image.registered_extensions()
    found = formats.get(path.suffix.lower())
    if found is None or found not in Image.SAVE:
        _check.fail(f"the output must end in .png, .jpg or the suffix of another picture format; got {path.name}")
    return found


def _keeps(path: Path, kind: Kind) -> bool:
    """Return True if the format can store such pixels; tested on two pixels."""
    from PIL import Image

    form, file = _format(path), io.BytesIO()
    if kind.deep:
        return form == "PNG" or (kind.channels > 2 and tiff.writes(path, np.uint16))
    picture = closed(torch.tensor([0.25, 0.75]).expand(kind.channels, 1, 2), kind)
    try:
        picture.save(file, format=form)
        file.seek(0)
        with Image.open(file) as again:
            again.load()
            if kind.mode in DEEP:
                return np.array_equal(np.asarray(again), np.asarray(picture))
            return not kind.transparent or again.has_transparency_data
    except (OSError, ValueError, KeyError, SyntaxError):
        return False


def _save(image: Tensor, path: Path, kind: Kind) -> None:
    form = _format(path)
    if kind.deep:
        write = png.write if form == "PNG" else tiff.write_numbers
        write(deep_values(image), path, kind.profile)
        return
    profile = {"icc_profile": kind.profile} if kind.profile else {}
    picture = closed(image, kind)
    write_atomically(path, lambda file: picture.save(file, format=form, **profile))


def write_picture(image: Tensor, path: Path | str) -> None:
    """Write (C, H, W) in [0, 1], with 1 to 4 channels, atomically, in the format of the file ending.

    As a numpy file (.npy) it is float32, unrounded, (H, W) or (H, W, C); and (1, D, H, W) a volume (D, H, W).

    Raises: InputError if no format has that ending.
    """
    path = Path(path)
    if path.suffix.lower() == ".npy":
        write_numbers(_axes(image.float()), path)
        return
    _check.installed("PIL", "cli")
    if image.ndim != 3:
        _check.fail(f"the output's name must end in .npy for a volume; got {path.name}")
    _save(image, path, Kind(("L", "LA", "RGB", "RGBA")[len(image) - 1]))


def write_array(values: Tensor, path: Path) -> None:
    """Write float32 numbers as a numpy file, atomically."""
    write_numbers(values.detach().cpu().float().contiguous().numpy(), path)


def write_numbers(values: np.ndarray, path: Path) -> None:
    write_atomically(path, lambda file: np.save(file, values))
