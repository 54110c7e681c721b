"""Register one operator with torch, with rules for autograd, forward mode, both kinds of vmap, and fake tensors.

torch.library.register_autograd supports only first derivatives in reverse mode. Here every level of autograd (torch's own
and each level of torch.func) wraps the call in its own autograd function, which also has a forward derivative.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from stn.ops import legacy_vmap
from stn.ops import torch_private as private

LIBRARY = torch.library.Library("stn", "DEF")


def opaque(function: Callable[..., Any]) -> Callable[..., Any]:
    """Hide a function from Dynamo, which otherwise traces the rules of an operator that an uncompiled frame calls."""
    disabled: list[Callable[..., Any]] = []

    def run(*arguments: Any) -> Any:
        dynamo = sys.modules.get("torch._dynamo")  # its import takes a second, and most users never need it
        if dynamo is None:
            return function(*arguments)
        if not disabled:
            disabled.append(dynamo.disable(function))
        return disabled[0](*arguments)

    return run


class Level(private.SingleLevelFunction):
    """An operator at one level of autograd, reverse and forward. torch.func has already been dispatched at this point, so a
    torch.autograd.Function, which dispatches it again, does not fit."""

    @staticmethod
    def forward(ctx: Any, operator: Operator, state: tuple[Any, bool, bool], *inputs: Any) -> Any:
        """state: the dispatcher's keys, and whether gradients and tangents were recorded. An autograd function turns both
        off; they are restored here, because the levels below must still record theirs."""
        tensors = [value for value in inputs if isinstance(value, Tensor)]
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)
        ctx.set_materialize_grads(False)
        ctx.operator, ctx.rest = operator, [None if isinstance(value, Tensor) else value for value in inputs]
        keys, recorded, pushed = state
        below = private.below_autograd()
        with torch.set_grad_enabled(recorded), private.set_tangents_recorded(pushed), below:
            return operator.overload.redispatch(keys & private.AFTER_AUTOGRAD, *inputs)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        inputs = _inputs(ctx)
        found = ctx.operator.pull(ctx.needs_input_grad[2:], grads, *inputs)
        return None, None, *found, *(None for _ in inputs[len(found) :])

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        with private.set_tangents_recorded(True):  # the levels below have separate tangents
            inputs = [forward_ad.unpack_dual(i).primal if isinstance(i, Tensor) else i for i in _inputs(ctx)]
            return ctx.operator.push(tangents[2:], *inputs)


def _inputs(ctx: Any) -> list[Any]:
    """The inputs of the call. Saved tensors are read only once, because activation checkpointing returns them only once.
    Wrappers of torch.func levels that have ended are removed."""
    tensors = iter(private.unwrap_dead_wrappers(ctx.saved_tensors))
    return [next(tensors) if value is None else value for value in ctx.rest]


class Operator(ABC):
    """An operator in torch's registry: its kernel, its output shape, and its rules for autograd, forward mode and vmap."""

    def __init__(self, name: str, arguments: str, result: str) -> None:
        LIBRARY.define(f"{name}({arguments}) -> {result}")
        self.overload = getattr(torch.ops.stn, name).default
        LIBRARY.impl(name, opaque(self.body), "CompositeExplicitAutograd")
        LIBRARY.impl(name, opaque(self.differentiable), "Autograd", with_keyset=True)
        LIBRARY.impl(name, opaque(lambda *inputs: legacy_vmap.through(self.batch, inputs)), "Batched")
        torch.library.register_fake(f"stn::{name}", self.shape, lib=LIBRARY)
        torch.library.register_vmap(f"stn::{name}", opaque(self.batch), lib=LIBRARY)

    def differentiable(self, keys: Any, *inputs: Any) -> Any:
        with private.enable_single_level_autograd_function():
            return Level.apply(self, (keys, torch.is_grad_enabled(), private.records_tangents()), *inputs)

    @abstractmethod
    def body(self, *inputs: Any) -> Any: ...

    @abstractmethod
    def shape(self, *inputs: Any) -> Any: ...

    @abstractmethod
    def batch(self, info: Any, in_dims: Any, *inputs: Any) -> Any:
        """The rule for torch.library.register_vmap: returns the outputs and their mapped dimensions."""

    @abstractmethod
    def pull(self, needed: Sequence[bool], grads: Any, *inputs: Any) -> Any:
        """Return the gradients with respect to the first inputs, given those with respect to the outputs."""

    @abstractmethod
    def push(self, tangents: Any, *inputs: Any) -> Any:
        """Return the tangents of the outputs, given those of the inputs."""
