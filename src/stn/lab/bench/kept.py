"""Rows of a study that are on disk as soon as they are measured."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from stn.io.files import beside, write_rows

Row = dict[str, Any]


class Kept:
    """Rows, in JSON and as a page, both written after each row.

    Example:
        >>> import tempfile
        >>> out = Path(tempfile.mkdtemp()) / "study"
        >>> Kept(out, lambda rows: f"{len(rows)} rows").add({"case": 1, "seconds": 0.5})
        >>> Kept(out, lambda rows: "", resume=True).has(case=1)
        True
    """

    def __init__(self, out: Path, page: Callable[[Sequence[Row]], str], *, resume: bool = False) -> None:
        self.out, self.page = out, page
        file = beside(out, ".json")
        self.rows: list[Row] = json.loads(file.read_text()) if resume and file.exists() else []

    def has(self, **key: object) -> bool:
        return any(key.items() <= row.items() for row in self.rows)

    def add(self, row: Row) -> None:
        self.rows.append(row)
        write_rows(self.out, self.rows, self.page(self.rows))
