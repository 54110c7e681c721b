"""Kernels for GPUs, in Triton. Loaded when first used: importing the library imports no Triton.

They serve images on CUDA devices by themselves, wherever Triton is installed, as it is with torch's CUDA builds. Without it,
and for what they do not cover, the reference computes on the device as it does anywhere.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from stn.ops.rules import Rule
from stn.ops.sampling import Sampling

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)  # sums of half precision are in float32
MOST_PIXELS = 2**30  # of one plane or volume, so that their numbers have 32 bits, a sign among them
TRITON = importlib.util.find_spec("triton") is not None


def supports(rule: Rule, image: Tensor, data: Tensor, sampling: Sampling) -> bool:
    most = max(math.prod(image.shape[2:]), math.prod(rule.out_size(data)))
    return TRITON and image.dtype in DTYPES and most < MOST_PIXELS


def sample(rule: Rule, image: Tensor, data: Tensor, fill: Tensor, sampling: Sampling) -> Tensor:
    from stn.ops.gpu.launch import Call

    return Call(rule, image, data, fill, sampling).sample()


def gradient(
    rule: Rule, grad: Tensor, image: Tensor, data: Tensor, fill: Tensor, sampling: Sampling, need: Sequence[bool]
) -> tuple[Tensor | None, Tensor | None]:
    from stn.ops.gpu.launch import Call

    need_image, need_data = need
    return Call(rule, image, data, fill, sampling).gradient(grad, need_image, need_data)
