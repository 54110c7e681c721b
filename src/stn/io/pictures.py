"""Conversion of PIL pictures to tensors and back. Depth, opacity and orientation are preserved, or an error is raised.

Pixels are (C, H, W) in [0, 1], relative to the largest number, with the opacity as the last channel if there is one.
Floating-point pictures keep their values.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from stn import _check
from stn.io import png

if TYPE_CHECKING:
    from PIL.Image import Image

FULL = {
    "L": 255.0,
    "LA": 255.0,
    "RGB": 255.0,
    "RGBA": 255.0,
    "I;16": 65535.0,
    "I": 65535.0,
    "F": 1.0,
    "LA;16": 65535.0,
    "RGB;16": 65535.0,
    "RGBA;16": 65535.0,
}  # mode -> largest
AS_RGB = ("CMYK", "YCbCr", "HSV", "RGBX", "P")  # modes that Pillow converts to it
PLAIN = {"1": "L", "La": "LA", "PA": "RGBA", "RGBa": "RGBA", "I;16B": "I;16", "I;16L": "I;16", "I;16N": "I;16"}
DEEP = ("I;16", "I", "F")
DEEP_COLORS = {2: "LA;16", 3: "RGB;16", 4: "RGBA;16"}  # by channels: modes that Pillow does not have
ORIENTATION = 0x0112  # tag of EXIF data
BITS, SAMPLE_FORMAT, SIGNED = 258, 339, 2  # tags of TIFF files, and the sample format of signed integers


@dataclass(frozen=True)
class Kind:
    """The kind of the pixels: one of the modes of FULL, and their color profile."""

    mode: str
    profile: bytes | None = None

    @property
    def transparent(self) -> bool:
        return self.channels in (2, 4)

    @property
    def channels(self) -> int:
        return len(self.mode.split(";")[0])

    @property
    def deep(self) -> bool:
        """Whether the pixels are colors of 16 bits, which Pillow cannot hold."""
        return self.mode in DEEP_COLORS.values()


def opened(name: str, picture: Image) -> tuple[Tensor, Kind]:
    """Return the pixels (C, H, W), upright by the EXIF data, and their kind. 32-bit integers become float64.

    Raises: InputError for pictures whose pixels Pillow cannot return unchanged.
    """
    from PIL import ImageOps

    _check_depth(name, picture)
    try:
        picture = ImageOps.exif_transpose(picture)
    except (ValueError, TypeError, KeyError, SyntaxError):  # unreadable EXIF data is ignored
        pass
    mode = _mode(name, picture)
    if mode == picture.mode or mode in DEEP:
        values = np.asarray(picture)
    elif picture.mode == "PA":
        values = np.asarray(picture.convert("RGBA"))
    else:
        values = np.asarray(picture.convert(mode))
    profile = picture.info.get("icc_profile") if picture.mode not in AS_RGB or picture.mode == "P" else None
    numbers = torch.from_numpy(values.astype(np.float64 if mode == "I" else np.float32)) / FULL[mode]
    return numbers.view(*values.shape[:2], -1).permute(2, 0, 1), Kind(mode, profile)


def _mode(name: str, picture: Image) -> str:
    """Return the equivalent mode of FULL."""
    mode = "RGB" if picture.mode in AS_RGB else PLAIN.get(picture.mode, picture.mode)
    if mode not in FULL:
        _check.fail(f"{name} must be a gray or RGB picture; got one of mode {picture.mode}")
    if "transparency" in picture.info and mode in ("L", "RGB"):
        return {"L": "LA", "RGB": "RGBA"}[mode]
    if "transparency" in picture.info and mode in DEEP:
        _check.fail(f"{name} must have 8 bits per channel to be transparent; got a picture of mode {picture.mode}")
    return mode


def _check_depth(name: str, picture: Image) -> None:
    """Raise an error for 16 bits per channel in a colored picture, of which Pillow silently reads 8."""
    tags = getattr(picture, "tag_v2", {})  # of a TIFF file
    if SIGNED in tuple(tags.get(SAMPLE_FORMAT, ())) and picture.mode == "L":
        _check.fail(f"{name} must have unsigned integers of 8 bits; got signed ones, of which Pillow drops the sign")
    deep = picture.mode in DEEP or picture.mode.startswith("I")
    if not deep and (";16" in _stored(picture) or max(tags.get(BITS, (0,))) > 8):
        _check.fail(f"{name} must have 8 bits per channel if it is colored; got 16, of which Pillow reads only 8")


def _stored(picture: Image) -> str:
    """Return how the file stores the pixels, in Pillow's words, such as RGB;16B."""
    tiles = getattr(picture, "tile", None) or ()
    return " ".join(str(part) for tile in tiles for part in (tile[3] if isinstance(tile[3], tuple) else (tile[3],)))


def opened_deep(path: Path, picture: Image) -> tuple[Tensor, Kind] | None:
    """Return the pixels of a PNG file of deep colors like `opened`. None: the file is of another kind."""
    if picture.format != "PNG" or picture.mode in DEEP or ";16" not in _stored(picture):
        return None
    with path.open("rb") as file:
        values = png.read(file)
    turn = picture.getexif().get(ORIENTATION, 1)
    values = values.swapaxes(0, 1) if turn in (5, 6, 7, 8) else values
    values = values[:, ::-1] if turn in (2, 3, 6, 7) else values
    values = values[::-1] if turn in (3, 4, 7, 8) else values
    numbers = torch.from_numpy(values.astype(np.float32)) / 65535
    return numbers.permute(2, 0, 1), Kind(DEEP_COLORS[values.shape[-1]], picture.info.get("icc_profile"))


def deep_values(pixels: Tensor) -> np.ndarray:  # (C, H, W) -> uint16 (H, W, C)
    numbers = (pixels.detach().cpu().permute(1, 2, 0).double().nan_to_num(0.0) * 65535).round()
    return numbers.clamp(0, 65535).contiguous().numpy().astype(np.uint16)


def closed(pixels: Tensor, kind: Kind) -> Image:  # (C, H, W)
    """Return a picture of this kind. Integers are rounded and clamped to the range of the mode."""
    from PIL import Image as pillow

    values = pixels.detach().cpu().permute(1, 2, 0).squeeze(-1).double()
    if kind.mode == "F":
        return pillow.fromarray(values.float().contiguous().numpy())
    values = (values.nan_to_num(0.0) * FULL[kind.mode]).round()
    if kind.mode == "I":
        return pillow.fromarray(values.clamp(-(2.0**31), 2.0**31 - 1).contiguous().numpy().astype(np.int32))
    dtype: Any = np.uint16 if kind.mode == "I;16" else np.uint8
    return pillow.fromarray(values.clamp(0, FULL[kind.mode]).contiguous().numpy().astype(dtype))


def premultiplied(images: Tensor) -> Tensor:  # (.., C, H, W), the last channel the opacity
    """Multiply colors by the opacity, so that averages contain no color of transparent pixels."""
    return torch.cat([images[..., :-1, :, :] * images[..., -1:, :, :], images[..., -1:, :, :]], dim=-3)


def straight(images: Tensor) -> Tensor:  # (.., C, H, W)
    """Divide colors by the opacity; black where it is 0."""
    opacity = images[..., -1:, :, :].clamp(0, 1)
    some = opacity > 1e-4
    colors = torch.where(some, images[..., :-1, :, :] / torch.where(some, opacity, 1), 0)
    return torch.cat([colors.clamp(0, 1), opacity], dim=-3)


def on_white(images: Tensor) -> Tensor:  # (.., C, H, W) -> (.., C - 1, H, W)
    """Blend colors with a white background."""
    opacity = images[..., -1:, :, :].clamp(0, 1)
    return images[..., :-1, :, :] * opacity + (1 - opacity)
