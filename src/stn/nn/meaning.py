"""What the numbers of a state dict mean: the family, the start and the convention of the layer that learned them."""

from __future__ import annotations

import json
import warnings
from typing import Any

import torch
from torch import Tensor

from stn.transforms import Bounded, Family, Fixed, ThinPlateSpline

FORMAT = 1


def of_layer(family: Family, num_transforms: int, start: Tensor | None, align_corners: bool) -> dict[str, Any]:
    """Return plain values, equal where theta means the same."""
    found: dict[str, Any] = {"format": FORMAT, "family": repr(family), "num_transforms": num_transforms}
    found |= {"start": None if start is None else start.detach().double().cpu().tolist(), "align_corners": align_corners}
    inner = family
    while isinstance(inner, Bounded | Fixed):
        inner = inner.family
    if isinstance(inner, ThinPlateSpline):  # its repr has their number alone
        found["control_points"] = inner.control_points.tolist()
    return found


def encoded(meaning: dict[str, Any]) -> Tensor:
    """Return the bytes of JSON: tools that handle a state dict expect tensors."""
    return torch.tensor(list(json.dumps(meaning).encode()), dtype=torch.uint8, device="cpu")


def decoded(state: object) -> dict[str, Any] | None:
    """Return the values, or None if a tool has changed the bytes: they are a help, and no part of the network."""
    if not isinstance(state, Tensor) or state.is_meta:
        return None
    try:
        found = json.loads(bytes(state.to("cpu", torch.uint8).tolist()))
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def warn_if_other(loaded: dict[str, Any] | None, own: dict[str, Any]) -> None:
    """Warn if the numbers that are loaded mean something else in this layer."""
    if loaded is None or loaded.get("format") != FORMAT:
        return
    differ = [key for key in own.keys() | loaded.keys() if loaded.get(key) != own.get(key)]
    if differ:
        parts = (f"{key} {_short(loaded.get(key))}, here {_short(own.get(key))}" for key in sorted(differ))
        warnings.warn(
            f"the state dict must be of a layer with the same meaning of theta; got one with {'; '.join(parts)}",
            stacklevel=2,
        )


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) < 80 else text[:76] + " ..."
