"""Checks for `stn.lab`: settings of a run, devices, readable files. The errors are those of the library."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from stn._check import FileError, fail, reason


def at_most(name: str, value: int, most: int) -> None:
    if value > most:
        fail(f"{name} must be at most {most}, the number of images; got {value}")


def device_name(name: str, value: str) -> None:
    """Check the name of a device: cpu or cuda, also of a device that is missing."""
    kind, _, index = value.partition(":")
    if kind not in ("cpu", "cuda") or (index and (kind == "cpu" or not index.isdecimal())):
        fail(f"{name} must be cpu, cuda or cuda and a number, as in cuda:1; got {value!r}")


def device(name: str, value: str) -> None:
    """Check a device: cpu, or an available CUDA device."""
    device_name(name, value)
    kind, _, index = value.partition(":")
    count = torch.cuda.device_count()
    if kind == "cuda" and int(index or 0) >= count:
        fail(f"{name} must be an available device; torch finds {count} CUDA devices; got {value!r}")


def divisible(name: str, value: int, parts: int) -> None:
    if value % parts:
        fail(f"{name} must be a multiple of the {parts} processes; got {value!r}")


def kind(name: str, value: object, like: object) -> None:
    """Check that a setting has the type of its default; an integer is a number too."""
    wanted = {bool: "true or false", int: "an integer", float: "a number", str: "a string"}[type(like)]
    types = (int, float) if isinstance(like, float) else type(like)
    if not isinstance(value, types) or (isinstance(value, bool) and not isinstance(like, bool)):
        fail(f"{name} must be {wanted}; got {value!r}")


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Wrap code that reads an existing file. Raises: FileError for every error of the system."""
    try:
        yield
    except OSError as error:
        raise FileError(f"{path} must be a readable file; {reason(error)}") from error


def seed(name: str, value: int) -> None:
    """Check a seed for torch and numpy."""
    if not isinstance(value, int) or not 0 <= value < 2**32:
        fail(f"{name} must be an integer from 0 to 2^32 - 1; got {value!r}")
