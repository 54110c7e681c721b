"""`load_warp`: read the file that `Warp.save` writes."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stn import _check
from stn.io.files import read_tensors
from stn.transforms.bspline import BSplineWarp
from stn.transforms.cpab import CPABWarp
from stn.transforms.field import FieldWarp
from stn.transforms.indexed import IndexedWarp
from stn.transforms.matrix import MatrixWarp
from stn.transforms.saved import FORMAT, VERSION
from stn.transforms.spline import ThinPlateWarp
from stn.transforms.velocity import FlowWarp, SplineFlowWarp
from stn.transforms.warp import ComposedWarp, InverseWarp, Warp

KINDS: dict[str, type[Warp]] = {
    kind.__name__: kind
    for kind in (
        MatrixWarp,
        ThinPlateWarp,
        BSplineWarp,
        FieldWarp,
        FlowWarp,
        SplineFlowWarp,
        CPABWarp,
        ComposedWarp,
        InverseWarp,
        IndexedWarp,
    )
}


def load_warp(path: str | Path, *, device: str | torch.device = "cpu") -> Warp:
    """Read a warp from the file that `Warp.save` wrote.

    Args:
        path: The file.
        device: Device of the warp.

    Returns:
        The warp. It has no gradient.

    Raises:
        InputError: There is no such file, it is not the file of a warp, or a newer version of the library wrote it.

    Example:
        >>> import os, tempfile
        >>> path = os.path.join(tempfile.mkdtemp(), "warp.pt")
        >>> stn.Translation()(torch.tensor([[0.5, 0.0]])).save(path)
        >>> stn.load_warp(path)
        MatrixWarp(affine, batch=(1,), ndim=2, dtype=torch.float32, device='cpu')
    """
    path = _check.path_of("path", path)
    if not path.is_file():
        _check.fail(f"path must be the file of a warp; {path} {'is a folder' if path.is_dir() else 'does not exist'}")
    try:
        found = read_tensors(path)
        version = found.pop(FORMAT)
        warp = None if version > VERSION else _built(found, torch.device(device))
    except Exception as error:  # damaged bytes can raise anything
        _check.fail(f"path must be a file that Warp.save wrote; reading {path} raised {type(error).__name__}")
    if warp is None:
        _check.fail(f"path must be the file of a warp up to format {VERSION}; {path} has format {version}")
    return warp


def _built(found: dict[str, Any], device: torch.device) -> Warp:
    kind = KINDS[found.pop("kind")]
    if found.keys() != inspect.signature(kind).parameters.keys():
        raise KeyError(kind.__name__)
    return kind(**{name: _restored(value, device) for name, value in found.items()})


def _restored(value: Any, device: torch.device) -> Any:
    if isinstance(value, dict):
        return _built(value, device)
    return value.to(device) if isinstance(value, Tensor) else value
