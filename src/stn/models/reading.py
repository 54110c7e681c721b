"""Reading a picture of one digit, or of a line of digits, with a trained network."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stn import _check
from stn.models.lines import greedy_decode
from stn.ops import affine_sample
from stn.ops.context import without_kernels

DIGIT, CANVAS = 20, 42  # pixels: longer side of a digit, and side of the image that the networks were trained on
LINE, FILLED = (64, 200), 0.92  # height and width of the images of lines, and the share that a line fills along each axis
CHARACTERS = "0123456789"
FAINTEST = 0.05  # contrast of a digit, of [0, 1]
INK = 0.3  # share of the largest contrast that counts as ink
# A line is at least WIDE times as wide as high, or wider than high and in PIECES, at least, apart by empty columns. Of 4,000
# test digits of MNIST that are turned by up to 45 degrees, 0.7 % count as lines; of 1,030 curved lines of three digits, none
# counts as a digit.
WIDE, PIECES = 1.7, 2


class Ink(NamedTuple):
    """The writing in a picture, light on black, and the box around it in pixels."""

    values: Tensor  # (H, W), the largest is 1
    low: tuple[int, int]  # (x, y), first column and row
    size: tuple[int, int]  # (width, height)


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
        InputError: The image has another form, or shows nothing, or the network is not one for single digits.

    Example:
        >>> from stn.models import load, read_digit
        >>> page = torch.ones(1, 60, 80)  # white
        >>> page[:, 10:50, 38:43] = 0  # a black stroke
        >>> read_digit(load("st-cnn-affine/rts"), page).argmax().item()
        1
    """
    logits = _logits(network, digit_image(image), "single digits")
    if logits.shape != (1, len(CHARACTERS)):
        _check.fail(f"network must be one for single digits, with logits (1, 10); got logits {tuple(logits.shape)}")
    return logits[0].softmax(dim=-1)


def read_line(network: nn.Module, image: Tensor) -> tuple[str, float]:
    """Read a line of digits in a picture: dark on a light ground or light on a dark one, straight, on an arc or slanted.

    The line is brought to the form of the network's images: light on black, cut out and stretched to 64x200 pixels.
    The most likely class at each step gives the text.

    Args:
        network: A trained network for lines, of `stn.models.load`.
        image: (C, H, W) with values in [0, 1], one line on an even ground. Colors are averaged.

    Returns:
        The text, and its probability: the sum over all alignments of CTC.

    Raises:
        InputError: The image has another form, or shows nothing, or the network is not one for lines.

    Example:
        >>> from stn.models import load, read_line
        >>> page = torch.ones(1, 90, 160)  # white
        >>> for k in range(3):
        ...     page[:, 25 + 15 * k : 55 + 15 * k, 40 + 35 * k : 44 + 35 * k] = 0  # three black strokes, on a slant
        >>> read_line(load("st-crnn-tps/curved"), page)[0]
        '111'
    """
    logits = _logits(network, line_image(image), "lines")
    if logits.ndim != 3 or logits.shape[-1] != len(CHARACTERS) + 1:
        _check.fail(f"network must be one for lines, with logits (1, T, 11); got logits {tuple(logits.shape)}")
    steps, blank = logits.shape[1], len(CHARACTERS)
    read = greedy_decode(logits)[0]
    read = read[read != blank]
    likelihood = logits.log_softmax(dim=-1).transpose(0, 1)
    length, steps_of = torch.tensor([len(read)]), torch.tensor([steps])
    missing = F.ctc_loss(likelihood, read.unsqueeze(0), steps_of, length, blank=blank, reduction="sum")
    return "".join(CHARACTERS[k] for k in read.tolist()), missing.neg().exp().item()


def shows_line(image: Tensor) -> bool:  # (C, H, W)
    """Return True if the writing in a picture is too wide for a single digit, or in pieces beside one another."""
    ink, _, (width, height) = ink_of(image, "a digit")
    inked = F.pad((ink > INK).any(dim=0).int(), (1, 1))
    pieces = (inked.diff() == 1).sum()  # apart by empty columns
    return width >= WIDE * height or (width > height and pieces.item() >= PIECES)


def digit_image(image: Tensor) -> Tensor:  # (C, H, W) -> (1, 1, CANVAS, CANVAS)
    """Bring a picture of a digit to the form of the networks' images."""
    ink, _, box = ink_of(image, "a digit")
    span = max(box) * CANVAS / DIGIT
    height, width = ink.shape
    mass = ink / ink.sum()
    x = (mass.sum(dim=0) * (torch.arange(width) + 0.5)).sum().item()
    y = (mass.sum(dim=1) * (torch.arange(height) + 0.5)).sum().item()
    return _cut_out(ink, (x, y), (span, span), (CANVAS, CANVAS))


def line_image(image: Tensor) -> Tensor:  # (C, H, W) -> (1, 1, *LINE)
    """Bring a picture of a line to the form of the networks' images."""
    ink, (left, top), (width, height) = ink_of(image, "a line of digits")
    return _cut_out(ink, (left + width / 2, top + height / 2), (width / FILLED, height / FILLED), LINE)


def ink_of(image: Tensor, thing: str) -> Ink:
    """Find the writing in a picture (C, H, W): what differs from the ground at the picture's edge."""
    _check.tensor("image", image)
    if image.ndim != 3 or not image.is_floating_point() or 0 in image.shape:
        _check.fail(f"image must be (C, H, W) of floating-point numbers; got {image.dtype} {tuple(image.shape)}")
    gray = image.detach().float().mean(dim=0)
    edge = torch.cat([gray[0], gray[-1], gray[:, 0], gray[:, -1]])
    ink = (gray - edge.median()).abs()
    if not ink.max() >= FAINTEST:
        _check.fail(f"image must show {thing} on a ground of another brightness; its contrast is {ink.max().item():.2g}")
    ink = ink / ink.max()
    columns, rows = ((ink > INK).any(dim=axis).nonzero().flatten().tolist() for axis in (0, 1))
    low, size = (columns[0], rows[0]), (columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1)
    return Ink(ink * (ink > INK / 3), low, size)  # without the noise of the ground


def _cut_out(ink: Tensor, middle: tuple[float, float], span: tuple[float, float], size: tuple[int, int]) -> Tensor:
    """Sample the part of these spans around this point, both (x, y) in pixels, and scale its maximum to 1."""
    height, width = ink.shape
    theta = torch.tensor(
        [[span[0] / width, 0, 2 * middle[0] / width - 1], [0, span[1] / height, 2 * middle[1] / height - 1]]
    )
    with without_kernels():
        small = affine_sample(ink[None, None], theta, size, antialias=True)
    return (small / small.max()).clamp(0, 1)


def _logits(network: nn.Module, images: Tensor, things: str) -> Tensor:
    try:
        with torch.inference_mode(), without_kernels():
            logits: Tensor = network(images)
    except (RuntimeError, ValueError) as error:
        _check.fail(f"network must be one for {things}, which takes images {tuple(images.shape)}; {error}")
    return logits.float()
