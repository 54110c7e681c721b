"""Whether a call is being traced for a runtime that knows none of our operators, and what it has in their place."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import torch

LOWERINGS = ("grid_sample", "gather")
VOLUMES_FROM = 20  # the opset of ONNX whose GridSample takes volumes


@dataclass(frozen=True)
class Target:
    """What looks become: one operator of the runtime's, or gathers and sums. `opset`: of ONNX, None for torch alone."""

    lowering: str
    opset: int | None = None


_target: ContextVar[Target | None] = ContextVar("target", default=None)


@contextmanager
def exporting(target: Target) -> Iterator[None]:
    """What torch.export traces in here is lowered for this target."""
    token = _target.set(target)
    try:
        yield
    finally:
        _target.reset(token)


def current() -> Target | None:
    # Dynamo, which cannot read a context variable, knows the first answer when it compiles, and does not ask for it.
    return _target.get() if torch.compiler.is_exporting() else None
