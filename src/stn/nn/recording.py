"""Calls that are recorded by tools which know nothing of this library: torch.jit.trace and torch.onnx.export."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

from stn.ops.context import VOLUMES_FROM, Target, export_target, exporting
from stn.ops.sampling import Sampling


def recording(ndim: int, sampling: Callable[[], Sampling]) -> AbstractContextManager[object]:
    """Return the context in which a layer is to run: torch's own operators for ONNX, no warnings for a trace.

    Of two lowerings it is GridSample where that has the options, for images and
    signals; volumes need an opset that is not known here.
    """
    if torch.compiler.is_exporting():
        if not torch.onnx.is_in_onnx_export() or export_target() is not None:
            return nullcontext()
        how = sampling()
        single = ndim < 3 and 2 in how.interpolation.grid_sample and how.padding.grid_sample
        return exporting(Target("grid_sample" if single else "gather", VOLUMES_FROM))
    if not torch.compiler.is_compiling() and torch.jit.is_tracing():
        return traced()
    return nullcontext()


@contextmanager
def traced() -> Iterator[None]:
    """Hide the warnings of each check of a shape: a trace is for images of one size, and any number of them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        yield
