"""Download a file with a known checksum from the first mirror that works, and resume an earlier partial download.

The checksum is a SHA-256, or an MD5 where a data set publishes no other.
"""

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
LABELS = {"sha256": "SHA-256", "md5": "MD5"}


def fetch(path: Path, urls: Sequence[str], checksum: str) -> Path:
    """Make `path` the file with this checksum. An existing or partial file is verified too.

    Bytes are collected in `<path>.part`; only a complete, verified file gets the name `path`.

    checksum: a SHA-256 of 64 hexadecimal digits, or an MD5 of 32.

    Raises: InputError with what each mirror answered.
    """
    _check.writable("root", path)
    with locked(path.with_name(f".{path.name}.lock")):  # another process may download the same file
        if path.exists() and digest(path, algorithm(checksum)) == checksum:
            return path
        return _fetched(path, urls, checksum)


def _fetched(path: Path, urls: Sequence[str], checksum: str) -> Path:
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
            if digest(part, algorithm(checksum)) == checksum:
                os.replace(part, path)
                return path
            part.unlink()
            answers.append(f"{url}: its {LABELS[algorithm(checksum)]} is not {checksum}")
            if not resumed:
                break
    _check.fail(f"{path.name} could not be downloaded. " + "; ".join(answers))


def algorithm(checksum: str) -> str:
    return "sha256" if len(checksum) == 64 else "md5"


def digest(path: Path, name: str = "sha256") -> str:
    """Return the checksum of a file."""
    hashed = hashlib.new(name, usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            hashed.update(chunk)
    return hashed.hexdigest()


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
