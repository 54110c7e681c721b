"""The reader of traffic signs: folders and zips, original sizes, whole tracks held out, sentences for what is missing."""

import io
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from stn import InputError
from stn.lab.data import load
from stn.lab.data.gtsrb import COLUMNS, ZIPS, Signs, held_out, load_gtsrb

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


def in_zips(root: Path) -> None:
    """As they are distributed: the classes of the test images in a zip of their own."""
    archives = [zipfile.ZipFile(root / name, "w") for name in ZIPS]
    for name, content in files():
        if name.endswith("GT-final_test.csv"):
            archives[2].writestr("GT-final_test.csv", content)
        else:
            archives["Final_Test" in name].writestr(f"GTSRB/{name}", content)
    for archive in archives:
        archive.close()


def equal(a: Signs, b: Signs) -> bool:
    return all(torch.equal(getattr(a, name), getattr(b, name)) for name in ("images", "labels", "tracks", "boxes"))


def test_folders_and_zips_hold_the_same(tmp_path: Path) -> None:
    made: list[Callable[[Path], None]] = [in_folders, lambda root: in_folders(root, ""), in_zips]
    found = []
    for i, make in enumerate(made):
        (tmp_path / str(i)).mkdir()
        make(tmp_path / str(i))
        found.append(load_gtsrb(tmp_path / str(i))[0])
    assert all(equal(*pair) for other in found[1:] for pair in zip(found[0], other, strict=True))
    train, valid, test = found[0]
    assert len(train) + len(valid) == FRAMES * sum(TRACKS.values()) and len(test) == 5
    assert train.images.shape[1:] == (3, 32, 32) and set(test.labels.tolist()) == {3, 17}
    splits = load("gtsrb", tmp_path / "2")
    assert torch.equal(splits.valid.images, valid.images) and torch.equal(splits.test.labels, test.labels)


def test_the_sign_is_in_its_box(tmp_path: Path) -> None:
    """Also in images that were resized: the made signs are bright, and all else is dark."""
    in_zips(tmp_path)
    (train, _, test), repairs = load_gtsrb(tmp_path, size=40)
    assert not any(repairs.values())
    for signs in (train, test):
        red = signs.images[:, 0].float()
        for image, (left, top, right, bottom) in zip(red, signs.boxes.tolist(), strict=True):
            inside = image[round(top) + 2 : round(bottom) - 2, round(left) + 2 : round(right) - 2]
            assert inside.min() > 150 and image[: max(1, round(top) - 2)].max() < 110


def test_whole_tracks_are_held_out(tmp_path: Path) -> None:
    in_zips(tmp_path)
    train, valid, _ = load_gtsrb(tmp_path)[0]
    assert not set(train.tracks.tolist()) & set(valid.tracks.tolist())
    assert valid.labels.unique(return_counts=True)[1].tolist() == [FRAMES, FRAMES]  # one track of each class
    alone = Signs(torch.zeros(2, 3, 4, 4), torch.tensor([5, 5]), torch.tensor([7, 7]), torch.zeros(2, 4))
    assert not held_out(alone).any()  # the only track of a class is learned from


def broken(change: Callable[[Path], object]) -> Callable[[Path], None]:
    def make(root: Path) -> None:
        in_folders(root)
        change(root / "GTSRB")

    return make


def rewrite(path: Path, old: str, new: str) -> None:
    path.write_text(path.read_text().replace(old, new, 1))


TABLE = "Final_Training/Images/00003/GT-00003.csv"
BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "nothing": (
        lambda root: None,
        r"must hold Final_Training/Images/CCCCC/GT-CCCCC.csv, or its zip file; .* comes from https",
    ),
    "no test": (broken(lambda g: (g / "Final_Test/GT-final_test.csv").unlink()), "must hold Final_Test/GT-final_test.csv"),
    "no zip": (lambda root: (root / ZIPS[0]).write_bytes(b"x"), f"{ZIPS[0]} must be a complete zip file"),
    "an image": (
        broken(lambda g: (g / "Final_Training/Images/00003/00001_00001.ppm").unlink()),
        "the image Final_Training/Images/00003/00001_00001.ppm must exist",
    ),
    "half an image": (
        broken(lambda g: (g / "Final_Test/Images/00002.ppm").write_bytes(b"P6\n9 9\n255\n1")),
        "00002.ppm must be a complete picture file",
    ),
    "a column": (
        broken(lambda g: rewrite(g / TABLE, "ClassId", "Class")),
        "GT-00003.csv must have the columns .* lacks ClassId",
    ),
    "a class": (broken(lambda g: rewrite(g / TABLE, ";3\n", ";43\n")), "must have classes from 0 to 42 .* line 2"),
    "a number": (
        broken(lambda g: rewrite(g / TABLE, ";3\n", ";x\n")),
        "must have whole numbers; line 2 has 00000_00000.ppm",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_missing_or_damaged_is_a_sentence(name: str, tmp_path: Path) -> None:
    make, sentence = BROKEN[name]
    make(tmp_path)
    with pytest.raises(InputError, match=sentence):
        load_gtsrb(tmp_path)


def test_gray_images_are_counted(tmp_path: Path) -> None:
    in_folders(tmp_path)
    path = tmp_path / "GTSRB/Final_Test/Images/00001.ppm"
    with Image.open(path) as image:
        gray = image.convert("L")
    gray.save(path, format="PPM")
    assert load_gtsrb(tmp_path)[1] == {"images of another kind made RGB": 1}
