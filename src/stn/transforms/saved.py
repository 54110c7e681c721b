"""The content of the file of a warp: tensors and plain values, which `torch.load` reads by default."""

from __future__ import annotations

import inspect
from pathlib import Path

import torch
from torch import Tensor

from stn import _check
from stn.io.files import write_tensors

FORMAT = "stn_warp"  # key of the version of the format
VERSION = 1


def write_warp(warp: object, path: Path) -> None:
    """Raises: InputError if the file cannot be written, or the class of a warp is not one of `stn.transforms`."""
    write_tensors(path, {FORMAT: VERSION} | parts(warp))


def parts(warp: object) -> dict[str, object]:
    """Return the class of a warp and the arguments of its constructor, which are its attributes."""
    kind = type(warp).__name__
    if not type(warp).__module__.startswith("stn.transforms."):
        _check.fail(f"the warp must be of a class of stn to be saved; got {kind}")
    return {"kind": kind} | {name: _plain(getattr(warp, name)) for name in inspect.signature(type(warp)).parameters}


def _plain(value: object) -> object:
    if isinstance(value, Tensor):
        return value.detach().clone(memory_format=torch.contiguous_format)  # a view would be saved with its whole base
    if isinstance(value, int | float | torch.dtype):
        return value
    return parts(value)
