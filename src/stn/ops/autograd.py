"""Plain eager calls: straight to the kernels, with first derivatives. All other calls use the operators of `library.py`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from stn.ops.devices import Kernels
from stn.ops.library import call, call_gradient
from stn.ops.observers import differentiated, observed
from stn.ops.rules import Rule
from stn.ops.sampling import Sampling


def sample(kernels: Kernels, rule: Rule, image: Tensor, data: Tensor, fill: Tensor, sampling: Sampling) -> Tensor:
    """image (N, C, *in), data (N, K, ..) -> (N, K, C, *size)."""
    if observed(image, data, fill):
        return call(rule, image, data, fill, sampling)
    if not differentiated(image, data):
        return kernels.sample(rule, image, data, fill, sampling)
    out: Tensor = Sample.apply(image, data, fill, kernels, rule, sampling)
    return out


class Sample(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, image: Tensor, data: Tensor, fill: Tensor, kernels: Kernels, rule: Rule, sampling: Sampling
    ) -> Tensor:
        ctx.save_for_backward(image, data, fill)
        ctx.how = kernels, rule, sampling
        return kernels.sample(rule, image, data, fill, sampling)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        image, data, fill = ctx.saved_tensors  # read only once: activation checkpointing returns them only once
        kernels, rule, sampling = ctx.how
        need = tuple(ctx.needs_input_grad[:2])
        found: tuple[Tensor | None, ...]
        if observed(grad, image, data) or differentiated(grad, image, data):
            found = call_gradient(rule, grad, image, data, fill, need, sampling)
        else:
            found = kernels.gradient(rule, grad, image, data, fill, sampling, need)
        return *found, None, None, None, None
