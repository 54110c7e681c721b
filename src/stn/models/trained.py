"""Trained networks inside the package, each with a card: what it was trained on, how, and its error.

A file in weights/ holds matrices and kernels in half precision, vectors in float32, and the card as its metadata.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stn import _check
from stn.io.safetensors import read_metadata, read_safetensors, write_safetensors
from stn.models import digits, lines

WEIGHTS = Path(__file__).parent / "weights"
BUILDERS: Mapping[str, Callable[..., nn.Module]] = {"digits": digits.build, "lines": lines.build_text}


@dataclass(frozen=True)
class Card:
    """What is known of a trained network: see `cards`.

    Args:
        name: The name for `stn.models.load`.
        task: The images that it reads, in words.
        input_shape: (C, H, W) of one image, with values in [0, 1].
        data: What it was trained on.
        license: Of the weights, and the terms of the data.
        recipe: How it was trained.
        error_percent: Test error of these weights in percent.
        test: How the error was measured.
        distortion: The task's name for `stn train --distortion`.
        network: Builder and arguments of the network.

    Example:
        >>> from stn.models import cards
        >>> card = cards()["st-cnn-affine/rts"]
        >>> card.network["transform"], card.error_percent < 1
        ('affine', True)
    """

    name: str
    task: str
    input_shape: tuple[int, int, int]
    data: str
    license: str
    recipe: str
    error_percent: float
    test: str
    distortion: str
    network: dict[str, Any]


def cards() -> dict[str, Card]:
    """List the trained networks of the package by name.

    Returns:
        The card of each: data, recipe, error, license.

    Raises:
        InputError: A file of the package is damaged.

    Example:
        >>> from stn.models import cards
        >>> cards()["st-cnn-affine/rts"].input_shape
        (1, 42, 42)
    """
    found = (_card(path, read_metadata(path)) for path in sorted(WEIGHTS.glob("*.safetensors")))
    return {card.name: card for card in found}


def load(name: str) -> nn.Module:
    """Load a trained network of the package.

    Args:
        name: One of `cards()`, such as "st-cnn-affine/rts": the ST-CNN of Jaderberg et al. 2015, table 1, for digits that
            are rotated, scaled and moved in 42x42 pixels.

    Returns:
        The network in float32, in evaluation mode. `network.transformer` is its layer.

    Raises:
        InputError: There is no such network, or its file is damaged.

    Example:
        >>> from stn.models import load
        >>> network = load("st-cnn-affine/rts")
        >>> network(torch.zeros(2, 1, 42, 42)).shape
        torch.Size([2, 10])
    """
    _check.choice("name", name, cards())
    return load_file(file_of(name))


def file_of(name: str) -> Path:
    return WEIGHTS / f"{name.replace('/', '-')}.safetensors"


def load_file(path: Path) -> nn.Module:
    """Build the network of a file and load its weights."""
    tensors, metadata = read_safetensors(path)
    settings = dict(_card(path, metadata).network)
    network = BUILDERS[settings.pop("builder")](**settings)
    state = {key: value.float() if value.dtype == torch.float16 else value for key, value in tensors.items()}
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        _check.fail(f"{path} must hold the weights of the network of its card; {error}")
    return network.eval()


def save_file(path: Path, network: nn.Module, card: Card) -> None:
    """Write the weights of a network, in half precision, with its card."""
    tensors = {key: value.clone() for key, value in network.state_dict().items()}
    write_safetensors(path, {key: _halved(value) for key, value in tensors.items()}, {"card": card_text(card)})


def card_text(card: Card) -> str:
    return json.dumps(dataclasses.asdict(card))


def _halved(value: Tensor) -> Tensor:
    """Convert kernels and matrices. Vectors (biases, norms, the start of theta) are few, and stay as they are."""
    return value.half() if value.is_floating_point() and value.ndim > 1 else value


def _card(path: Path, metadata: Mapping[str, str]) -> Card:
    try:
        values = json.loads(metadata["card"])
        return Card(**values | {"input_shape": tuple(values["input_shape"])})
    except (KeyError, TypeError, ValueError) as error:
        _check.fail(f"{path} must hold the card of a trained network; {error!r}")
