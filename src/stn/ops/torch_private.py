"""The names of torch that are private, in one place, under names of ours. They hold for torch 2.13 and 2.14:
`tests/ops/test_torch_private.py` says which of them another version has changed."""

from __future__ import annotations

from typing import Any

import torch
from torch._functorch.autograd_function import enable_single_level_autograd_function
from torch._functorch.eager_transforms import enable_inplace_requires_grad
from torch._functorch.utils import unwrap_dead_wrappers
from torch.autograd import forward_ad

__all__ = ["enable_inplace_requires_grad", "enable_single_level_autograd_function", "unwrap_dead_wrappers"]

SingleLevelFunction: Any = torch.autograd.function._SingleLevelFunction  # its stub has no apply
in_torch_func = torch._C._are_functorch_transforms_active
count_dispatch_modes = torch._C._len_torch_dispatch_stack
tracing_state = torch._C._get_tracing_state  # of torch.jit.trace
below_autograd = torch._C._AutoDispatchBelowAutograd
without_keys = torch._C._SetExcludeDispatchKeyGuard
AUTOGRAD = torch._C.DispatchKey.AutogradFunctionality
AFTER_AUTOGRAD = torch._C._after_autograd_keyset
records_tangents = torch._C._is_fwd_grad_enabled
set_tangents_recorded = forward_ad._set_fwd_grad_enabled

# How many tensors and other owners in C++ a storage has: with this name a dead one is used again, without it never.
storage_use_count: Any = getattr(torch._C, "_storage_Use_Count", None)

# The vmap behind `is_grads_batched` and `vectorize=True`, older than torch.func's.
is_legacy_batched = torch._C._functorch.is_legacy_batchedtensor
leave_legacy_vmap = torch._C._vmapmode_decrement_nesting
enter_legacy_vmap = torch._C._vmapmode_increment_nesting
remove_batch_dim = torch._remove_batch_dim
add_batch_dim = torch._add_batch_dim


def is_transformed() -> bool:
    """Inside forward mode or torch.func: torch has no public name for it, and its own Function.apply asks the latter so."""
    return forward_ad._current_level >= 0 or in_torch_func()


def in_forward_mode() -> bool:
    """Dynamo makes a new graph when this changes."""
    return forward_ad._current_level >= 0


def entered_in_forward_mode() -> bool:
    """Return True if the function that Dynamo is tracing was called inside a dual level."""
    from torch._dynamo.symbolic_convert import InstructionTranslator

    return bool(InstructionTranslator.current_tx().output.dual_level >= 0)


setattr(entered_in_forward_mode, "_dynamo_marked_constant", True)  # noqa: B010, mypy knows no such attribute; Dynamo calls the function once
