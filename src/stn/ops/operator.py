"""A name in torch's registry, with a rule for whatever may look at a call: what `library.py` registers.

torch.library.register_autograd knows reverse mode alone, once. Here each level of autograd, whether torch's own or one of
torch.func, finds a Function of its own, with forward mode, around whatever lies below.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._functorch.autograd_function import enable_single_level_autograd_function
from torch._functorch.utils import unwrap_dead_wrappers
from torch.autograd import forward_ad

from stn.ops import legacy_vmap

LIBRARY = torch.library.Library("stn", "DEF")
SingleLevelFunction: Any = torch.autograd.function._SingleLevelFunction  # its stub has no apply


def opaque(function: Callable[..., Any]) -> Callable[..., Any]:
    """Hidden from Dynamo, which would trace what an operator does when torch calls it from an uncompiled frame."""
    disabled: list[Callable[..., Any]] = []

    def run(*arguments: Any) -> Any:
        dynamo = sys.modules.get("torch._dynamo")  # whose import takes a second, and which most never need
        if dynamo is None:
            return function(*arguments)
        if not disabled:
            disabled.append(dynamo.disable(function))
        return disabled[0](*arguments)

    return run


class Level(SingleLevelFunction):
    """An operator under autograd, reverse and forward. Not a Function, for that asks torch.func, which has been asked."""

    @staticmethod
    def forward(ctx: Any, operator: Operator, state: tuple[Any, bool, bool], *inputs: Any) -> Any:
        """state: the dispatcher's keys, and whether torch recorded gradients and tangents, which a Function turns off: the
        levels below this one are to record theirs."""
        tensors = [value for value in inputs if isinstance(value, Tensor)]
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)
        ctx.set_materialize_grads(False)
        ctx.operator, ctx.rest = operator, [None if isinstance(value, Tensor) else value for value in inputs]
        keys, recorded, pushed = state
        below = torch._C._AutoDispatchBelowAutograd()
        with torch.set_grad_enabled(recorded), forward_ad._set_fwd_grad_enabled(pushed), below:
            return operator.overload.redispatch(keys & torch._C._after_autograd_keyset, *inputs)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        inputs = _inputs(ctx)
        found = ctx.operator.pull(ctx.needs_input_grad[2:], grads, *inputs)
        return None, None, *found, *(None for _ in inputs[len(found) :])

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        with forward_ad._set_fwd_grad_enabled(True):  # for the levels below this one, whose tangents are others
            inputs = [forward_ad.unpack_dual(i).primal if isinstance(i, Tensor) else i for i in _inputs(ctx)]
            return ctx.operator.push(tangents[2:], *inputs)


def _inputs(ctx: Any) -> list[Any]:
    """Those of the call. The saved tensors are read once: activation checkpointing hands them out once. Those of a level of
    torch.func that has ended have lost it."""
    tensors = iter(unwrap_dead_wrappers(ctx.saved_tensors))
    return [next(tensors) if value is None else value for value in ctx.rest]


class Operator(ABC):
    """A name in torch's registry: a body, a shape, and what becomes of it under autograd, forward mode and vmap."""

    def __init__(self, rule: str, name: str, arguments: str, result: str) -> None:
        self.rule = rule
        LIBRARY.define(f"{name}({arguments}) -> {result}")
        self.overload = getattr(torch.ops.stn, name).default
        LIBRARY.impl(name, opaque(self.body), "CompositeExplicitAutograd")
        LIBRARY.impl(name, opaque(self.differentiable), "Autograd", with_keyset=True)
        LIBRARY.impl(name, opaque(lambda *inputs: legacy_vmap.through(self.batch, inputs)), "Batched")
        torch.library.register_fake(f"stn::{name}", self.shape, lib=LIBRARY)
        torch.library.register_vmap(f"stn::{name}", opaque(self.batch), lib=LIBRARY)

    def differentiable(self, keys: Any, *inputs: Any) -> Any:
        with enable_single_level_autograd_function():
            return Level.apply(self, (keys, torch.is_grad_enabled(), torch._C._is_fwd_grad_enabled()), *inputs)

    @abstractmethod
    def body(self, *inputs: Any) -> Any: ...

    @abstractmethod
    def shape(self, *inputs: Any) -> Any: ...

    @abstractmethod
    def batch(self, info: Any, in_dims: Any, *inputs: Any) -> Any:
        """As torch.library.register_vmap has it."""

    @abstractmethod
    def pull(self, needed: Sequence[bool], grads: Any, *inputs: Any) -> Any:
        """Gradients in the first inputs, from those in the results."""

    @abstractmethod
    def push(self, tangents: Any, *inputs: Any) -> Any:
        """Tangents of the results, from those of the inputs."""
