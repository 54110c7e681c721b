"""A run's folder: config.json, rows.jsonl, checkpoints/, figures/, tensorboard/. Every file is written atomically.

The checkpoint rules: a resumed run takes its state and its rows from there, so that a run killed at any moment goes on as
if nothing had happened.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import torch

from stn import _check
from stn.experiments.runs import Run

Row = dict[str, Any]


def write_atomically(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Let `write` fill a file that takes the name `path` only when it is whole and on disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


def write_text(path: Path, text: str) -> None:
    write_atomically(path, lambda file: file.write(text.encode()))


def read_rows(path: Path) -> list[Row]:
    """Of a file of one JSON object a line; none if there is no file."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    write_text(path, "".join(json.dumps(row) + "\n" for row in rows))


class RunFolder:
    """Reads and writes one run."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.config = self.path / "config.json"
        self.checkpoint = self.path / "checkpoints" / "last.pt"
        self.figures = self.path / "figures"
        self._rows = self.path / "rows.jsonl"

    def exists(self) -> bool:
        return self.config.is_file()

    def open(self, run: Run, *, resume: bool = False) -> None:
        """Make this the folder of `run`; or go on with it, its rows as its last checkpoint knows them.

        Raises: InputError if the folder is in use, or holds another run than the one to resume.
        """
        if resume and self.exists():
            differing = [f"{name}={there!r}" for name, (_, there) in run.differences(self.run()).items()]
            if differing:
                _check.fail(f"the run in {self.path} has {', '.join(differing)}; give the same, or a new folder")
            state = self.load()
            self.write_rows(state["rows"] if state else [])
            return
        if self.path.exists() and (not self.path.is_dir() or self._in_use()):
            _check.fail(f"out must be a new or an empty folder, or that of a run to resume; got {self.path}")
        write_text(self.config, json.dumps(run.to_json(), indent=2) + "\n")

    def _in_use(self) -> bool:
        """Whether it holds more than the beginning of a file that a killed run was writing."""
        return any(path.suffix != ".partial" for path in self.path.iterdir())

    def run(self) -> Run:
        """Raises: InputError if the folder is not that of a run."""
        if not self.exists():
            _check.fail(f"the run folder must hold config.json; {self.path} does not")
        try:
            values = json.loads(self.config.read_text())
        except ValueError as error:
            _check.fail(f"{self.config} must be JSON; {error}")
        return Run.from_json(values)

    def rows(self) -> list[Row]:
        return read_rows(self._rows)

    def write_rows(self, rows: list[Row]) -> None:
        write_rows(self._rows, rows)

    def save(self, state: dict[str, Any], rows: list[Row]) -> None:
        """Rows first: a checkpoint knows every row up to it, and what it does not know a resumed run writes again."""
        self.write_rows(rows)
        write_atomically(self.checkpoint, lambda file: torch.save(state | {"rows": rows}, file))

    def load(self) -> dict[str, Any] | None:
        """The last checkpoint, or None. Raises: InputError if it is not one."""
        if not self.checkpoint.exists():
            return None
        try:
            state: dict[str, Any] = torch.load(self.checkpoint, map_location="cpu", weights_only=True)
        except Exception as error:  # whatever the damaged bytes led torch to
            _check.fail(f"{self.checkpoint} must be a checkpoint of a run; reading it ended in {type(error).__name__}")
        return state

    @contextmanager
    def fitting(self) -> Iterator[None]:
        """Around what takes over a loaded state. Raises: InputError if it is that of another network."""
        try:
            yield
        except (RuntimeError, ValueError, KeyError) as error:
            _check.fail(
                f"{self.checkpoint} must hold the network that this version of the library builds for its run; taking it "
                f"over ended in {type(error).__name__}. Train anew, in another folder or after deleting this one"
            )
