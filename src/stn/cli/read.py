"""`stn read`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import Positional

from stn import _check


def read(
    images: Annotated[Positional[tuple[Path, ...]], tyro.conf.arg(metavar="IMAGE [IMAGE ..]", help_behavior_hint="")] = (),
    model: str = "st-cnn-affine/rts",
) -> None:
    """Read the digit in each picture with a trained network of the package.

    A picture shows one digit on an even ground, upright or turned by up to 45 degrees.

    Args:
        images: Picture files, or numpy files (.npy).
        model: Name of the network. Without an IMAGE, the names and cards of all networks are printed.
    """
    from stn.io import read_picture
    from stn.models import cards, load, read_digit

    known = cards()
    _check.choice("model", model, known)
    for card in known.values() if not images else ():
        print(f"{card.name}: {card.task} Test error {card.error_percent:.2f} %. {card.recipe} Data: {card.data}")
    network = load(model) if images else None
    for path in images:
        assert network is not None
        picture = read_picture(path)
        colors = picture[:-1] if len(picture) in (2, 4) else picture  # without transparency
        try:
            probabilities = read_digit(network, colors)
        except _check.InputError as error:
            _check.fail(f"{path}: {error}")
        print(f"{path}: {probabilities.argmax().item()} ({100 * probabilities.max().item():.0f} %)")
