"""Checks of files and folders before the work: readable, writable, and not to be overwritten."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from stn._check.errors import InputError, fail

RUN_FILES = ("config.json", "rows.jsonl", "last.pt", ".lock")
REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk's quota is used up",
    errno.EFBIG: "the file would be larger than is allowed",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "permission is denied",
    errno.EPERM: "permission is denied",
    errno.ENAMETOOLONG: "the name is too long",
    errno.ENOTDIR: "a part of its path is a file",
    errno.EEXIST: "its folder cannot be created because a file has the same name",
    errno.EISDIR: "it is a folder",
    errno.ENOENT: "its folder does not exist",
    errno.EMFILE: "too many files are open",
    errno.EIO: "the disk reports an error",
}


class FileError(InputError):
    """The system reports an error for a file: the disk is full, the folder is read-only, .."""


def reason(error: OSError) -> str:
    """Return the reason of a system error in words."""
    return REASONS.get(error.errno or 0) or error.strerror or str(error) or type(error).__name__


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Wrap code that writes a file. Raises: FileError for every error of the system."""
    try:
        yield
    except OSError as error:
        raise FileError(f"{path} must be a writable file; {reason(error)}") from error


def outputs(given: Mapping[str, Path | None], inputs: Sequence[Path] = (), *, endings: Mapping[str, Sequence[str]]) -> None:
    """Check output files, by argument name: a known ending, a writable folder, and a path that is not another output, an
    input, or a file of a run."""
    seen: dict[Path, str] = {}
    sources = [source.resolve() for source in inputs]
    for name, path in given.items():
        if path is None:
            continue
        allowed = endings.get(name, ())
        if allowed and path.suffix.lower() not in allowed:
            fail(f"{name} must end in {' or '.join(allowed)}; got {path}")
        writable(name, path)
        place = path.resolve()
        if place in seen:
            fail(f"{name} must be a different file from {seen[place]}; got {path} for both")
        if place in sources:
            fail(f"{name} must not be an input file; got {path}")
        seen[place] = name


def path_of(name: str, value: object) -> Path:
    """Return the path of a file that is named by a string or by a path."""
    if not isinstance(value, str | os.PathLike):
        raise TypeError(f"{name} must be the path of a file, a str or a pathlib.Path; got {type(value).__name__}")
    return Path(value)


def writable(name: str, path: Path) -> None:
    """Check a file to create or replace, and create its folder. The files of a run must not be overwritten."""
    if path.is_dir():
        fail(f"{name} must be a file; {path} is a folder")
    own_folder = path.parent.parent if path.name == "last.pt" else path.parent
    if path.name in RUN_FILES and (own_folder / "config.json").exists():
        fail(f"{name} must not be a file of a run; got {path}")
    writable_folder(name, path.parent)
    if path.exists() and not os.access(path, os.W_OK):
        fail(f"{name} must be a writable file; permission is denied for {path}")


def writable_folder(name: str, folder: Path) -> None:
    """Check that a folder exists or can be created, and that files can be written in it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        trial = folder / f".{os.getpid()}.partial"
        trial.touch()
        trial.unlink()
    except FileExistsError:
        fail(f"{name} must be in a folder; {folder} is a file")
    except OSError as error:
        fail(f"{name} must be in a writable folder; {folder} is not: {reason(error)}")
