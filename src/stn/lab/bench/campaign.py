"""`stn bench --device cuda --suites all`: every suite in its own process, within a budget of minutes.

Rows are written as they come. An error, a timeout or a device that is missing is a row too.
"""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import IO, Any

import torch

from stn.lab.bench import on_device

Row = dict[str, Any]
MISSING = "no device"
LEAST = 5.0  # seconds that a suite needs to begin


def present(device: str) -> bool:
    return torch.cuda.is_available() and int(device.partition(":")[2] or 0) < torch.cuda.device_count()


def campaign(
    device: str, minutes: float, *, rounds: int = 7, trial: bool = False, progress: Callable[[str], None] = print
) -> Iterator[Row]:
    """Yield the rows of all suites. Each takes what the suites before it left of the time, at most a third of the whole."""
    end = time.monotonic() + 60 * minutes
    for suite in on_device.suites():
        if not present(device):
            yield from ({**place, "error": MISSING} for place in on_device.names(suite))
            continue
        left = min(end - time.monotonic(), 20 * minutes)
        progress(f"{suite}: at most {max(left, 0):.0f} s")
        if left < LEAST:
            yield from ({**place, "error": "no time left"} for place in on_device.names(suite))
            continue
        command = [sys.executable, "-m", "stn.lab.bench.on_device", suite, "--device", device, "--rounds", str(rounds)]
        yield from rows_of(suite, [*command, *(["--trial"] if trial else [])], left)


def rows_of(suite: str, command: Sequence[str], seconds: float) -> Iterator[Row]:
    """Run a process that prints rows, and yield them as they come; then an error, unless it ended well."""
    end = time.monotonic() + seconds
    place = {"suite": suite, "case": "the suite", "task": ""}
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
        lines: queue.Queue[str | None] = queue.Queue()
        assert process.stdout is not None
        threading.Thread(target=drain, args=(process.stdout, lines), daemon=True).start()
        try:
            while (line := lines.get(timeout=max(0.0, end - time.monotonic()))) is not None:
                yield json.loads(line)
            if process.wait(timeout=LEAST):
                errors.seek(0)
                last = [*errors.read().strip().splitlines(), ""][-2:][0]
                yield {**place, "error": f"exit status {process.returncode}: {last}"[:200]}
        except (queue.Empty, subprocess.TimeoutExpired):
            yield {**place, "error": f"stopped after {seconds:.0f} s"}
        except json.JSONDecodeError as error:
            yield {**place, "error": f"a line is not a row: {error.doc[:100]}"}
        finally:
            process.kill()
            process.wait()


def drain(stream: IO[str], lines: queue.Queue[str | None]) -> None:
    with stream:
        for line in stream:
            lines.put(line)
    lines.put(None)
