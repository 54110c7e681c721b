"""The files of a reproduced table, .jsonl, .md and .png. Other files and rows of other tables are never lost."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from stn import _check
from stn.io.files import aside, beside, locked, write_text
from stn.lab import _check as lab_check
from stn.lab.experiments.rows import Row, parsed, read_rows, write_rows

COMMAND = "`stn reproduce"  # part of every table written by this library


class Results(NamedTuple):
    """Rows, and the document made from them."""

    out: Path  # without a suffix
    is_row: Callable[[Any], bool]  # of any table, by any recipe
    is_current: Callable[[Row], bool]  # of this table, by today's recipe

    @property
    def file(self) -> Path:
        return beside(self.out, ".jsonl")

    @property
    def document(self) -> Path:
        return beside(self.out, ".md")

    @property
    def picture(self) -> Path:
        return beside(self.out, ".png")

    def begin(self) -> None:
        """Check the files before the work: rename files with other or damaged rows, and print a line about it.

        Raises: InputError if the files are not of such a table, or cannot be written.
        """
        for path in (self.file, self.document, self.picture):
            _check.writable("out", path)
        self._check_document()
        with self._writing():
            rows, bad = parsed(self.file, self.is_row)
            current = [row for row in rows if self.is_current(row)]
            if bad or len(current) < len(rows):
                kept = aside(self.file)
                others = f"{len(rows) - len(current)} rows of other settings and {bad} damaged lines"
                print(f"stn: {self.file} had {others}; it is kept as {kept}", file=sys.stderr)
                write_rows(self.file, current)

    def _check_document(self) -> None:
        if self.document.exists():
            with lab_check.reading(self.document):
                ours = COMMAND.encode() in self.document.read_bytes()
            if not ours:
                _check.fail(f"out must be a new file, or a table of this command; {self.document} is another document")
        elif self.picture.exists() and not self.file.exists():
            _check.fail(f"out must be a new file, or a table of this command; {self.picture} is another picture")

    def rows(self) -> list[Row]:
        return [row for row in read_rows(self.file, self.is_row) if self.is_current(row)]

    def add(self, row: Row, key: Callable[[Row], object], document: Callable[[list[Row]], str]) -> list[Row]:
        """Add a row, or replace the one with the same key. Calls that write to the same file wait for each other."""
        with self._writing():
            rows = [old for old in self.rows() if key(old) != key(row)] + [row]
            write_rows(self.file, rows)
            write_text(self.document, document(rows))
        return rows

    @contextmanager
    def _writing(self) -> Iterator[None]:
        with locked(self.file.with_name(f".{self.file.name}.lock")):
            yield
