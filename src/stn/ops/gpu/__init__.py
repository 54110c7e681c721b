"""Kernels for GPUs, in Triton. This package is imported at first use; importing the library does not import Triton.

The kernels sample images on CUDA devices if Triton is installed; torch's CUDA builds for Linux include it. Without Triton,
and for calls that no kernel covers, the reference runs on the device.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from stn.ops.rules import Lattice, Rule, Spline
from stn.ops.sampling import Sampling

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)  # sums of half precision are in float32
MOST_PIXELS = 2**30  # of one plane or volume, so that pixel indices fit into signed 32-bit integers
TRITON = importlib.util.find_spec("triton") is not None


def supports(rule: Rule, image: Tensor, data: Tensor, sampling: Sampling) -> bool:
    most = max(math.prod(image.shape[2:]), math.prod(rule.out_size(data)))
    if isinstance(rule, Spline) and image.ndim == 5:  # its kernels are of planes
        return False
    if isinstance(rule, Lattice) and rule.degree == 3 and min(data.shape[2:-1]) < 4:  # a pixel reads four control points
        return False
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
