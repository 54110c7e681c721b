"""Progress output of a training: a bar with loss, error and images/s, and one permanent line per epoch."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from stn.lab.experiments.folder import Row
from stn.lab.experiments.runs import Run


class Progress:
    """A context for one training."""

    def __init__(self, run: Run, steps: int, epoch: int, *, quiet: bool) -> None:
        self.run, self.quiet = run, quiet
        self._start, self._first = time.perf_counter(), epoch * steps
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bar = Bar(*columns, TextColumn("{task.fields[status]}"), transient=True, disable=quiet, console=Console())
        self._steps = steps
        self._task = self._bar.add_task(run.name, total=run.epochs * steps, completed=self._first, status="")

    def __enter__(self) -> Progress:
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._bar.stop()

    def update(self, epoch: int, step: int, loss: float, error: float) -> None:
        done = epoch * self._steps + step
        speed = (done - self._first) * self.run.batch_size / (time.perf_counter() - self._start)
        status = f"loss {loss:.3f}  error {error:.2f} %  {speed:,.0f} images/s"
        self._bar.update(self._task, completed=done, status=status)

    def report(self, row: Row) -> None:
        if not self.quiet:
            self._bar.console.print(sentence(row, self.run.epochs), highlight=False, soft_wrap=True)


def sentence(row: Row, epochs: int) -> str:
    """Format a row for output."""
    if row["split"] == "test":
        return f"test, draw {row['draw'] + 1}: loss {row['loss']:.4f}, error {row['error_percent']:.2f} %"
    return (
        f"epoch {row['epoch']}/{epochs}: training error {row['train_error_percent']:.2f} %, "
        f"validation error {row['error_percent']:.2f} %, {row['images_per_second']:,.0f} images/s, "
        f"{row['seconds']:.0f} s"
    )
