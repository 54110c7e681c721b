"""Reading a line of text: a thin-plate rectifier, a recogniser, and CTC (Shi et al. 2016, RARE and CRNN; ASTER, 2018).

Strings are (N, L) class indices. The last class stands for no character: strings end in it, and it is the blank of CTC.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stn import _check
from stn.nn import SpatialTransformer
from stn.ops.precision import unrounded
from stn.ops.sampling import SamplingOptions
from stn.transforms import ThinPlateSpline, text_edges

if TYPE_CHECKING:
    from typing_extensions import Unpack

SIZE = (32, 100)  # height and width of what is recognised
REDUCED = (32, 64)  # of what the localisation network sees, as in ASTER
TEXT_MODELS = ("crnn", "st-crnn")


def build_text(model: str, classes: int = 11, *, in_channels: int = 1) -> nn.Sequential:
    """One of TEXT_MODELS for images (N, C, H, W) of any size: -> logits (N, T, classes). `st-crnn` begins with
    `.transformer`, the rectifier; `crnn` with a plain resizing to the same size."""
    _check.choice("model", model, TEXT_MODELS)
    look = ("transformer", text_rectifier(in_channels)) if model == "st-crnn" else ("resize", Resize(SIZE))
    parts: OrderedDict[str, nn.Module] = OrderedDict([look])
    parts["classifier"] = TextRecognizer(classes, in_channels=in_channels)
    return nn.Sequential(parts)


def text_rectifier(
    in_channels: int = 1,
    size: Sequence[int] = SIZE,
    *,
    reduced: Sequence[int] = REDUCED,
    control_points: int = 20,
    margin: float = 0.05,
    **options: Unpack[SamplingOptions],
) -> SpatialTransformer:
    """A layer that straightens a line of text: (N, C, H, W) of any size -> (N, C, *size). It starts as the identity.

    A thin-plate spline over `control_points` points along the upper and the lower edge, `margin` inside (ASTER: 0.05, RARE:
    0). They are found on a `reduced` image; the pixels come from the image itself. options: those of `SpatialTransformer`,
    with the border as padding unless told otherwise; antialias=True where images are many times as large as `size`.
    """
    family = ThinPlateSpline(control_points=text_edges(control_points, margin=margin))
    with_border: SamplingOptions = {"padding_mode": "border", **options}
    return SpatialTransformer(TextLocalization(in_channels, reduced), family, size, **with_border)


class Resize(nn.Module):
    """(N, C, H, W) -> (N, C, *size), without aliasing."""

    def __init__(self, size: Sequence[int]) -> None:
        super().__init__()
        self.size = _check.lengths("size", size, 2)

    def forward(self, x: Tensor) -> Tensor:
        full = x if torch.finfo(x.dtype).bits > 16 else x.float()  # torch has no CPU kernel for less
        return F.interpolate(full, self.size, mode="bilinear", antialias=True).to(x.dtype)

    def extra_repr(self) -> str:
        return f"size={self.size}"


class TextLocalization(nn.Sequential):
    """Where a line of text lies: four convolutions on a reduced image, (N, C, H, W) -> (N, features). 0.1 M parameters.

    Half as deep as ASTER's and half as wide at most; its map of 2x4 (of 32x64) keeps where things are.
    """

    def __init__(self, in_channels: int = 1, reduced: Sequence[int] = REDUCED, *, features: int = 64) -> None:
        _check.at_least("in_channels", in_channels, 1)
        layers: list[nn.Module] = [Resize(reduced)]
        for after in (16, 32, 64, 64):
            layers += [*_conv(in_channels, after), nn.MaxPool2d(2, ceil_mode=True)]
            in_channels = after
        layers += [nn.AdaptiveAvgPool2d((2, 4)), nn.Flatten(), nn.Linear(8 * in_channels, features)]
        layers += [nn.LayerNorm(features), nn.ReLU()]  # without the norm nine in ten of these units die in the first epochs
        super().__init__(*layers)
        self.out_features = features


class TextRecognizer(nn.Module):
    """A small CRNN: (N, C, 32, W) -> logits (N, W / 4, classes), one distribution every four columns. 0.4 M parameters.

    Four convolutions, which leave 2 rows, and a bidirectional GRU along the line. Source: Shi et al. 2016 (CRNN), smaller.
    """

    def __init__(self, classes: int = 11, *, in_channels: int = 1, width: int = 32, hidden: int = 64) -> None:
        super().__init__()
        _check.at_least("classes", classes, 2)
        self.convolutions = nn.Sequential(
            *_conv(in_channels, width),
            nn.MaxPool2d(2),
            *_conv(width, 2 * width),
            nn.MaxPool2d(2),
            *_conv(2 * width, 4 * width),
            nn.MaxPool2d((2, 1)),
            *_conv(4 * width, 4 * width),
            nn.MaxPool2d((2, 1)),
        )
        self.recurrence = nn.GRU(2 * 4 * width, hidden, batch_first=True, bidirectional=True)
        self.regression = nn.Linear(2 * hidden, classes)

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim != 4 or x.shape[2] != SIZE[0] or x.shape[3] < 4:
            _check.fail(f"x must be (N, C, {SIZE[0]}, W) with W >= 4; got {tuple(x.shape)}")
        columns = self.convolutions(x).flatten(1, 2).transpose(1, 2)  # (N, T, rows * channels)
        with unrounded(x.device):  # many small products, each rounded: slower and worse in bfloat16
            logits: Tensor = self.regression(self.recurrence(columns.float())[0])
        return logits


def ctc_loss(logits: Tensor, strings: Tensor) -> Tensor:  # (N, T, C), (N, L) -> ()
    """Minus the log probability of the strings however they lie along the line, for each character, in the mean.

    A string that does not fit into T, with a blank between equal neighbours, adds nothing.
    Source: Graves et al. 2006 (connectionist temporal classification).
    """
    _check_strings(strings, logits)
    n, steps, classes = logits.shape
    likelihood = logits.float().log_softmax(dim=-1).transpose(0, 1)
    lengths = (strings != classes - 1).sum(dim=1)
    return F.ctc_loss(likelihood, strings, torch.full_like(lengths, steps), lengths, blank=classes - 1, zero_infinity=True)


def greedy_decode(logits: Tensor) -> Tensor:  # (N, T, C) -> (N, T)
    """The string of the most likely class at each step, repetitions and blanks left out; it ends in blanks."""
    best, blank = logits.argmax(dim=-1), logits.shape[-1] - 1
    before = F.pad(best[:, :-1], (1, 0), value=blank)
    kept = (best != blank) & (best != before)
    order = (~kept).int().argsort(dim=1, stable=True)  # what is kept first, in its order
    return torch.where(kept, best, blank).gather(1, order)


def sequence_error(logits: Tensor, strings: Tensor) -> Tensor:  # (N, T, C), (N, L) -> ()
    """The share of strings that are not read letter by letter as they are."""
    _check_strings(strings, logits)
    read, blank = greedy_decode(logits), logits.shape[-1] - 1
    longest = max(read.shape[1], strings.shape[1])
    read, wanted = (F.pad(s, (0, longest - s.shape[1]), value=blank) for s in (read, strings))
    return (read != wanted).any(dim=1).float().mean()


def _conv(before: int, after: int) -> list[nn.Module]:
    return [nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]


def _check_strings(strings: Tensor, logits: Tensor) -> None:
    if strings.is_floating_point() or strings.ndim != 2 or logits.ndim != 3 or len(strings) != len(logits):
        _check.fail(
            "strings must be integers (N, L) for logits (N, T, C); "
            f"got {strings.dtype} {tuple(strings.shape)} for {tuple(logits.shape)}"
        )
