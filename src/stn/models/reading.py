"""Reading a picture of one digit with a trained network."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from stn import _check
from stn.ops import affine_sample

DIGIT, CANVAS = 20, 42  # pixels: longer side of a digit, and side of the image that the networks were trained on
FAINTEST = 0.05  # contrast of a digit, of [0, 1]
INK = 0.3  # share of the largest contrast that counts as ink


def read_digit(network: nn.Module, image: Tensor) -> Tensor:
    """Read the digit in a picture: dark on a light ground or light on a dark one, upright or turned by up to 45 degrees.

    The digit is brought to the form of the networks' images: light on black, its longer side 20 of 42 pixels, its
    center of mass in the middle.

    Args:
        network: A trained network for digits, of `stn.models.load`.
        image: (C, H, W) with values in [0, 1], one digit on an even ground. Colors are averaged.

    Returns:
        (10,) probabilities of the digits 0 to 9, float32.

    Raises:
        InputError: The image has another form, or shows nothing.

    Example:
        >>> from stn.models import load, read_digit
        >>> page = torch.ones(1, 60, 80)  # white
        >>> page[:, 10:50, 38:43] = 0  # a black stroke
        >>> read_digit(load("st-cnn-affine/rts"), page).argmax().item()
        1
    """
    _check.tensor("image", image)
    if image.ndim != 3 or not image.is_floating_point() or 0 in image.shape:
        _check.fail(f"image must be (C, H, W) of floating-point numbers; got {image.dtype} {tuple(image.shape)}")
    with torch.inference_mode():
        probabilities: Tensor = network(digit_image(image)).softmax(dim=-1)[0]
    return probabilities


def digit_image(image: Tensor) -> Tensor:  # (C, H, W) -> (1, 1, CANVAS, CANVAS)
    """Bring a picture of a digit to the form of the networks' images."""
    gray = image.float().mean(dim=0)
    edge = torch.cat([gray[0], gray[-1], gray[:, 0], gray[:, -1]])
    ink = (gray - edge.median()).abs()
    if not ink.max() >= FAINTEST:
        _check.fail(f"image must show a digit on a ground of another brightness; its contrast is {ink.max().item():.2g}")
    ink = ink / ink.max()
    ink = ink * (ink > INK / 3)  # noise of the ground
    rows, columns = ((ink > INK).any(dim=axis).nonzero().flatten() for axis in (1, 0))
    span = max(int(part[-1] - part[0]) + 1 for part in (rows, columns)) * CANVAS / DIGIT
    height, width = ink.shape
    mass = ink / ink.sum()
    x = (mass.sum(dim=0) * (torch.arange(width) + 0.5)).sum()
    y = (mass.sum(dim=1) * (torch.arange(height) + 0.5)).sum()
    theta = torch.tensor([[span / width, 0, 2 * x / width - 1], [0, span / height, 2 * y / height - 1]])
    small: Tensor = affine_sample(ink[None, None], theta, (CANVAS, CANVAS), antialias=True)
    return (small / small.max()).clamp(0, 1)
