"""The operators as torch sees them: schemas, shapes, gradients. What torch.compile and torch.export put in their graphs.

Eager calls take the shorter way through `autograd.py`, which also has the higher derivatives and forward mode.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from stn.ops.autograd import ORACLE, Kernels, Settings, fold_looks

MATRIX = "SymInt[] size, str mode, str padding_mode, bool align_corners"
SETTINGS = {  # in the order of `autograd.Settings`
    "matrix": MATRIX,
    "basis": f"{MATRIX}, Tensor control_points",
    "field": "str mode, str padding_mode, bool align_corners, str units, bool relative",
}
LIBRARY = torch.library.Library("stn", "DEF")

_kernels: dict[str, Kernels] = {}  # device type -> kernels


def register_kernels(device_type: str, kernels: Kernels) -> None:
    """Let `kernels` (a module or an object, see `stn.ops.autograd.Kernels`) serve images on this kind of device."""
    _kernels[device_type] = kernels


def kernels_for(rule: str, image: Tensor, where: Tensor, settings: Settings) -> Kernels | None:
    """Those of the image's device, if they cover the request."""
    kernels = _kernels.get(image.device.type)
    return kernels if kernels is not None and kernels.supports(rule, image, where, settings) else None


def averaging_kernels(image: Tensor) -> Kernels | None:
    """Those of the image's device, if they average images of its dtype."""
    kernels = _kernels.get(image.device.type)
    return kernels if kernels is not None and kernels.averages(image) else None


def call(rule: str, image: Tensor, where: Tensor, fill: Tensor, settings: Settings) -> Tensor:
    """torch.ops.stn.<rule>_sample: image (N, C, *in), where (N, K, ..) -> (N, K, C, *size)."""
    out: Tensor = getattr(torch.ops.stn, f"{rule}_sample")(image, where, fill, *settings)
    return out


class Operator:
    """One coordinate rule's operator and its gradient, each a body and a shape."""

    def __init__(self, rule: str) -> None:
        self.rule = rule

    def register(self) -> None:
        sample, gradient = f"{self.rule}_sample", f"{self.rule}_sample_backward"
        tensors = "Tensor image, Tensor where, Tensor fill"
        LIBRARY.define(f"{sample}({tensors}, {SETTINGS[self.rule]}) -> Tensor")
        LIBRARY.define(f"{gradient}(Tensor grad, {tensors}, bool[] need, {SETTINGS[self.rule]}) -> (Tensor, Tensor)")
        LIBRARY.impl(sample, self.forward, "CompositeExplicitAutograd")
        LIBRARY.impl(gradient, self.backward, "CompositeExplicitAutograd")
        torch.library.register_fake(f"stn::{sample}", self.forward_shape, lib=LIBRARY)
        torch.library.register_fake(f"stn::{gradient}", self.backward_shape, lib=LIBRARY)
        register_autograd = torch.library.register_autograd
        register_autograd(f"stn::{sample}", self.differentiate, setup_context=self.setup_context, lib=LIBRARY)
        torch.library.register_vmap(f"stn::{sample}", self.batch, lib=LIBRARY)

    def forward(self, image: Tensor, where: Tensor, fill: Tensor, *settings: Any) -> Tensor:
        kernels = kernels_for(self.rule, image, where, settings)
        if kernels is None:
            return ORACLE[self.rule](image, where, fill, settings)
        return kernels.sample(self.rule, image, where, fill, settings)

    def forward_shape(self, image: Tensor, where: Tensor, fill: Tensor, *settings: Any) -> Tensor:
        size = where.shape[2:-1] if self.rule == "field" else settings[0]
        shape, d = (image.shape[0], where.shape[1], image.shape[1], *size), len(size)
        order = (0, 1, *range(3, 3 + d), 2) if is_channels_last(image) else tuple(range(3 + d))
        return torch.empty_permuted(shape, order, dtype=image.dtype, device=image.device)

    def backward(
        self, grad: Tensor, image: Tensor, where: Tensor, fill: Tensor, need: Sequence[bool], *settings: Any
    ) -> tuple[Tensor, Tensor]:
        kernels = kernels_for(self.rule, image, where, settings)
        assert kernels is not None  # `sample.py` leaves to the oracle what they do not cover
        found = kernels.gradient(self.rule, grad, image, where, fill, settings, need)
        in_image, in_where = (g if needed else None for g, needed in zip(found, need, strict=True))
        return image.new_empty(0) if in_image is None else in_image, where.new_empty(0) if in_where is None else in_where

    def backward_shape(
        self, grad: Tensor, image: Tensor, where: Tensor, fill: Tensor, need: Sequence[bool], *settings: Any
    ) -> tuple[Tensor, Tensor]:
        order = (0, *range(2, image.ndim), 1) if is_channels_last(image) else tuple(range(image.ndim))
        like_image = torch.empty_permuted(image.shape, order, dtype=image.dtype, device=image.device)
        return like_image if need[0] else image.new_empty(0), where.new_empty(where.shape if need[1] else 0)

    def setup_context(self, ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        tensors = [i for i in inputs if isinstance(i, Tensor)]  # image, where, fill, and a basis's control points
        ctx.save_for_backward(*tensors)
        ctx.settings = [None if isinstance(i, Tensor) else i for i in inputs[3:]]

    def differentiate(self, ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        image, where, fill, *points = ctx.saved_tensors
        settings = [points[0] if s is None else s for s in ctx.settings]
        need = list(ctx.needs_input_grad[:2])
        found = getattr(torch.ops.stn, f"{self.rule}_sample_backward")(grad, image, where, fill, need, *settings)
        wanted = [g if needed else None for g, needed in zip(found, need, strict=True)]
        return *wanted, *(None for _ in range(1 + len(settings)))

    def batch(
        self, info: Any, in_dims: Any, image: Tensor, where: Tensor, fill: Tensor, *settings: Any
    ) -> tuple[Tensor, int]:
        return fold_looks(lambda i, w: call(self.rule, i, w, fill, settings), info.batch_size, in_dims, image, where)


def is_channels_last(image: Tensor) -> bool:
    """Whether the result keeps this format: the image is in it, and in no other."""
    form = torch.channels_last if image.ndim == 4 else torch.channels_last_3d
    return image.shape[1] > 1 and not image.is_contiguous() and image.is_contiguous(memory_format=form)


for _rule in SETTINGS:
    Operator(_rule).register()
