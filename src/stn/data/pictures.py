"""Picture files as tensors, and a warp of one in terms that a person thinks in: what happens to the content, in pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stn import _check
from stn.arrays import to_images
from stn.grid import pixel_to_normalized
from stn.transforms.linear import corners_to_matrix


def read_picture(path: Path | str) -> Tensor:
    """An image file as (C, H, W), float32 in [0, 1]; C is 1 (grey), 3 (colour) or 4 (with transparency).

    A numpy file (.npy) holds (H, W), (H, W, C), or a volume (D, H, W), read as (1, D, H, W); integers become shares of
    their dtype's largest number, and other numbers stay as they are.

    Raises: InputError if there is no such file, or it is not an image.
    """
    if Path(path).suffix == ".npy":
        return to_images(f"the array in {path}", _read_array(path))[0][0].float()
    _check.installed("PIL", "train")
    import numpy as np
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as picture:
            mode = picture.mode if picture.mode in ("L", "RGB", "RGBA") else "RGB"
            pixels = np.asarray(picture.convert(mode))
    except FileNotFoundError:
        _check.fail(f"the image must be a file; {path} does not exist")
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        _check.fail(f"the image must be a whole picture file (PNG, JPEG, ..); {path} is not ({error})")
    return torch.from_numpy(pixels.copy()).view(*pixels.shape[:2], -1).permute(2, 0, 1).float() / 255


def _read_array(path: Path | str) -> Any:
    import numpy as np

    try:
        return np.load(path, allow_pickle=False)
    except FileNotFoundError:
        _check.fail(f"the image must be a file; {path} does not exist")
    except (OSError, ValueError, EOFError) as error:
        _check.fail(f"the image must be a whole array of numbers; {path} is not ({error})")


def write_picture(image: Tensor, path: Path | str) -> None:
    """Write (C, H, W) in [0, 1] in the format that the file's ending names. The file appears whole or not at all.

    As a numpy file (.npy) it is float32, unrounded, (H, W) or (H, W, C); and (1, D, H, W) a volume (D, H, W).

    Raises: InputError if no format has that ending.
    """
    path = Path(path)
    if path.suffix == ".npy":
        return write_array(image.squeeze(0) if len(image) == 1 else image.permute(1, 2, 0), path)
    _check.installed("PIL", "train")
    from PIL import Image

    if image.ndim != 3:
        _check.fail(f"the output's name must end in .npy for a volume; got {path.name}")
    formats = Image.registered_extensions()
    if path.suffix.lower() not in formats:
        _check.fail(f"the output's name must end like a picture's (.png, .jpg, ..); got {path.name}")
    pixels = (255 * image.clamp(0, 1)).round().byte().permute(1, 2, 0).squeeze(-1)
    partial = path.with_name(f".{path.name}.partial")
    Image.fromarray(pixels.numpy()).save(partial, format=formats[path.suffix.lower()])
    partial.replace(path)


def write_array(values: Tensor, path: Path) -> None:
    """Write float32 numbers as a numpy file, whole or not at all."""
    import numpy as np

    partial = path.with_name(f".{path.name}.partial")
    with partial.open("wb") as file:
        np.save(file, values.detach().cpu().float().contiguous().numpy())
    partial.replace(path)


def motion_to_theta(
    size: Sequence[int],  # (H, W) of the picture
    *,
    rotate: float = 0.0,  # degrees, counter-clockwise
    scale: float = 1.0,
    shear: float = 0.0,  # degrees
    translate: tuple[float, float] = (0.0, 0.0),  # pixels, right and down
) -> Tensor:  # (2, 3)
    """The look under which the content is sheared, scaled, turned about the middle, then moved: its inverse, normalised.

    A turn is a turn in pixels, on pictures that are not square too: with half extents H = diag(W, H) / 2, the content moves
    by F = (A, t) in centred pixels, and theta = (H^-1 A^-1 H, -H^-1 A^-1 t).
    """
    _check.positive("scale", scale)
    _check.angle("shear", shear)
    angle = math.radians(rotate)
    c, s, k = math.cos(angle), math.sin(angle), math.tan(math.radians(shear))
    turn = torch.tensor([[c, s], [-s, c]], dtype=torch.float64)  # counter-clockwise where y points down
    lean = torch.tensor([[1, -k], [0, 1]], dtype=torch.float64)  # a positive shear leans to the right
    inverse = torch.linalg.inv(scale * turn @ lean)
    half = torch.tensor([size[1] / 2, size[0] / 2], dtype=torch.float64)
    moved = -inverse @ torch.tensor(translate, dtype=torch.float64)
    return torch.cat([inverse * half, moved[:, None]], dim=1) / half[:, None]


def corners_to_homography(size: Sequence[int], corners: Sequence[float]) -> Tensor:
    """The look (3, 3) whose corners are these pixels (x y, top left, top right, bottom right, bottom left)."""
    pixels = torch.tensor(corners, dtype=torch.float64).view(4, 2)
    matrix = corners_to_matrix(pixel_to_normalized(pixels, size))
    if torch.linalg.matrix_rank(matrix, rtol=1e-9) < 3:
        _check.fail(f"corners must be those of a quadrilateral; got {tuple(corners)}")
    return matrix
