"""Rows: files with one JSON object per line. The good lines of a damaged file are used, with a warning."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from stn.io.files import DamagedFile, write_text
from stn.lab import _check as lab_check

Row = dict[str, Any]
EVERY = ("epoch", "step", "split", "loss", "error_percent")  # keys of each row of a run
OF_VALID = ("train_loss", "train_error_percent", "images_per_second", "seconds")


class DamagedRows(DamagedFile):
    """A warning: some lines of a file of rows are damaged."""


def read_rows(path: Path, good: Callable[[Any], bool] = lambda row: isinstance(row, dict)) -> list[Row]:
    """Return the good rows of a file; none if there is no file. A DamagedRows warning counts the others.

    Raises: FileError if the system refuses to read it.
    """
    rows, bad = parsed(path, good)
    if bad:
        warnings.warn(f"{bad} of {bad + len(rows)} lines of {path} are damaged and left out", DamagedRows, stacklevel=3)
    return rows


def parsed(path: Path, good: Callable[[Any], bool]) -> tuple[list[Row], int]:
    """Return the good rows of a file, and the number of bad lines."""
    if not path.exists():
        return [], 0
    with lab_check.reading(path):
        lines = [line for line in path.read_bytes().split(b"\n") if line.strip()]
    rows = [row for line in lines if (row := _row(line)) is not None and good(row)]
    return rows, len(lines) - len(rows)


def _row(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    write_text(path, "".join(json.dumps(row) + "\n" for row in rows))


def is_row(row: Any) -> bool:
    """Return True if this is a row of a run, with all keys and valid numbers."""
    if not isinstance(row, dict) or row.get("split") not in ("valid", "test"):
        return False
    needed = (*EVERY, *(OF_VALID if row["split"] == "valid" else ("draw",)))
    if any(key not in row for key in needed) or not isinstance(row.get("warning", ""), str):
        return False
    counts = all(_whole(row.get(key, 0)) for key in ("epoch", "step", "draw"))
    return counts and all(_number(value) for key, value in row.items() if key not in ("split", "warning"))


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
