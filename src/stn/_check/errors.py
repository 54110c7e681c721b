"""What is raised."""

from __future__ import annotations

from typing import NoReturn


class InputError(ValueError):
    """Something that the caller handed in (an argument, a file, a run folder) is not what was expected."""


def fail(sentence: str) -> NoReturn:
    raise InputError(sentence)
