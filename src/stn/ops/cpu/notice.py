"""One line on standard error while kernels compile, so that a first call does not look like a program that hangs."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from numba.core.event import Listener, install_listener

AFTER = 1.0  # seconds of compilation before the line appears
EACH = "2 to 10 s"  # of processor time for a kernel: 1.9 to 6.7 s on an AMD EPYC, the first one also loads Numba's compiler
KEPT = "then kept on disk; `stn warm-up` compiles ahead of time"
NOT_KEPT = "again in each process, because no cache folder can be written; NUMBA_CACHE_DIR names one"

_said = False


def is_wanted() -> bool:
    """STN_QUIET=1: no line. STN_QUIET=0: the line also where standard error is not a terminal."""
    quiet = os.environ.get("STN_QUIET", "")
    return quiet == "0" if quiet else sys.stderr is not None and sys.stderr.isatty()


@contextmanager
def noticed(what: str, kept: bool) -> Iterator[None]:
    """Print the line if Numba compiles in the body for longer than AFTER; once a process. kept: on disk."""
    if _said or not is_wanted():
        yield
        return
    watch = _Watch(threading.Timer(AFTER, _say, (what, kept)))
    try:
        with install_listener("numba:compile", watch):
            yield
    finally:
        watch.timer.cancel()


class _Watch(Listener):
    """Start a timer when Numba begins to compile: no function that it finds on disk, although that can take a second too."""

    def __init__(self, timer: threading.Timer) -> None:
        self.timer = timer
        timer.daemon = True

    def on_start(self, event: Any) -> None:
        if self.timer.ident is None:  # not yet: functions compile within others
            self.timer.start()

    def on_end(self, event: Any) -> None:
        pass


def _say(what: str, kept: bool) -> None:
    global _said
    if not _said:
        _said = True
        line = f"stn: compiling CPU kernels on first use, {EACH} each, {KEPT if kept else NOT_KEPT}. Now: {what}"
        with suppress(OSError, ValueError, AttributeError):  # standard error may be closed, or None
            print(line, file=sys.stderr, flush=True)
