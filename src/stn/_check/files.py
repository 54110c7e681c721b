"""Files and folders: what can be read, what can be written, and what must not be overwritten. Asked before the work."""

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
    errno.EISDIR: "it is a folder",
    errno.ENOENT: "its folder does not exist",
    errno.EMFILE: "too many files are open",
    errno.EIO: "the disk reports an error",
}


class FileError(InputError):
    """The system refuses a file: the disk is full, the folder read-only, .."""


def reason(error: OSError) -> str:
    """Why the system refused, in words."""
    return REASONS.get(error.errno or 0) or error.strerror or str(error) or type(error).__name__


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Around what writes a file. Raises: FileError, a sentence, for every error of the system."""
    try:
        yield
    except OSError as error:
        raise FileError(f"{path} must be a file that can be written; {reason(error)}") from error


def outputs(given: Mapping[str, Path | None], inputs: Sequence[Path] = (), *, endings: Mapping[str, Sequence[str]]) -> None:
    """Files to write, by the name of their argument, before the work: an ending that is known, a folder that can be made
    and written, and neither another output, nor an input, nor a file of a run."""
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
            fail(f"{name} must be another file than {seen[place]}; got {path} for both")
        if place in sources:
            fail(f"{name} must be another file than those that are read; got {path}")
        seen[place] = name


def writable(name: str, path: Path) -> None:
    """A file that may be made or replaced; its folder is made. A run's own files are not overwritten."""
    if path.is_dir():
        fail(f"{name} must be a file; {path} is a folder")
    own_folder = path.parent.parent if path.name == "last.pt" else path.parent
    if path.name in RUN_FILES and (own_folder / "config.json").exists():
        fail(f"{name} must not be a file of a run; got {path}")
    writable_folder(name, path.parent)
    if path.exists() and not os.access(path, os.W_OK):
        fail(f"{name} must be a file that can be written; permission is denied for {path}")


def writable_folder(name: str, folder: Path) -> None:
    """A folder that is there, or can be made, and in which files can be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        trial = folder / f".{os.getpid()}.partial"
        trial.touch()
        trial.unlink()
    except FileExistsError:
        fail(f"{name} must lie in a folder; {folder} is a file")
    except OSError as error:
        fail(f"{name} must lie in a folder that can be written; {folder} cannot: {reason(error)}")
