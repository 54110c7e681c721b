"""`stn read`."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from torch import Tensor, nn
from tyro.conf import Positional

from stn import _check

if TYPE_CHECKING:
    from stn.models import Card

DIGIT, LINE = "st-cnn-affine/rts", "st-crnn-tps/curved"


def read(
    images: Annotated[Positional[tuple[Path, ...]], tyro.conf.arg(metavar="IMAGE [IMAGE ..]", help_behavior_hint="")] = (),
    model: Annotated[str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint="")] = None,
) -> None:
    """Read the digit, or the line of digits, in each picture with a trained network of the package.

    A picture shows one digit, turned by up to 45 degrees, or one line of three to six digits, straight or on an arc, on an
    even ground.

    Args:
        images: Picture files, or numpy files (.npy).
        model: Name of the network. Default: st-cnn-affine/rts, or st-crnn-tps/curved where the writing is at least 1.7
            times as wide as high, or wider than high and in pieces beside one another. Without an IMAGE, the names and cards
            of all networks are printed.
    """
    from stn.io import read_picture
    from stn.models import cards

    known = cards()
    if model is not None:
        _check.choice("model", model, known)
    for card in known.values() if not images else ():
        print(f"{card.name}: {card.task} Test error {card.error_percent:.2f} %. {card.recipe} Data: {card.data}")
    for path in images:
        picture = read_picture(path)
        colors = picture[:-1] if len(picture) in (2, 4) else picture  # without transparency
        try:
            text, probability = _read(colors, model, known)
        except _check.InputError as error:
            _check.fail(f"{path}: {error}")
        print(f"{path}: {text or 'no digit'} ({100 * probability:.0f} %)")


def _read(picture: Tensor, model: str | None, known: Mapping[str, Card]) -> tuple[str, float]:
    """Return the text and its probability."""
    from stn.models import read_digit, read_line
    from stn.models.reading import shows_line

    name = model or (LINE if shows_line(picture) else DIGIT)
    if known[name].network["builder"] == "lines":
        return read_line(_loaded(name), picture)
    probabilities = read_digit(_loaded(name), picture)
    return str(probabilities.argmax().item()), probabilities.max().item()


@functools.cache
def _loaded(name: str) -> nn.Module:
    from stn.models import load

    return load(name)
