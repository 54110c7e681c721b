"""Files of tensors in the safetensors format, with words about them. Nothing in such a file is ever executed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from stn import _check
from stn.io.files import write_atomically


def write_safetensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write tensors by name, and words about them. Raises: FileError if the system refuses."""
    from safetensors.torch import save

    content = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, dict(metadata))
    write_atomically(path, lambda file: file.write(content))


def read_metadata(path: Path) -> dict[str, str]:
    """Return the words of a file without reading its tensors. Raises: InputError if it is missing or damaged."""
    with _opened(path) as file:
        return file.metadata() or {}


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors and the words of a file. Raises: InputError if it is missing, damaged or of another format."""
    with _opened(path) as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}


def _opened(path: Path) -> Any:
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        _check.fail(f"{path} must be a file of tensors; it does not exist")
    try:
        return safe_open(path, framework="pt")
    except SafetensorError as error:
        _check.fail(f"{path} must be a complete file in the safetensors format; {error}")
