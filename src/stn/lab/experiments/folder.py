"""The folder of a run: config.json, rows.jsonl, checkpoints/, figures/, tensorboard/. Every file is written atomically.

The checkpoint has priority: a resumed run takes its state and its rows from it, so a run killed at any moment continues with
the same result. Nothing is written before all files have been read and verified.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from stn import _check
from stn.io.files import LOCK, aside, locked, sweep, write_text
from stn.lab import _check as lab_check
from stn.lab.experiments.checkpoint import FORMAT, State, newer, read_checkpoint, write_checkpoint, written_by
from stn.lab.experiments.rows import DamagedRows, Row, is_row, parsed, read_rows, write_rows
from stn.lab.experiments.runs import Run

__all__ = ["MARK", "Row", "RunFolder"]
MARK = ".made-by-stn-demo"  # a file in the folders that `stn demo` may replace


class RunFolder:
    """Read and write one run."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.config = self.path / "config.json"
        self.checkpoint = self.path / "checkpoints" / "last.pt"
        self.figures = self.path / "figures"
        self._rows = self.path / "rows.jsonl"

    def exists(self) -> bool:
        return self.config.is_file()

    def lock(self) -> AbstractContextManager[None]:
        """Lock the folder during a training. Raises: InputError if another process trains here."""
        sentence = f"the run in {self.path} must be trained by one process at a time; {{owner}} trains it"
        return locked(self.path / LOCK, sentence)

    def check(self, run: Run, *, resume: bool = False) -> None:
        """Check that `run` can start or continue here, without building the network. Writes nothing.

        Raises: InputError if the folder is in use, contains another run, or is incomplete.
        """
        if resume and self.exists():
            differing = [f"{name}={there!r}" for name, (_, there) in run.differences(self.run()).items()]
            if differing:
                _check.fail(f"the run in {self.path} has {', '.join(differing)}; use the same settings, or a new folder")
            rows, bad = parsed(self._rows, is_row)
            if not self.checkpoint.exists() and len(rows) + bad:
                _check.fail(
                    f"the run in {self.path} must have checkpoints/last.pt to continue; it has {len(rows) + bad} rows and "
                    "no checkpoint. Restore it, or train in a new folder"
                )
        elif self.path.exists() and (not self.path.is_dir() or self._in_use()):
            _check.fail(f"out must be a new or an empty folder, or the folder of a run with resume=True; got {self.path}")
        elif not self.path.exists():
            _check.writable_folder("out", self.path.parent)

    def open(self, run: Run, *, resume: bool = False) -> None:
        """Initialize the locked folder for `run`, unless it continues. Raises: as `check`."""
        self.check(run, resume=resume)
        sweep(self.path)
        if not (resume and self.exists()):
            self._write_config(run)

    def settle(self, run: Run, rows: list[Row]) -> None:
        """Write the rows of the loaded checkpoint to the file. A file with other rows is renamed and kept."""
        there, bad = parsed(self._rows, is_row)
        if bad or there != rows[: len(there)]:
            kept = aside(self._rows)
            print(f"stn: {self._rows} does not fit the checkpoint; it is kept as {kept}", file=sys.stderr)
        if bad or there != rows:
            self.write_rows(rows)
        if run != self.run():
            self._write_config(run)

    def _write_config(self, run: Run) -> None:
        write_text(self.config, json.dumps(run.to_json() | {"written_by": written_by()}, indent=2) + "\n")

    def _in_use(self) -> bool:
        """Return True if the folder contains more than a partial file of a killed run."""
        with lab_check.reading(self.path):
            return any(path.suffix != ".partial" and path.name not in (LOCK, MARK) for path in self.path.iterdir())

    def run(self) -> Run:
        """Raises: InputError if the folder is not that of a run."""
        if not self.exists():
            _check.fail(f"the run folder must hold config.json; {self.path} does not")
        try:
            with lab_check.reading(self.config):
                values = json.loads(self.config.read_bytes())
        except _check.FileError:
            raise
        except (ValueError, RecursionError) as error:
            _check.fail(f"{self.config} must be JSON; {error}")
        return self._parsed(values)

    def _parsed(self, values: Any) -> Run:
        if not isinstance(values, dict):
            _check.fail(f"{self.config} must hold a run's settings by name; it holds {_kind(values)}")
        writer = values.pop("written_by", {})
        number = writer.get("format", 0) if isinstance(writer, dict) else None
        if not isinstance(number, int):
            _check.fail(f"{self.config} must name the version that wrote it; got {writer!r}")
        if number > FORMAT:
            newer(self.config, writer)
        try:
            return Run.from_json(values)
        except _check.InputError as error:
            _check.fail(f"{self.config}: {error}")

    def rows(self) -> list[Row]:
        """Return the rows; of a damaged file the complete ones, with a DamagedRows warning."""
        return read_rows(self._rows, is_row)

    def told(self) -> list[Row]:
        """Return the rows of the checkpoint if it can be read, because it is complete; otherwise those of the file.

        A DamagedRows warning if the file has other rows.
        """
        try:
            state = self.load()
        except _check.InputError:
            state = None
        if state is None:
            return self.rows()
        there, bad = parsed(self._rows, is_row)
        if bad or there != state["rows"][: len(there)]:
            sentence = f"{self._rows} does not fit the checkpoint, whose rows are taken in its place"
            warnings.warn(sentence, DamagedRows, stacklevel=2)
        rows: list[Row] = state["rows"]
        return rows

    def write_rows(self, rows: list[Row]) -> None:
        write_rows(self._rows, rows)

    def save(self, state: State, rows: list[Row], run: Run | None = None) -> None:
        """Write the checkpoint first, because a resumed run writes missing rows of the file again."""
        write_checkpoint(self.checkpoint, state | {"rows": rows}, run or self.run())
        self.write_rows(rows)

    def load(self) -> State | None:
        """Return the last checkpoint, or None. Raises: InputError if it is damaged or of another run."""
        return read_checkpoint(self.checkpoint, self.run()) if self.checkpoint.exists() else None

    @contextmanager
    def fitting(self) -> Iterator[None]:
        """Wrap code that loads a state. Raises: InputError if it is of another network."""
        try:
            yield
        except _check.InputError:
            raise
        except Exception as error:  # parts of another form can raise anything
            _check.fail(
                f"{self.checkpoint} must hold the network that this version of the library builds for its run; loading it "
                f"raised {type(error).__name__}. Train again, in another folder or after deleting this one"
            )


def _kind(value: Any) -> str:
    return "null" if value is None else f"a {type(value).__name__}"
