"""MNIST (LeCun, Cortes, Burges): a reader of its IDX files, and where to get them."""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from stn import _check
from stn.lab.data.download import fetch
from stn.lab.data.splits import Labeled, Splits

VALID = 5_000  # the last training images, held out
MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
    "https://raw.githubusercontent.com/fgnt/mnist/master/",
)
SHA256 = {
    "train-images-idx3-ubyte": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "train-labels-idx1-ubyte": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    "t10k-images-idx3-ubyte": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "t10k-labels-idx1-ubyte": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
}  # of the .gz files


def load_mnist(root: Path | str, *, download: bool = False, mirrors: Sequence[str] = MIRRORS) -> Splits:
    """MNIST from a folder with its four IDX files, gzipped or not (also in torchvision's `MNIST/raw` below it).

    download: first fetch what is missing, or is gzipped and damaged. 5,000 training images are held out for decisions.

    Raises: InputError, which names the file and what was expected of it.
    """
    root = Path(root)
    if download:
        for name, sha256 in SHA256.items():
            gz = f"{name}.gz"
            if _find(root, name) in (None, root / gz):
                fetch(root / gz, [mirror.rstrip("/") + f"/{gz}" for mirror in mirrors], sha256)
    train, test = _read(root, "train"), _read(root, "t10k")
    held_out = min(VALID, len(train) // 10)  # a small stand-in for MNIST gives a tenth
    return Splits(train[:-held_out], train[-held_out:], test)


def _read(root: Path, prefix: str) -> Labeled:
    paths = []
    for name in (f"{prefix}-images-idx3-ubyte", f"{prefix}-labels-idx1-ubyte"):
        path = _find(root, name)
        if path is None:
            _check.fail(f"root must hold {name} or {name}.gz; {root} does not (download=True fetches it)")
        paths.append(path)
    images, labels = read_idx(paths[0], ndim=3), read_idx(paths[1], ndim=1)
    if images.shape[1:] != (28, 28):
        _check.fail(f"{paths[0]} must hold images of 28x28 pixels; it holds {tuple(images.shape[1:])}")
    if len(images) != len(labels):
        _check.fail(f"{paths[1]} must hold one label for each of {len(images)} images; it holds {len(labels)}")
    if len(labels) < 10 or labels.max() > 9:
        _check.fail(f"{paths[1]} must hold at least 10 labels from 0 to 9; it holds {len(labels)} up to {labels.max()}")
    return Labeled(images.unsqueeze(1), labels.long())


def _find(root: Path, name: str) -> Path | None:
    candidates = [folder / file for folder in (root, root / "MNIST" / "raw") for file in (name, f"{name}.gz")]
    return next((path for path in candidates if path.is_file()), None)


def read_idx(path: Path, ndim: int) -> Tensor:
    """An IDX file of bytes: two zero bytes, the type (8: bytes), the number of axes, each length, the data.

    Raises: InputError, which names the file, what was expected and what came.
    """
    raw = _bytes(path)
    header = 4 + 4 * ndim
    if raw[:4] != bytes((0, 0, 8, ndim)) or len(raw) < header:
        _check.fail(f"{path} must begin with the IDX header 00 00 08 0{ndim} and {ndim} lengths; got {raw[:4].hex(' ')!r}")
    shape = [int(n) for n in np.frombuffer(raw, ">u4", count=ndim, offset=4)]
    if len(raw) - header != math.prod(shape):
        _check.fail(f"{path} must hold {math.prod(shape)} bytes after its header, for {shape}; got {len(raw) - header}")
    return torch.from_numpy(np.frombuffer(raw, np.uint8, offset=header).reshape(shape).copy())


def _bytes(path: Path) -> bytes:
    raw = path.read_bytes()
    if raw[:2] != b"\x1f\x8b":
        return raw
    try:
        return gzip.decompress(raw)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        _check.fail(f"{path} must be a complete gzip file; it is truncated or damaged ({error})")
