"""Atomic writing of files, and locks for folders that one process at a time may write."""

from __future__ import annotations

import importlib
import importlib.util
import io
import json
import os
import re
import socket
import uuid
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import torch

from stn import _check

fcntl: Any = importlib.import_module("fcntl") if importlib.util.find_spec("fcntl") else None  # None on Windows

LOCK = ".lock"


class DamagedFile(UserWarning):
    """A warning: a part of a file cannot be read; the rest is used."""


def write_atomically(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Let `write` fill a file that gets the name `path` only when it is complete and on disk.

    Until then it has a unique name, `.<name>.<process>-<token>.partial`. It is removed if the writing fails, which frees a
    full disk; only a killed process leaves it behind.

    Raises: FileError, a sentence, if the system refuses.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}.partial")
    with _check.writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with partial.open("wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
        except BaseException:
            with suppress(OSError):
                partial.unlink(missing_ok=True)
            raise


def write_text(path: Path, text: str) -> None:
    write_atomically(path, lambda file: file.write(text.encode()))


def write_tensors(path: Path, value: object) -> None:
    """Write like torch.save, whose error for a full disk does not name the cause."""

    def write(file: IO[bytes]) -> None:
        told: Any = Telling(file)
        try:
            torch.save(value, told)
        except RuntimeError:
            if told.error is None:
                raise
            raise told.error from None

    write_atomically(path, write)


class Telling(io.RawIOBase):
    """A file to write, which keeps the error of the system."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            return self.file.write(data)
        except OSError as error:
            self.error = error
            raise


def read_tensors(path: Path) -> Any:
    """Read like torch.load, tensors and plain values only, on the CPU. Each part of the file is compared with its checksum
    in the zip format, which torch does not do. Raises: any exception for damaged bytes."""
    with zipfile.ZipFile(path) as file:
        damaged = file.testzip()
    if damaged is not None:
        raise ValueError(f"{damaged} in it is damaged")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.load(path, map_location="cpu", weights_only=True)


def beside(out: Path, suffix: str) -> Path:
    """Return the path with this suffix; `out` may have another one. A dot in the name is no suffix."""
    stem = out.with_suffix("") if out.suffix in (".json", ".jsonl", ".md", ".png") else out
    return stem.with_name(stem.name + suffix)


def write_rows(out: Path, rows: object, page: str) -> None:
    """Write rows in JSON, and a page of them in Markdown, both beside `out`."""
    write_text(beside(out, ".json"), json.dumps(rows, indent=1))
    write_text(beside(out, ".md"), page)


def aside(path: Path) -> Path:
    """Rename an old file to an unused name beside it; returns that name."""
    number = 1
    while (kept := path.with_name(f"{path.stem}.old-{number}{path.suffix}")).exists():
        number += 1
    with _check.writing(kept):
        os.replace(path, kept)
    return kept


def sweep(folder: Path) -> None:
    """Remove the partial files of killed writers in a locked folder, if the system permits."""
    for partial in folder.rglob(".*.partial"):
        process = re.search(r"\.(\d+)-[0-9a-f]{8}\.partial$", partial.name)
        if process is None or not alive(int(process[1])):
            with suppress(OSError):
                partial.unlink(missing_ok=True)


def alive(process: int) -> bool:
    """Return True if a process of this machine still runs. Always True on Windows, where signal 0 is Ctrl-C."""
    if not hasattr(os, "fork"):
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # the process of another user
        return True
    return True


@contextmanager
def locked(file: Path, sentence: str = "") -> Iterator[None]:
    """Hold the lock `file`, which contains the process and the machine of the owner; the system frees it at their end.

    sentence: the message of the InputError if another process holds it, with {owner} for its name. Empty: wait.
    """
    handle = _acquired(file, sentence)
    try:
        owner = json.dumps({"process": os.getpid(), "machine": socket.gethostname()}).encode()
        with suppress(OSError):  # on a full disk the lock works, but does not name its owner
            os.ftruncate(handle, 0)
            os.lseek(handle, 0, os.SEEK_SET)
            os.write(handle, owner)
        yield
    finally:
        with suppress(OSError):
            file.unlink(missing_ok=True)
        os.close(handle)


def _acquired(file: Path, sentence: str) -> int:
    """Open and lock the file of this name. It is opened again if the previous owner has removed it."""
    while True:
        with _check.writing(file):
            file.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _acquire(handle, sentence)
            if _is_named(handle, file):
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _is_named(handle: int, file: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), file.stat())
    except FileNotFoundError:
        return False


def _acquire(handle: int, sentence: str) -> None:
    if fcntl is None:
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (fcntl.LOCK_NB if sentence else 0))
    except BlockingIOError:
        _check.fail(sentence.format(owner=_owner(os.pread(handle, 1000, 0))))
    except OSError:  # a file system without locks
        return


def _owner(told: bytes) -> str:
    try:
        owner = json.loads(told)
        return f"process {owner['process']} on {owner['machine']}"
    except (ValueError, TypeError, KeyError):
        return "another process"
