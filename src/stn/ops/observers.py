"""Detect compilers, tracers, dispatch modes, torch.func and forward mode: calls under these must use the operators.

Kernels read pixels from memory directly. None of these would record that, and their tensors may have no memory at all.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from stn import _check


def differentiated(*tensors: Tensor) -> bool:
    """Whether torch may want a derivative of this call. A Function costs some 10 us, which a batch of digits feels."""
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors) or is_transformed()


def is_transformed() -> bool:
    """Inside forward mode or torch.func: torch has no public name for it, and its own Function.apply asks the latter so."""
    return forward_ad._current_level >= 0 or torch._C._are_functorch_transforms_active()


def observed(*tensors: Tensor) -> bool:
    """Return True if the call must go through the registered operator instead of directly to a kernel.

    That is so under a compiler, tracer, dispatch mode or transform, and for tensors that are fake, functional, of a
    subclass, or batched by autograd's own vmap.
    """
    if torch.compiler.is_compiling():  # first, because Dynamo cannot trace the checks below
        return True
    if is_transformed() or torch._C._len_torch_dispatch_stack() or torch._C._get_tracing_state() is not None:
        return True
    return any(_is_special(tensor) for tensor in tensors)


def readable(tensor: Tensor) -> bool:
    """Return True if the numbers can be looked at for nothing: they lie in the CPU's memory, and nobody records the call."""
    return tensor.device.type == "cpu" and not observed(tensor)


def _is_special(tensor: Tensor) -> bool:
    plain = type(tensor) is Tensor or type(tensor) is nn.Parameter
    return not plain or torch._C._functorch.is_legacy_batchedtensor(tensor)


def refuse_lost_tangents() -> None:
    """Raise an error where torch.compile would silently drop tangents: its default backend ignores those of the inputs."""
    # Reading the level makes Dynamo recompile when it changes.
    if torch.compiler.is_compiling() and forward_ad._current_level >= 0 and _entered_in_forward_mode():
        _check.fail("forward mode must begin inside the compiled function: torch.compile loses the tangents of its inputs")


def _entered_in_forward_mode() -> bool:
    """Return True if the function that Dynamo is tracing was called inside a dual level."""
    from torch._dynamo.symbolic_convert import InstructionTranslator

    return bool(InstructionTranslator.current_tx().output.dual_level >= 0)


setattr(_entered_in_forward_mode, "_dynamo_marked_constant", True)  # noqa: B010, mypy knows no such attribute; Dynamo calls the function once
