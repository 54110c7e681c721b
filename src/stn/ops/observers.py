"""Who looks at a call besides reverse-mode autograd: compilers, tracers, dispatch modes, torch.func, forward mode.

Kernels read numbers from memory, which none of these would see, and which their tensors may not have.
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
    """Whether anything must find a registered operator in place of a kernel's result.

    A compiler or a tracer, a dispatch mode, a transform; or a tensor that is more than its numbers: fake, functional, a
    subclass, or batched by autograd's own vmap.
    """
    if torch.compiler.is_compiling():  # first: Dynamo knows the answer, and traces no further
        return True
    if is_transformed() or torch._C._len_torch_dispatch_stack() or torch._C._get_tracing_state() is not None:
        return True
    return any(_is_more_than_numbers(tensor) for tensor in tensors)


def _is_more_than_numbers(tensor: Tensor) -> bool:
    plain = type(tensor) is Tensor or type(tensor) is nn.Parameter
    return not plain or torch._C._functorch.is_legacy_batchedtensor(tensor)


def refuse_lost_tangents() -> None:
    """torch.compile's default backend drops the tangents of what is handed in, of every operator, without a word."""
    # The level is read so that Dynamo compiles anew where it changes.
    if torch.compiler.is_compiling() and forward_ad._current_level >= 0 and _entered_in_forward_mode():
        _check.fail("forward mode must begin inside the compiled function: torch.compile loses the tangents of its inputs")


def _entered_in_forward_mode() -> bool:
    """Whether the function that Dynamo traces was called within a dual level."""
    from torch._dynamo.symbolic_convert import InstructionTranslator

    return bool(InstructionTranslator.current_tx().output.dual_level >= 0)


setattr(_entered_in_forward_mode, "_dynamo_marked_constant", True)  # noqa: B010, Dynamo calls it and keeps the answer
