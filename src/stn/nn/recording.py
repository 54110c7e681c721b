"""Layers under torch.jit, which records or compiles calls."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import nn

from stn import _check


def recording() -> AbstractContextManager[object]:
    """Return the context in which a layer is to run."""
    if not torch.compiler.is_compiling() and torch.jit.is_tracing():
        return traced()
    return nullcontext()


@contextmanager
def traced() -> Iterator[None]:
    """Hide the warnings of each check of a shape: a trace is for images of one size, and any number of them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        yield


def refuse_script(module: nn.Module) -> None:
    """Raise an error for torch.jit.script, which asks each module for a form that it can compile."""
    _check.fail(
        f"{type(module).__name__} must be recorded, because torch.jit.script compiles no operators in Python: use "
        "stn.export.to_program, stn.export.to_onnx or torch.jit.trace"
    )
