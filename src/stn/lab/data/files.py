"""Files of data sets. Missing or broken files are errors; repairs are counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stn import _check

if TYPE_CHECKING:
    from PIL.Image import Image

Repairs = Counter[str]
"""Kind of repair or omission -> count."""
CLIPPED = "boxes clipped to their image"
RECOLORED = "images of another kind made RGB"


def describe(repairs: Repairs) -> str:
    """Format repairs as one line; empty if there are none."""
    return "; ".join(f"{what}: {count:,}" for what, count in repairs.items() if count)


def need_files(folder: Path, names: Sequence[str], source: str) -> None:
    """Check that all files exist; the error counts the missing ones and names their source."""
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        more = f" (and {len(missing) - 1:,} more of {len(names):,} files)" if len(missing) > 1 else ""
        _check.fail(f"{folder} must hold {missing[0]}{more}; it does not. The data set comes from {source}")


def open_rgb(path: Path) -> tuple[Image, bool]:
    """A picture file, decoded whole, as RGB, and whether it was RGB already.

    Raises: InputError if it is missing, truncated or no picture.
    """
    with _opened(path) as picture:
        return picture.convert("RGB"), picture.mode == "RGB"


def look_at_header(path: Path) -> tuple[tuple[int, int], bool]:
    """Width and height of a picture file, and whether it is RGB, without decoding it.

    Raises: InputError if it is missing or no picture.
    """
    with _opened(path) as picture:
        return picture.size, picture.mode == "RGB"


@contextmanager
def _opened(path: Path) -> Iterator[Image]:
    from PIL import Image

    try:
        with Image.open(path) as picture:
            yield picture
    except FileNotFoundError:
        _check.fail(f"the image {path} must exist; it does not")
    except (OSError, SyntaxError, EOFError, ValueError, TypeError, LookupError, Image.DecompressionBombError) as error:
        _check.fail(f"the image {path} must be a complete picture file; it is damaged or of another kind ({error})")


def clip_boxes(
    boxes: np.ndarray,  # (k, 4): left, top, right, bottom in pixels from the image's top left corner
    size: tuple[int, int],  # of the image: width, height
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes as far as they lie in their image, which of them stuck out, and which have no part of it: (k, 4), (k,), (k,)."""
    inside = boxes.clip(0, (*size, *size))
    stuck_out = (inside != boxes).any(axis=1)
    empty = np.logical_not((inside[:, 2:] > inside[:, :2]).all(axis=1))  # also where a number is NaN
    return inside, stuck_out, empty
