"""What the networks are made of: a convolution or a dense layer, batch norm, ReLU, and dropout that a run switches on."""

from __future__ import annotations

import math
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.grad import conv2d_weight

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


def set_dropout(network: nn.Module, share: float) -> None:
    """Let all of a network's dropout layers leave out this share of their units."""
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = share


def channels_last(network: Module) -> Module:
    """The same network; the weights of its convolutions lie as those of images in torch.channels_last do.

    Those of one channel, too: they have that order already, but torch goes by the strides, of which it takes the usual ones
    for the other order. The first maps would be so laid out; the step of Table 1's CNN takes twice as long then.
    """
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    for weight in network.parameters():
        if weight.ndim in formats:
            weight.data = torch.empty_like(weight, memory_format=formats[weight.ndim]).copy_(weight.data)
    return network


def fully_connected(in_features: int, num_classes: int, budget: int) -> nn.Sequential:
    """Two hidden layers, as wide as so many parameters allow: h^2 + h (in_features + 4 + num_classes) + num_classes."""
    b = in_features + 4 + num_classes
    width = int((math.sqrt(b * b + 4 * (budget - num_classes)) - b) / 2)
    hidden = dense(in_features, width), dense(width, width)
    return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(width, num_classes))


class ImageConvolution(nn.Conv2d):
    """A convolution of few channels, for images of even sides. Its gradient to a look is quick.

    On a CPU the gradient to one channel or three leaves the vector units all but empty. As a convolution of stride 2 it
    finds 2x2 pixels at a time, as channels. Forward and backward, one thread: of 3 to 48 channels, 5x5, 32 images of 64
    pixels, 24 ms without a gradient to the image, 69 with torch's, 44 with this one; of 1 to 32, 9x9 unpadded, 256 images of
    28 pixels in bfloat16, with the batch norm and the pooling after it, 86 ms with torch's, 60 with this one.
    """

    def forward(self, input: Tensor) -> Tensor:  # (N, C, H, W) -> (N, C', H', W')
        looks = torch.is_grad_enabled() and input.requires_grad and input.device.type == "cpu"
        even = input.shape[2] % 2 == input.shape[3] % 2 == 0
        if not (looks and even and self._is_plain) or torch.compiler.is_compiling():
            return super().forward(input)
        image, weight = input, self.weight
        if torch.is_autocast_enabled("cpu"):  # here, for backward has to know
            image, weight = (value.to(torch.get_autocast_dtype("cpu")) for value in (image, weight))
        out: Tensor = _FewChannels.apply(image, weight, self.padding)
        return out if self.bias is None else out + self.bias[:, None, None].to(out.dtype)

    @property
    def _is_plain(self) -> bool:
        if isinstance(self.padding, str) or any(p >= k for p, k in zip(self.padding, self.kernel_size, strict=True)):
            return False
        return self.stride == self.dilation == (1, 1) and self.groups == 1 and self.padding_mode == "zeros"


class _FewChannels(torch.autograd.Function):
    """conv2d of stride 1."""

    @staticmethod
    def forward(image: Tensor, weight: Tensor, padding: tuple[int, int]) -> Tensor:
        return F.conv2d(image, weight, padding=padding)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, tuple[int, int]], output: Tensor) -> None:
        image, weight, ctx.padding = inputs
        ctx.save_for_backward(image, weight)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        (grad,), (image, weight), to_image, to_weight = grads, ctx.saved_tensors, None, None
        if ctx.needs_input_grad[0]:  # correlate with the flipped kernel, moved by 0 or 1 pixels: (4 C, C', k + 1, k + 1)
            flipped = weight.flip(2, 3).transpose(0, 1)
            moved = [F.pad(flipped, (right, 1 - right, down, 1 - down)) for down in (0, 1) for right in (0, 1)]
            rest = [k - 1 - p for k, p in zip(weight.shape[2:], ctx.padding, strict=True)]
            fours = F.conv2d(grad, torch.stack(moved, dim=1).flatten(0, 1), stride=2, padding=rest)
            to_image = F.pixel_shuffle(fours, 2)
        if ctx.needs_input_grad[1]:
            to_weight = conv2d_weight(image, weight.shape, grad, padding=ctx.padding)
        return to_image, to_weight, None
