"""Checks of names, numbers, sizes and settings."""

from __future__ import annotations

import importlib.util
import math
import operator
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch

from stn._check.errors import fail, shown


def integer(value: Any) -> int | None:
    """Return an integer of any kind, such as numpy's, as an int; None for other values. Symbols are kept."""
    if type(value) is int or isinstance(value, torch.SymInt):
        return value  # type: ignore[return-value]  # a SymInt stands for an int
    if isinstance(value, bool) or (isinstance(value, torch.Tensor) and value.dtype == torch.bool):
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None


def integers(value: Any) -> tuple[int, ...] | None:
    """Return the integers of a sequence or an array; None if one is not an integer, or the value not a sequence."""
    if not isinstance(value, LISTS) and (isinstance(value, str) or not isinstance(value, Sequence)):
        return None
    found = [integer(n) for n in value]
    return None if None in found else tuple(found)  # type: ignore[arg-type]  # mypy cannot see that there is no None


LISTS = (tuple, list, np.ndarray)
NUMBER = (int, float, np.integer, np.floating)


def choice(name: str, value: object, allowed: Iterable[object]) -> None:
    allowed = list(allowed)
    if isinstance(value, torch.Tensor | np.ndarray) or value not in allowed:
        fail(f"{name} must be one of {', '.join(sorted(map(str, allowed)))}; got {shown(value)}")


def made(name: str, value: Any, kind: type, example: str) -> Any:
    """Return an object that must be of this class, and not, for example, its name or the class itself."""
    if not isinstance(value, kind):
        got = shown(value) if isinstance(value, str) else value.__name__ if isinstance(value, type) else type(value).__name__
        raise TypeError(f"{name} must be a {kind.__name__}, such as {example}; got {got}")
    return value


def no_class(name: str, value: object) -> None:
    """Check that a family is not given as its class."""
    if isinstance(value, type):
        fail(f"{name} must be a family, such as stn.{value.__name__}(), or its name; got the class {value.__name__}")


def lengths(name: str, size: Any, ndim: int | None = None) -> tuple[int, ...]:
    """Check a size in the order of torch, of positive integers. A single integer is the length along all `ndim` axes."""
    wanted, plural = f"{ndim}" if ndim else "1, 2 or 3", "" if ndim == 1 else "s"
    found = integers(size)
    if found is None and ndim is not None and (side := integer(size)) is not None:
        found = (side,) * ndim
    if found is None:
        one = "an integer or " if ndim else ""
        fail(f"{name} must be {one}a sequence of {wanted} integer{plural}; got {shown(size)}")
    # Not `in (ndim,)`: to Dynamo a dynamic number is in no tuple.
    if (len(found) != ndim) if ndim else len(found) not in (1, 2, 3):
        fail(f"{name} must have {wanted} length{plural}; got {found}")
    if min(found) < 1:
        fail(f"{name} must have positive lengths; got {found}")
    return found


def some(name: str, given: Sequence[object]) -> None:
    if not given:
        fail(f"{name} must be given at least once; got none")


def either(numbers: Sequence[int]) -> str:
    """Join numbers as a choice: 1, 2 or 3."""
    *others, last = map(str, numbers)
    return f"{', '.join(others)} or {last}" if others else last


def dimension(value: int, allowed: Sequence[int], family: str) -> int:
    found = integer(value)
    if found is None or found not in allowed:
        how = "" if found in (1, 2, 3) else ". Other arguments go by name"
        fail(f"ndim must be {either(allowed)} for {family}; got {shown(value)}{how}")
    return found


def number(name: str, value: Any) -> None:
    """Check that a value can be compared with a number."""
    if value is None or isinstance(value, str | dict) or isinstance(value, LISTS) or getattr(value, "ndim", False):
        fail(f"{name} must be a number; got {shown(value)}")


def positive(name: str, value: float) -> None:
    number(name, value)
    if not value > 0:
        fail(f"{name} must be positive; got {shown(value)}")


def not_negative(name: str, value: float) -> None:
    number(name, value)
    if not value >= 0:
        fail(f"{name} must not be negative; got {shown(value)}")


def input_shape(name: str, shape: Any, *, signals: bool = False) -> tuple[int, ...]:
    """Check the shape of one image without its batch: (C, H, W); or, with `signals`, of one signal: (C, L)."""
    found = integers(shape)
    if found is None or not (len(found) == 3 or (signals and len(found) == 2)) or min(found) < 1:
        known = "(C, H, W) or (C, L)" if signals else "(C, H, W)"
        fail(f"{name} must be {known}, positive integers; got {shown(shape)}")
    return found


def signal_shape(name: str, shape: Any) -> tuple[int, int]:
    """Check the shape of one signal without its batch: (C, L)."""
    found = integers(shape)
    if found is None or len(found) != 2 or min(found) < 1:
        fail(f"{name} must be (C, L), positive integers; got {shown(shape)}")
    return found[0], found[1]


def at_least(name: str, value: int, least: int) -> int:
    found = integer(value)
    if found is None or found < least:
        fail(f"{name} must be an integer of at least {least}; got {shown(value)}")
    return found


def side(name: str, value: int, allowed: Iterable[int]) -> int:
    """Check the side of a square image, one of those that a network supports."""
    found = integer(value)
    if found is None or found not in allowed:
        fail(f"{name} must be one of {', '.join(map(str, sorted(allowed)))} pixels; got {shown(value)}")
    return found


def features(localization: object, given: int | None) -> int:
    """Return the number of features of a localization network: as given, or from its attribute."""
    count = integer(getattr(localization, "out_features", None) if given is None else given)
    if count is None or count < 1:
        fail(
            "features must be given for a localization network without an attribute out_features; "
            f"got {type(localization).__name__}"
        )
    return count


def network_features(name: str, value: Any, count: int) -> None:
    """Check the output of a network for `count` images."""
    if not isinstance(value, torch.Tensor):
        fail(f"{name} must return features (N, ..); got {type(value).__name__}")
    if value.ndim < 2 or value.shape[0] != count or value.numel() == 0:
        fail(f"{name} must return features (N, ..) of N = {count} images; got {tuple(value.shape)}")


def unknown(name: str, given: Iterable[str], allowed: Iterable[str]) -> None:
    allowed = sorted(allowed, key=str)
    for key in given:
        if key not in allowed:
            fail(f"{name} must be one of {', '.join(allowed)}; got {shown(key)}")


def installed(module: str, extra: str) -> None:
    """Check that a package of an extra is installed."""
    if importlib.util.find_spec(module) is None:
        fail(f"the package {module} is needed here: pip install 'torch-stn[{extra}]'")


def needs(module: str, user: str) -> None:
    """Check that a package is installed that no extra brings."""
    if importlib.util.find_spec(module) is None:
        raise ImportError(f"{user} needs the package {module}: pip install {module}")


def angle(name: str, degrees: float) -> None:
    number(name, degrees)
    if not -90 < degrees < 90:
        fail(f"{name} must be between -90 and 90 degrees; got {shown(degrees)}")


def alone(name: str, others: dict[str, Any]) -> None:
    """Check that none of the other options is set."""
    given = [other for other, value in others.items() if value]
    if given:
        fail(f"{name} cannot be combined with {', '.join(others)}; got {', '.join(given)} too")


def aspect(name: str, value: Any, ndim: int) -> tuple[float, ...]:
    """Check width / height of an image, or the sides of an image or a volume. Returns the sides."""
    return sides(
        name, (1.0, value) if _is_real(value) and ndim == 2 else value, ndim, "width / height, " if ndim == 2 else ""
    )


def sides(name: str, value: Any, ndim: int, other: str = "") -> tuple[float, ...]:
    """Check one positive, finite number for each axis, in the order of torch."""
    fits = isinstance(value, LISTS) and len(value) == ndim
    if not fits or not all(_is_real(n) and 0 < n < math.inf for n in value):
        axes = {1: "(L,)", 2: "(H, W)"}.get(ndim, "(D, H, W)")
        fail(f"{name} must be {other}{'or ' if other else ''}{axes}, positive and finite; got {shown(value)}")
    return tuple(float(n) for n in value)


def _is_real(value: Any) -> bool:
    return isinstance(value, NUMBER) and not isinstance(value, bool)


def unmapped(name: str, dim: int | None) -> None:
    """Check that vmap does not map an argument, which is the same for the whole call."""
    if dim is not None:
        fail(f"{name} must not be mapped by vmap, because the whole call shares it; got one mapped over dimension {dim}")


def composable(outer: Sequence[int], inner: Sequence[int], outer_ndim: int, inner_ndim: int) -> None:
    if outer_ndim != inner_ndim:
        fail(f"both warps of a composition must have the same number of dimensions; got {outer_ndim} and {inner_ndim}")
    if any(a != b and a != 1 and b != 1 for a, b in zip(outer, inner, strict=False)):
        got = f"{tuple(outer)} and {tuple(inner)}"
        fail(f"both warps of a composition must have the same batch, or one of them a batch of 1; got {got}")


def lattice_of(name: str, value: int | Sequence[int], ndim: int, *, least: int) -> tuple[int, ...]:
    """Check the numbers of nodes or cells along each axis of a lattice."""
    shape = lengths(name, value, ndim)
    if min(shape) < least:
        fail(f"{name} must have at least {least} along each axis; got {shape}")
    return shape


def even(name: str, value: int) -> None:
    if value % 2:
        fail(f"{name} must be even; got {shown(value)}")


def share(name: str, value: float, most: float) -> None:
    number(name, value)
    if not 0 <= value < most:
        fail(f"{name} must be at least 0 and less than {most}; got {shown(value)}")


def inner_nodes(name: str, cells: Sequence[int], boundary: str) -> None:
    if boundary == "fixed" and min(cells) < 2:
        why = "because a smaller lattice has no free node"
        fail(f"{name} must have at least 2 along each axis with boundary='fixed', {why}; got {tuple(cells)}")


def bounds(name: str, value: Any, starts: Sequence[float | None]) -> list[tuple[float, float] | None]:
    """Check bounds (low, high) of the numbers of a name, with the identity's strictly inside. Return one for each."""
    one = isinstance(value, LISTS) and len(value) == 2 and all(map(_is_real, value))
    each = [value] * len(starts) if one else value
    if not isinstance(each, LISTS) or len(each) != len(starts):
        several = "" if len(starts) == 1 else f", or {len(starts)} of them"
        fail(f"{name} must be bounds (low, high){several}; got {shown(value)}")
    found: list[tuple[float, float] | None] = []
    for pair, start in zip(each, starts, strict=True):
        if pair is not None and not (isinstance(pair, LISTS) and len(pair) == 2 and all(map(_is_real, pair))):
            fail(f"{name} must be bounds (low, high) for each number, or None; got {shown(pair)}")
        if pair is not None and start is not None and not pair[0] < start < pair[1]:
            given = sorted({s for s in starts if s is not None}) if one else [start]
            fail(f"{name} must be bounds (low, high) on both sides of the identity's value {given}; got {tuple(pair)}")
        found.append(None if pair is None else (pair[0], pair[1]))
    return found


def held(name: str, value: Any, count: int) -> tuple[float | None, ...]:
    """Check the value of all numbers of a name, or one for each, None for those that are free."""
    each = (value,) * count if _is_real(value) else value
    if not isinstance(each, LISTS) or len(each) != count:
        fail(f"{name} must be a number, or {count} of them; got {shown(value)}")
    for number in each:
        if number is not None and not (_is_real(number) and math.isfinite(number)):
            fail(f"{name} must be finite, or None where it is free; got {shown(number)}")
    return tuple(None if number is None else float(number) for number in each)
