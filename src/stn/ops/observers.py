"""Detect compilers, tracers, dispatch modes, torch.func and forward mode: calls under these must use the operators.

Kernels read pixels from memory directly. None of these would record that, and their tensors may have no memory at all.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from stn import _check
from stn.ops.torch_private import (
    count_dispatch_modes,
    entered_in_forward_mode,
    in_forward_mode,
    is_legacy_batched,
    is_transformed,
    tracing_state,
)


def differentiated(*tensors: Tensor) -> bool:
    """Whether torch may want a derivative of this call. A Function costs some 10 us, which a batch of digits feels."""
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors) or is_transformed()


def observed(*tensors: Tensor) -> bool:
    """Return True if the call must go through the registered operator instead of directly to a kernel.

    That is so under a compiler, tracer, dispatch mode or transform, and for tensors that are fake, functional, of a
    subclass, or batched by autograd's own vmap.
    """
    if torch.compiler.is_compiling():  # first, because Dynamo cannot trace the checks below
        return True
    if is_transformed() or count_dispatch_modes() or tracing_state() is not None:
        return True
    return any(_is_special(tensor) for tensor in tensors)


def readable(tensor: Tensor) -> bool:
    """Return True if the numbers can be looked at for nothing: they lie in the CPU's memory, and nobody records the call."""
    return tensor.device.type == "cpu" and not observed(tensor)


def _is_special(tensor: Tensor) -> bool:
    plain = type(tensor) is Tensor or type(tensor) is nn.Parameter
    return not plain or is_legacy_batched(tensor)


def refuse_lost_tangents() -> None:
    """Raise an error where torch.compile would silently drop tangents: its default backend ignores those of the inputs."""
    # Reading the level makes Dynamo recompile when it changes.
    if torch.compiler.is_compiling() and in_forward_mode() and entered_in_forward_mode():
        _check.fail("forward mode must begin inside the compiled function: torch.compile loses the tangents of its inputs")
