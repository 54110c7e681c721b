"""TIFF files of numbers that Pillow does not return unchanged: signed or 32-bit integers, deep colors, volumes of pages."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np

from stn import _check
from stn.io.files import write_atomically

WRITTEN = ("uint16", "int16", "uint32", "int32", "float32")  # types that other programs read too
GRAY, RGB = 1, 2  # photometric interpretations whose numbers are values


def is_tiff(path: Path) -> bool:
    return path.suffix.lower() in (".tif", ".tiff")


def writes(path: Path, dtype: Any) -> bool:
    """Return True if numbers of this type can be written to the file with their type."""
    known = is_tiff(path) and np.dtype(dtype).newbyteorder("=").name in WRITTEN
    return known and importlib.util.find_spec("tifffile") is not None


def read_numbers(path: Path, max_pixels: int) -> np.ndarray | None:
    """Return the numbers of a TIFF file: (H, W), (H, W, C), or (D, H, W) of pages. None: Pillow reads them unchanged.

    Raises: InputError for more than `max_pixels` pixels, or pages that are no volume.
    """
    if not is_tiff(path) or importlib.util.find_spec("tifffile") is None:
        return None
    import tifffile

    try:
        with tifffile.TiffFile(path) as file:
            if not file.series or _is_plain(file):
                return None
            series = file.series[0]
            sides = [n for n, axis in zip(series.shape, series.axes, strict=True) if axis != "S"][-2:]
            if sides[0] * sides[1] > max_pixels:
                size = f"{sides[1]} x {sides[0]} = {sides[0] * sides[1]:,}"
                _check.fail(f"max_pixels must be at least the pixels of {path}, {size}; got {max_pixels:,}")
            _check_pages(path, series, file.pages[0])
            array: np.ndarray = series.asarray()
            return np.moveaxis(array, series.axes.index("S"), -1) if "S" in series.axes else array
    except _check.InputError:
        raise
    except Exception:  # damaged, or of a compression that needs a further package: Pillow says what it is, or reads it
        return None


def _is_plain(file: Any) -> bool:
    """Return True for a single picture that Pillow reads unchanged, or of which it says what it is."""
    page = file.pages[0]
    if page.photometric not in (GRAY, RGB) or page.dtype is None:
        return True
    if len(file.pages) > 1 and len(file.series[0].pages) > 1:
        return False
    one = page.samplesperpixel == 1
    return page.dtype in (np.bool_, np.uint8) or (one and page.dtype in (np.uint16, np.int32, np.float32))


def _check_pages(path: Path, series: Any, page: Any) -> None:
    if page.tags.valueof("Orientation", default=1) != 1:
        _check.fail(f"the image must be stored upright, with orientation 1; {path} has another one")
    if len(series.shape) > 3 or ("S" in series.axes and page.samplesperpixel not in (3, 4)):
        _check.fail(f"the image must be (H, W), (H, W, C) with C = 3 or 4, or pages (D, H, W); {path} has {series.shape}")


def write_numbers(values: np.ndarray, path: Path, profile: bytes | None = None) -> None:
    """Write (H, W), (H, W, C) or (D, H, W) with its dtype, atomically, with a color profile if there is one."""
    import tifffile

    colored = values.ndim == 3 and values.shape[-1] in (3, 4)
    values = values.squeeze(-1) if values.ndim == 3 and values.shape[-1] == 1 else values
    values = np.ascontiguousarray(values, values.dtype.newbyteorder("="))
    options: dict[str, Any] = {"photometric": RGB if colored else GRAY, "metadata": None}
    if colored and values.shape[-1] == 4:
        options["extrasamples"] = ["unassalpha"]
    if profile:
        options["iccprofile"] = profile
    write_atomically(path, lambda file: tifffile.imwrite(file, values, **options))
