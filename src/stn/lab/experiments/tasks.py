"""Tasks of runs: how examples are drawn, the networks, the loss, and the error."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from stn.lab.data import DISTORTIONS, Distortion
from stn.lab.data.crops import CROP, as_they_are, middle_crops, random_crops
from stn.lab.data.draw import Example
from stn.lab.data.gtsrb import NAMES
from stn.lab.data.scenes import SCENES
from stn.lab.data.signs import sign_views
from stn.lab.data.strings import NONE
from stn.lab.experiments.batches import Draw
from stn.lab.networks import (
    ADDITION_MODELS,
    ALIGNMENT_MODELS,
    MODELS,
    SIGN_MODELS,
    SVHN_MODELS,
    VOLUME_MODELS,
    build,
    build_addition,
    build_alignment,
    build_parts,
    build_signs,
    build_svhn,
    build_volumes,
)
from stn.lab.networks.alignment import IN_STEPS
from stn.lab.networks.parts import small_resnet
from stn.lab.networks.text import ctc_loss
from stn.models.blocks import convolution
from stn.models.lines import TEXT_MODELS, build_text, greedy_decode
from stn.transforms import Warp, family

LOOKS = {"look": 1, "2xlook": 2}  # at two digits
BIRDS = {"cnn": 0, "2xst-cnn": 2, "4xst-cnn": 4}  # looks at a bird
CLASSES = 200  # of birds
# Relative widths of networks that are compared: those without a layer, or with a smaller one, are wider, so that all have as
# many parameters as the largest, within 3 %.
TEXT_WIDTHS = {"crnn": 1.125, "st-crnn": 1.0}
VOLUME_WIDTHS = {"cnn": 1.125, "st-cnn": 1.0}
STRING_WIDTHS = {"cnn": 0.33, "st-cnn-single": 0.25, "st-cnn-multi": 0.32}


def cross_entropy(logits: Tensor, y: Tensor, *, label_smoothing: float = 0.0) -> Tensor:  # ()
    """Return the cross-entropy, mean over all places of a string."""
    return F.cross_entropy(logits.float().movedim(-1, 1), y, label_smoothing=label_smoothing)


def ctc(logits: Tensor, y: Tensor, *, label_smoothing: float = 0.0) -> Tensor:  # ()
    """Return the CTC loss. `Run` refuses label smoothing for it."""
    return ctc_loss(logits, y)


def most_likely(logits: Tensor) -> Tensor:  # (N, classes), or (N, L, classes) -> (N,), or (N, L)
    return logits.argmax(dim=-1)


def parts_found(warp: Warp, boxes: Tensor) -> dict[str, Tensor]:  # (N, K) looks, (N, 2, 4)
    """Return both_found: the share of images in which each digit has its center in a separate look."""
    middle = boxes.unflatten(-1, (2, 2)).mean(dim=-2)  # (N, 2, 2)
    seen = warp.inverse().points(middle.unsqueeze(1).expand(*warp.batch, 2, 2))  # in coordinates of each look
    left, right = (seen.abs() <= 1).all(dim=-1).unbind(dim=-1)  # (N, K)
    pairs = left.unsqueeze(2) & right.unsqueeze(1)  # (N, K, K): the left one in the first look, the right one in the second
    apart = ~torch.eye(pairs.shape[-1], dtype=torch.bool, device=pairs.device)
    return {"both_found": (pairs & apart).flatten(1).any(dim=1).float().mean()}


class Task(NamedTuple):
    """A task, selected by `--distortion`. Logits are (N, classes), or (N, L, classes) for strings."""

    draw: Draw
    models: tuple[str, ...]
    build: Callable[[str, str], nn.Module]  # from the names of a model and of a transform
    loss: Callable[..., Tensor] = cross_entropy
    read: Callable[[Tensor], Tensor] = most_likely  # logits -> predictions, in the form of y
    found: Callable[[Warp, Tensor], dict[str, Tensor]] | None = None  # of looks and the digits' boxes
    still: Draw | None = None  # evaluated examples, if not drawn as in training
    data: tuple[str, ...] = ("digits", "mnist")  # whose images it takes
    shape: tuple[int, int, int] = (1, 28, 28)  # of one of those
    family: str | None = None  # fixed transform family of the task
    names: tuple[str, ...] = ()  # of the classes, where errors by class are of interest

    @property
    def evaluated(self) -> Draw:
        return self.still or self.draw

    def wrong(self, logits: Tensor, y: Tensor) -> Tensor:  # (N,) bool
        """Return the errors. A string is wrong if any place is wrong, or its length."""
        answers, length = self.read(logits).view(len(y), -1), y[:1].numel()
        longer = (answers[:, length:] != NONE).any(dim=1)
        return (answers[:, :length] != y.view(len(y), -1)).any(dim=1) | longer


def distorted(distortion: Distortion) -> Task:
    def draw(images: Tensor, labels: Tensor, generator: Generator) -> Example:
        return Example(distortion.apply(images, generator), labels)

    return Task(draw, MODELS, lambda model, transform: build(model, distortion.side, transform))


def made_up(scene: str, models: Iterable[str], build: Callable[[str, str], nn.Module], **rest: Any) -> Task:
    return Task(SCENES[scene].draw, tuple(models), build, **rest)


def _volumes(side: int) -> Task:
    name = "extruded" if side == 60 else f"extruded_{side}"

    def network(model: str, transform: str) -> nn.Module:
        return build_volumes(model, side, family(transform, 3), width=VOLUME_WIDTHS[model])

    return made_up(name, VOLUME_MODELS, network)


def _strings(model: str, transform: str) -> nn.Module:
    return build_svhn(model, 64, transform, channels=1, width=STRING_WIDTHS[model], dropout=0.0)


def _numbers(model: str, transform: str) -> nn.Module:
    return build_svhn(model, 64, transform)


def _pairs(model: str, transform: str) -> nn.Module:
    halve = nn.MaxPool2d(2)
    backbone = nn.Sequential(convolution(1, 16, 5), halve, convolution(16, 32, 3), halve, convolution(32, 64, 3))
    scene = SCENES["pairs"]
    return build_parts(scene.classes, scene.shape[-1], num_looks=LOOKS[model], channels=1, backbone=backbone)


def _text(model: str, transform: str) -> nn.Module:
    return build_text(model, width=TEXT_WIDTHS[model])


def _signs(model: str, transform: str) -> nn.Module:
    return build_signs(model, transform=transform)


def _birds(model: str, transform: str) -> nn.Module:
    """Build the network for 224 pixels without pretrained weights (the paper used ImageNet)."""
    if looks := BIRDS[model]:
        return build_parts(CLASSES, CROP, num_looks=looks)
    backbone = small_resnet()
    return nn.Sequential(backbone, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(256, CLASSES))


TASKS = {name: distorted(distortion) for name, distortion in DISTORTIONS.items()} | {
    "addition": made_up("addition", ADDITION_MODELS, build_addition),
    "pairs": made_up("pairs", LOOKS, _pairs, found=parts_found, family="attention"),
    "strings": made_up("strings", SVHN_MODELS, _strings),
    "extruded": _volumes(60),
    "extruded_32": _volumes(32),
    "curved": made_up("curved", TEXT_MODELS, _text, loss=ctc, read=greedy_decode, family="tps"),
    "perturbed": made_up("perturbed", ALIGNMENT_MODELS, build_alignment),
    "perturbed_56": made_up("perturbed_56", IN_STEPS, partial(build_alignment, side=56)),
    "numbers": Task(as_they_are, SVHN_MODELS, _numbers, data=("svhn",), shape=(3, 64, 64)),
    "birds": Task(
        random_crops, tuple(BIRDS), _birds, still=middle_crops, data=("cub",), shape=(3, 256, 256), family="attention"
    ),
    "signs": Task(sign_views, SIGN_MODELS, _signs, still=as_they_are, data=("gtsrb",), shape=(3, 32, 32), names=NAMES),
}
