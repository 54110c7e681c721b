"""Pictures of Pillow's modes as tensors, and back: depth, opacity and orientation keep their meaning, or a sentence says no.

Pixels are shares of the largest number, (C, H, W) in [0, 1], with the opacity as the last channel where there is one; those
of floating-point pictures are the numbers themselves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from stn import _check

if TYPE_CHECKING:
    from PIL.Image import Image

FULL = {"L": 255.0, "LA": 255.0, "RGB": 255.0, "RGBA": 255.0, "I;16": 65535.0, "I": 65535.0, "F": 1.0}  # mode: the largest
AS_RGB = ("CMYK", "YCbCr", "HSV", "RGBX", "P")  # modes that Pillow turns into it
PLAIN = {"1": "L", "La": "LA", "PA": "RGBA", "RGBa": "RGBA", "I;16B": "I;16", "I;16L": "I;16", "I;16N": "I;16"}
DEEP = ("I;16", "I", "F")


@dataclass(frozen=True)
class Kind:
    """What a picture's pixels are: one of the modes of FULL, and the color profile that they are meant for."""

    mode: str
    profile: bytes | None = None

    @property
    def transparent(self) -> bool:
        return self.mode in ("LA", "RGBA")


def opened(name: str, picture: Image) -> tuple[Tensor, Kind]:
    """The pixels (C, H, W), upright as its EXIF data says, and their kind. 32-bit integers are float64.

    Raises: InputError for pictures whose pixels Pillow cannot hand out as they are.
    """
    from PIL import ImageOps

    _check_depth(name, picture)
    try:
        picture = ImageOps.exif_transpose(picture)
    except (ValueError, TypeError, KeyError, SyntaxError):  # EXIF data that cannot be read orders nothing
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
    """The one of FULL that says the same."""
    mode = "RGB" if picture.mode in AS_RGB else PLAIN.get(picture.mode, picture.mode)
    if mode not in FULL:
        _check.fail(f"{name} must be gray or of RGB colors; got a picture of mode {picture.mode}")
    if "transparency" in picture.info and mode in ("L", "RGB"):
        return {"L": "LA", "RGB": "RGBA"}[mode]
    if "transparency" in picture.info and mode in DEEP:
        _check.fail(f"{name} must have 8 bits a channel to be transparent; got a picture of mode {picture.mode}")
    return mode


def _check_depth(name: str, picture: Image) -> None:
    """Pillow reads 8 of the 16 bits that a channel of a colored picture may have, and does not say so."""
    tiles = getattr(picture, "tile", None) or ()
    stored = " ".join(str(part) for tile in tiles for part in (tile[3] if isinstance(tile[3], tuple) else (tile[3],)))
    if ";16" in stored and picture.mode not in DEEP and not picture.mode.startswith("I"):
        _check.fail(f"{name} must have 8 bits a channel where it is colored; got 16, of which Pillow reads 8")


def closed(pixels: Tensor, kind: Kind) -> Image:  # (C, H, W)
    """A picture of this kind. Integers are rounded, and held to what the mode can hold."""
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
    """Colors times opacity: what may be averaged without a transparent pixel's color showing at an edge."""
    return torch.cat([images[..., :-1, :, :] * images[..., -1:, :, :], images[..., -1:, :, :]], dim=-3)


def straight(images: Tensor) -> Tensor:  # (.., C, H, W)
    """Colors again; black where nothing is left of them."""
    opacity = images[..., -1:, :, :].clamp(0, 1)
    some = opacity > 1e-4
    colors = torch.where(some, images[..., :-1, :, :] / torch.where(some, opacity, 1), 0)
    return torch.cat([colors.clamp(0, 1), opacity], dim=-3)


def on_white(images: Tensor) -> Tensor:  # (.., C, H, W) -> (.., C - 1, H, W)
    """Colors over a white ground."""
    opacity = images[..., -1:, :, :].clamp(0, 1)
    return images[..., :-1, :, :] * opacity + (1 - opacity)
