"""Download a file with a known checksum from the first mirror that works, and resume an earlier partial download."""

from __future__ import annotations

import hashlib
import os
import urllib.error
import urllib.request
from collections.abc import Sequence
from http.client import HTTPException
from pathlib import Path
from typing import Any

from stn import _check
from stn.io.files import locked

CHUNK = 1 << 20  # bytes
TIMEOUT = 30  # seconds without an answer


def fetch(path: Path, urls: Sequence[str], sha256: str) -> Path:
    """Make `path` the file with this checksum. An existing or partial file is verified too.

    Bytes are collected in `<path>.part`; only a complete, verified file gets the name `path`.

    Raises: InputError with what each mirror answered.
    """
    _check.writable("root", path)
    with locked(path.with_name(f".{path.name}.lock")):  # another process may download the same file
        if path.exists() and digest(path) == sha256:
            return path
        return _fetched(path, urls, sha256)


def _fetched(path: Path, urls: Sequence[str], sha256: str) -> Path:
    part = path.with_name(path.name + ".part")
    answers = []
    for url in urls:
        for _ in range(2):  # a wrong resumed file may have a wrong beginning: download it again from the start
            resumed = part.exists()
            try:
                _continue(url, part)
            except _check.FileError:  # another mirror does not help with a full disk
                raise
            except (OSError, ValueError, HTTPException) as error:  # urllib's errors and broken connections are OSErrors
                answers.append(f"{url}: {error or type(error).__name__}")
                break
            if digest(part) == sha256:
                os.replace(part, path)
                return path
            part.unlink()
            answers.append(f"{url}: its SHA-256 is not {sha256}")
            if not resumed:
                break
    _check.fail(f"{path.name} could not be downloaded. " + "; ".join(answers))


def digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    sha256 = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            sha256.update(chunk)
    return sha256.hexdigest()


def _continue(url: str, part: Path) -> None:
    """Append the missing bytes of `url` to `part`, or download all if the server cannot resume."""
    start = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and start:  # nothing is left to send; the checksum decides
            return
        raise
    with response, _check.writing(part), part.open("ab" if response.status == 206 else "wb") as file:
        expected = response.headers.get("Content-Length")
        received = 0
        while chunk := _read(response):
            received += file.write(chunk)
    if expected is not None and received < int(expected):
        raise OSError(f"the connection broke after {received} of {expected} bytes")


class ConnectionBroke(HTTPException):
    """Wrap reading an answer, to separate network errors from disk errors."""


def _read(response: Any) -> bytes:
    try:
        chunk: bytes = response.read(CHUNK)
    except OSError as error:
        raise ConnectionBroke(str(error) or type(error).__name__) from error
    return chunk
