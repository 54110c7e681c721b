"""Plain eager calls: straight to the kernels, with first derivatives. All other calls use the operators of `library.py`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from stn.ops.devices import Kernels, Settings
from stn.ops.library import call, call_gradient
from stn.ops.observers import differentiated, observed


def sample(kernels: Kernels, rule: str, image: Tensor, where: Tensor, fill: Tensor, settings: Settings) -> Tensor:
    """image (N, C, *in), where (N, K, ..): a matrix or a field for each look -> (N, K, C, *size)."""
    if observed(image, where, fill):
        return call(rule, image, where, fill, settings)
    if not differentiated(image, where):
        return kernels.sample(rule, image, where, fill, settings)
    out: Tensor = Sample.apply(image, where, fill, kernels, rule, settings)
    return out


class Sample(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, image: Tensor, where: Tensor, fill: Tensor, kernels: Kernels, rule: str, settings: Settings
    ) -> Tensor:
        ctx.save_for_backward(image, where, fill)
        ctx.how = kernels, rule, settings
        return kernels.sample(rule, image, where, fill, settings)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        image, where, fill = ctx.saved_tensors  # read only once: activation checkpointing returns them only once
        kernels, rule, settings = ctx.how
        need = tuple(ctx.needs_input_grad[:2])
        found: tuple[Tensor | None, ...]
        if observed(grad, image, where) or differentiated(grad, image, where):
            found = call_gradient(rule, grad, image, where, fill, need, settings)
        else:
            found = kernels.gradient(rule, grad, image, where, fill, settings, need)
        return *found, None, None, None, None
