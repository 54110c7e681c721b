"""Blocks of the networks: a convolution or a dense layer, batch norm, ReLU, and optional dropout."""

from __future__ import annotations

import math
from typing import TypeVar

import torch
from torch import nn

from stn.models.few_channels import ImageConvolution

Module = TypeVar("Module", bound=nn.Module)


def convolution(
    before: int, after: int, kernel: int, *, stride: int = 1, padded: bool = True, ndim: int = 2, image: bool = False
) -> nn.Sequential:
    """(N, before, *in) -> (N, after, *out): out = in / stride, or without padding (in - kernel + 1) / stride, rounded up.

    image: the input has few channels, and may be a look (`ImageConvolution`).
    """
    conv, norm = (nn.Conv2d, nn.BatchNorm2d) if ndim == 2 else (nn.Conv3d, nn.BatchNorm3d)
    conv = ImageConvolution if image else conv
    padding = kernel // 2 if padded else 0
    return nn.Sequential(conv(before, after, kernel, stride, padding, bias=False), norm(after), nn.ReLU())


def dense(before: int, after: int) -> nn.Sequential:
    """(N, before) -> (N, after). No unit is dropped unless `set_dropout` says so."""
    return nn.Sequential(nn.Linear(before, after, bias=False), nn.BatchNorm1d(after), nn.ReLU(), nn.Dropout(0.0))


def scaled(number: int, width: float) -> int:
    """Return the number of channels or units of a network of this relative width."""
    return max(1, round(number * width))


def set_dropout(network: nn.Module, share: float) -> None:
    """Set the probability of all dropout layers of a network."""
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = share


def channels_last(network: Module) -> Module:
    """Return the network with the weights of its convolutions in channels-last memory.

    This includes weights of one channel: both layouts are equal, but torch decides by the strides, and the usual strides
    would give the first feature maps the other layout. A step of the CNN of Table 1 would take twice as long.
    """
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    for weight in network.parameters():
        if weight.ndim in formats:
            weight.data = torch.empty_like(weight, memory_format=formats[weight.ndim]).copy_(weight.data)
    return network


def fully_connected(in_features: int, num_classes: int, budget: int) -> nn.Sequential:
    """Return two hidden layers of the largest possible width: h^2 + h (in_features + 4 + num_classes) + num_classes."""
    b = in_features + 4 + num_classes
    width = int((math.sqrt(b * b + 4 * (budget - num_classes)) - b) / 2)
    hidden = dense(in_features, width), dense(width, width)
    return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(width, num_classes))
