"""Settings of a run or a command: their type, and numbers that are numbers."""

from __future__ import annotations

import math

from stn._check.errors import fail


def finite_number(name: str, *values: float) -> None:
    if not all(map(math.isfinite, values)):
        given = ", ".join(map(str, values))
        fail(f"{name} must be finite; got {given}")


def kind(name: str, value: object, like: object) -> None:
    """A setting of the type of its default; a whole number is a number, too."""
    wanted = {bool: "true or false", int: "an integer", float: "a number", str: "a text"}[type(like)]
    types = (int, float) if isinstance(like, float) else type(like)
    if not isinstance(value, types) or (isinstance(value, bool) and not isinstance(like, bool)):
        fail(f"{name} must be {wanted}; got {value!r}")


def seed(name: str, value: int) -> None:
    """What torch and numpy both take."""
    if not isinstance(value, int) or not 0 <= value < 2**32:
        fail(f"{name} must be an integer from 0 to 2^32 - 1; got {value!r}")


def pixels(name: str, size: tuple[int, ...], most: int) -> None:
    """A size of no more pixels than the user allows."""
    if math.prod(size) > most:
        fail(f"{name} must have at most max_pixels={most} pixels; got {' x '.join(map(str, size))} = {math.prod(size)}")


def at_most(name: str, value: int, most: int) -> None:
    if value > most:
        fail(f"{name} must be at most {most}, as many as there are to show; got {value}")
