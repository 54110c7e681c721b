"""Worker processes of a training: they end with the main process in every case."""

from __future__ import annotations

import os
import signal
import threading
import time
from multiprocessing import parent_process
from multiprocessing.connection import wait

GRACE = 20  # seconds for a process without its parent to report this


def begin_work() -> None:
    """Initialize a worker of a pool: only its parent handles Ctrl-C, and the worker ends with the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    parent = parent_process()
    if parent is not None:
        threading.Thread(target=_end_after, args=(parent.sentinel,), daemon=True).start()


def _end_after(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)  # like a kill, which every folder survives


def end_with_launcher() -> None:
    """End this process some seconds after the process that started it."""
    if os.environ.get("LOCAL_RANK", "0") != "0" and "TORCHELASTIC_RUN_ID" not in os.environ:
        threading.Thread(target=_end_after_parent, args=(os.getppid(),), daemon=True).start()


def _end_after_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    time.sleep(GRACE)
    os._exit(1)
