"""PNG files of colors, or of gray with opacity, of 16 bits per channel, of which Pillow reads only 8.

Of the standard (ISO/IEC 15948): chunks with their checksums, one zlib stream, five filters of rows, and seven passes if the
picture is interlaced.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np

from stn.io.files import write_atomically

SIGNATURE = b"\x89PNG\r\n\x1a\n"
CHANNELS = {2: 3, 4: 2, 6: 4}  # color type -> RGB, gray and opacity, RGBA
COLOR_TYPES = {count: kind for kind, count in CHANNELS.items()}
WHOLE = ((0, 0, 1, 1),)
PASSES = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))  # first, step
UP = 2  # the filter of the files that are written


def read(file: IO[bytes]) -> np.ndarray:
    """Return uint16 (H, W, C) with C = 2, 3 or 4. A color that the file declares transparent gets an opacity of 0.

    Raises: ValueError for damaged bytes.
    """
    header, key, packed = b"", b"", []
    for name, data in _chunks(file):
        if name == b"IHDR":
            header = data
        elif name == b"tRNS":
            key = data
        elif name == b"IDAT":
            packed.append(data)
    width, height, depth, color, _, _, interlaced = struct.unpack(">IIBBBBB", header)
    if depth != 16 or color not in CHANNELS:
        raise ValueError(f"{depth} bits of color type {color}")
    values = _pixels(b"".join(packed), height, width, CHANNELS[color], PASSES if interlaced else WHOLE)
    if not key:
        return values
    opacity = np.where((values == np.frombuffer(key, ">u2")).all(axis=-1, keepdims=True), 0, 65535)
    return np.concatenate([values, opacity.astype(np.uint16)], axis=-1)


def _chunks(file: IO[bytes]) -> list[tuple[bytes, bytes]]:
    if file.read(8) != SIGNATURE:
        raise ValueError("no signature")
    found: list[tuple[bytes, bytes]] = []
    while not found or found[-1][0] != b"IEND":
        length, name = struct.unpack(">I4s", file.read(8))
        data, checksum = file.read(length), file.read(4)
        if len(data) < length or checksum != struct.pack(">I", zlib.crc32(name + data)):
            raise ValueError(f"the chunk {name.decode('latin-1')} is damaged")
        found.append((name, data))
    return found


def _pixels(packed: bytes, height: int, width: int, channels: int, passes: Any) -> np.ndarray:
    values = np.empty((height, width, channels), np.uint16)
    parts = [values[top::down, left::right] for top, left, down, right in passes]
    sizes = [len(part) * (1 + 2 * channels * part.shape[1]) if part.size else 0 for part in parts]
    inflate = zlib.decompressobj()
    stream = inflate.decompress(packed, sum(sizes))  # no more, whatever the stream holds
    if len(stream) < sum(sizes):
        raise ValueError("pixels are missing")
    for part, size in zip(parts, sizes, strict=True):
        if size:
            rows = np.frombuffer(stream[:size], np.uint8).reshape(len(part), -1)
            bytes_of = _unfiltered(rows[:, 0], rows[:, 1:].reshape(len(part), -1, 2 * channels))
            part[...] = bytes_of.view(">u2")
        stream = stream[size:]
    return values


def _unfiltered(filters: np.ndarray, raw: np.ndarray) -> np.ndarray:  # (H,), (H, W, B) uint8
    """Add the prediction of each byte from the bytes left of it (a), above (b), and above left (c).

    All pixels of a diagonal depend on those of the two diagonals before it alone, and are computed at once.
    """
    if filters.max() > 4:
        raise ValueError("an unknown filter")
    height, width, _ = raw.shape
    found = np.zeros((height + 1, width + 1, raw.shape[2]), np.int16)  # with zeros above and on the left
    for diagonal in range(height + width - 1):
        y = np.arange(max(0, diagonal - width + 1), min(height, diagonal + 1))
        x = diagonal - y
        a, b, c = found[y + 1, x], found[y, x + 1], found[y, x]
        pa, pb, pc = np.abs(b - c), np.abs(a - c), np.abs(a + b - 2 * c)
        paeth = np.where((pa <= pb) & (pa <= pc), a, np.where(pb <= pc, b, c))
        predicted = np.choose(filters[y, None], (np.zeros_like(a), a, b, (a + b) // 2, paeth))
        found[y + 1, x + 1] = (raw[y, x] + predicted) & 255
    return np.ascontiguousarray(found[1:, 1:], np.uint8)


def write(values: np.ndarray, path: Path, profile: bytes | None = None) -> None:  # uint16 (H, W, C), C = 2, 3 or 4
    """Write a PNG file of 16 bits per channel atomically, with a color profile if there is one."""
    height, width, channels = values.shape
    rows = np.ascontiguousarray(values, ">u2").view(np.uint8).reshape(height, -1)
    filtered = np.diff(rows, axis=0, prepend=np.zeros_like(rows[:1]))
    packed = zlib.compress(np.insert(filtered, 0, UP, axis=1).tobytes())
    header = struct.pack(">IIBBBBB", width, height, 16, COLOR_TYPES[channels], 0, 0, 0)
    chunks = [(b"IHDR", header)]
    if profile:
        chunks.append((b"iCCP", b"ICC profile\0\0" + zlib.compress(profile)))
    chunks += [(b"IDAT", packed), (b"IEND", b"")]

    def fill(file: IO[bytes]) -> None:
        file.write(SIGNATURE)
        for name, data in chunks:
            file.write(struct.pack(">I4s", len(data), name) + data + struct.pack(">I", zlib.crc32(name + data)))

    write_atomically(path, fill)
