"""A small data set of traffic signs in the official layout, of made-up pictures."""

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from stn.lab.data.gtsrb import COLUMNS, ZIPS

TRACKS, FRAMES = {3: 2, 17: 12}, 3  # class -> tracks
HEADER = ";".join(COLUMNS)


def picture(seed: int, size: tuple[int, int], form: str) -> bytes:
    """A bright square, the sign, on dark noise."""
    width, height = size
    pixels = np.random.default_rng(seed).integers(0, 60, (height, width, 3), dtype=np.uint8)
    pixels[height // 4 : height - height // 4, width // 4 : width - width // 4] = (200, 20 * (seed % 10), 30)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, format=form)
    return out.getvalue()


def files(form: str = "PPM", suffix: str = "ppm") -> Iterator[tuple[str, bytes]]:
    """Paths within the data set, and contents: the official layout, images of 15 to 60 pixels."""
    seed = 0

    def row(name: str, label: int) -> tuple[str, bytes]:
        size = 15 + 7 * seed % 46, 20 + 5 * seed % 41
        box = size[0] // 4, size[1] // 4, size[0] - size[0] // 4 - 1, size[1] - size[1] // 4 - 1
        return ";".join(map(str, (name, *size, *box, label))), picture(seed, size, form)

    for label, tracks in TRACKS.items():
        lines = [HEADER]
        for track in range(tracks):
            for frame in range(FRAMES):
                name = f"{track:05d}_{frame:05d}.{suffix}"
                line, content = row(name, label)
                lines.append(line)
                yield f"Final_Training/Images/{label:05d}/{name}", content
                seed += 1
        yield f"Final_Training/Images/{label:05d}/GT-{label:05d}.csv", "\n".join(lines).encode()
    lines = [HEADER]
    for i in range(5):
        line, content = row(f"{i:05d}.{suffix}", (3, 17)[i % 2])
        lines.append(line)
        yield f"Final_Test/Images/{i:05d}.{suffix}", content
        seed += 1
    yield "Final_Test/GT-final_test.csv", "\n".join(lines).encode()


def in_folders(root: Path, top: str = "GTSRB") -> None:
    for name, content in files():
        path = root / top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def in_zips(root: Path, form: str = "PPM", suffix: str = "ppm") -> None:
    """As they are distributed: the classes of the test images in a zip of their own."""
    root.mkdir(parents=True, exist_ok=True)
    archives = [zipfile.ZipFile(root / name, "w") for name in ZIPS]
    for name, content in files(form, suffix):
        if name.endswith("GT-final_test.csv"):
            archives[2].writestr("GT-final_test.csv", content)
        else:
            archives["Final_Test" in name].writestr(f"GTSRB/{name}", content)
    for archive in archives:
        archive.close()
