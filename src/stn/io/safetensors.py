"""Files of tensors in the safetensors format, without the package of that name.

A file is the length of its header (8 bytes, little-endian), the header in JSON, and the bytes of all tensors. The header
maps names to dtype, shape and place, and `__metadata__` to words by name. Nothing in such a file is ever executed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stn import _check
from stn.io.files import write_atomically

DTYPES = {"F16": torch.float16, "F32": torch.float32, "F64": torch.float64, "I64": torch.int64, "U8": torch.uint8}
METADATA = "__metadata__"
LARGEST = 100_000_000  # bytes of a header that the format allows


def write_safetensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write tensors by name, and words about them. Raises: FileError if the system refuses."""
    names = {dtype: name for name, dtype in DTYPES.items()}
    header: dict[str, Any] = {METADATA: dict(metadata)}
    parts: list[bytes] = []
    end = 0
    for name, tensor in sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0])):  # aligned
        content = tensor.detach().cpu().contiguous().numpy().tobytes()
        start, end = end, end + len(content)
        header[name] = {"dtype": names[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
        parts.append(content)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    write_atomically(path, lambda file: file.write(b"".join([len(text).to_bytes(8, "little"), text, *parts])))


def read_metadata(path: Path) -> dict[str, str]:
    """Return the words of a file without reading its tensors. Raises: InputError for a damaged file."""
    with _reading(path).open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        words: dict[str, str] = _header(path, file.read(min(length, LARGEST)), length).get(METADATA, {})
    return words


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors and the words of a file. Raises: InputError if it is missing, damaged or of another format."""
    raw = _reading(path).read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = _header(path, raw[8 : 8 + length], length)
    metadata: dict[str, str] = header.pop(METADATA, {})
    return {name: _tensor(path, name, entry, raw[8 + length :]) for name, entry in header.items()}, metadata


def _reading(path: Path) -> Path:
    if not path.is_file():
        _check.fail(f"{path} must be a file of tensors; it does not exist")
    return path


def _header(path: Path, text: bytes, length: int) -> dict[str, Any]:
    try:
        if len(text) < length:
            raise ValueError("it is truncated")
        header = json.loads(text)
        if not isinstance(header, dict):
            raise ValueError("its header is no object")
    except (ValueError, RecursionError) as error:
        _check.fail(f"{path} must be a complete file in the safetensors format; {error}")
    return header


def _tensor(path: Path, name: str, entry: Any, content: bytes) -> Tensor:
    try:
        dtype, shape, (start, end) = DTYPES[entry["dtype"]], [int(n) for n in entry["shape"]], entry["data_offsets"]
        part = content[start:end]
        if min(shape, default=0) < 0 or len(part) != math.prod(shape) * dtype.itemsize or len(part) != end - start:
            raise ValueError("its size is another")
    except (KeyError, TypeError, ValueError) as error:
        _check.fail(f"{path} must hold the whole tensor {name} of a dtype among {', '.join(DTYPES)}; {error!r}")
    values = np.frombuffer(part, torch.empty(0, dtype=dtype).numpy().dtype).copy()
    return torch.from_numpy(values).view(shape)
