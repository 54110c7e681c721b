"""Reading a line of text: a recognizer behind the thin-plate rectifier (Shi et al. 2016, CRNN).

Strings are (N, L) class indices. The last class stands for no character: strings end in it, and it is the blank of CTC.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stn import _check
from stn.models.blocks import convolution, scaled
from stn.models.text import SIZE, Resize, text_rectifier
from stn.ops.context import unrounded

TEXT_MODELS = ("crnn", "st-crnn")


def build_text(model: str, classes: int = 11, *, in_channels: int = 1, width: float = 1.0) -> nn.Sequential:
    """One of TEXT_MODELS for images (N, C, H, W) of any size: -> logits (N, T, classes). `st-crnn` begins with
    `.transformer`, the rectifier; `crnn` with a plain resizing to the same size. width: scales all layers of the recognizer.
    """
    _check.choice("model", model, TEXT_MODELS)
    _check.positive("width", width)
    look = ("transformer", text_rectifier(in_channels)) if model == "st-crnn" else ("resize", Resize(SIZE))
    parts: OrderedDict[str, nn.Module] = OrderedDict([look])
    sizes = {"width": scaled(32, width), "hidden": scaled(64, width)}
    parts["classifier"] = TextRecognizer(classes, in_channels=in_channels, **sizes)
    return nn.Sequential(parts)


class TextRecognizer(nn.Module):
    """A small CRNN: (N, C, 32, W) -> logits (N, W / 4, classes), one distribution every four columns. 0.4 M parameters.

    Four convolutions, which leave 2 rows, and a bidirectional GRU along the line. Source: Shi et al. 2016 (CRNN), smaller.
    """

    def __init__(self, classes: int = 11, *, in_channels: int = 1, width: int = 32, hidden: int = 64) -> None:
        super().__init__()
        _check.at_least("classes", classes, 2)
        self.convolutions = nn.Sequential(
            *convolution(in_channels, width, 3),
            nn.MaxPool2d(2),
            *convolution(width, 2 * width, 3),
            nn.MaxPool2d(2),
            *convolution(2 * width, 4 * width, 3),
            nn.MaxPool2d((2, 1)),
            *convolution(4 * width, 4 * width, 3),
            nn.MaxPool2d((2, 1)),
        )
        self.recurrence = nn.GRU(2 * 4 * width, hidden, batch_first=True, bidirectional=True)
        self.regression = nn.Linear(2 * hidden, classes)

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim != 4 or x.shape[2] != SIZE[0] or x.shape[3] < 4:
            _check.fail(f"x must be (N, C, {SIZE[0]}, W) with W >= 4; got {tuple(x.shape)}")
        columns = self.convolutions(x).flatten(1, 2).transpose(1, 2)  # (N, T, rows * channels)
        with unrounded(x.device):  # many small products, which are slower and less accurate in bfloat16
            logits: Tensor = self.regression(self.recurrence(columns.float())[0])
        return logits


def greedy_decode(logits: Tensor) -> Tensor:  # (N, T, C) -> (N, T)
    """Return the most likely class at each step, without repetitions and blanks; the rest is filled with blanks."""
    best, blank = logits.argmax(dim=-1), logits.shape[-1] - 1
    before = F.pad(best[:, :-1], (1, 0), value=blank)
    kept = (best != blank) & (best != before)
    order = (~kept).int().argsort(dim=1, stable=True)  # kept characters first, in their order
    return torch.where(kept, best, blank).gather(1, order)
