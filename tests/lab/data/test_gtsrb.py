"""The reader of traffic signs: folders and zips, original sizes, whole tracks held out, sentences for what is missing."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from stn import InputError
from stn.lab.data import load
from stn.lab.data.gtsrb import MD5, ZIPS, Signs, held_out, load_gtsrb
from tests.mirror import Mirror
from tests.signs import FRAMES, TRACKS, in_folders, in_zips


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


@pytest.fixture
def served(mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> Mirror:
    """A server of small archives whose checksums are taken for the official ones."""
    in_zips(mirror.folder)
    for name in ZIPS:
        monkeypatch.setitem(MD5, name, hashlib.md5((mirror.folder / name).read_bytes()).hexdigest())
    monkeypatch.setattr("stn.lab.data.gtsrb.download_gtsrb.__kwdefaults__", {"mirrors": [mirror.url + "/"]})
    return mirror


def test_missing_archives_are_downloaded(served: Mirror, tmp_path: Path) -> None:
    root = tmp_path / "root"
    whole = load("gtsrb", root, download=True)
    assert len(served.asked) == 3 and sorted(path.name for path in root.iterdir()) == sorted(ZIPS)
    (root / ZIPS[1]).unlink()
    (root / ZIPS[2]).write_bytes(b"half")  # damaged
    again = load("gtsrb", root, download=True)
    assert len(served.asked) == 5
    assert all(torch.equal(a.images, b.images) for a, b in zip(whole, again, strict=True))
    load("gtsrb", root, download=True)
    assert len(served.asked) == 5


def test_a_broken_archive_is_resumed(served: Mirror, tmp_path: Path) -> None:
    served.breaks = 1
    with pytest.raises(InputError, match=f"{ZIPS[0]} could not be downloaded. .*the connection broke after"):
        load("gtsrb", tmp_path, download=True)
    part = (tmp_path / f"{ZIPS[0]}.part").stat().st_size
    load("gtsrb", tmp_path, download=True)
    assert part > 0 and served.asked[:2] == [None, f"bytes={part}-"]


def test_other_bytes_are_not_taken(served: Mirror, tmp_path: Path) -> None:
    (served.folder / ZIPS[2]).write_bytes(b"another file")
    with pytest.raises(InputError, match=f"{ZIPS[2]} could not be downloaded. .*: its MD5 is not {MD5[ZIPS[2]]}"):
        load("gtsrb", tmp_path, download=True)
    assert not (tmp_path / ZIPS[2]).exists()


def test_folders_that_are_there_are_not_downloaded(served: Mirror, tmp_path: Path) -> None:
    """Neither are archives of the right names with other images, such as smaller ones."""
    in_folders(tmp_path / "folders")
    in_zips(tmp_path, form="PNG", suffix="png")
    assert all(len(load("gtsrb", root, download=True).test) == 5 for root in (tmp_path / "folders", tmp_path))
    assert served.asked == []
    (tmp_path / "folders" / ZIPS[2]).write_bytes(b"half")  # it would be read before the folder
    assert len(load("gtsrb", tmp_path / "folders", download=True).test) == 5 and len(served.asked) == 1


def test_fewer_held_out_images_are_whole_tracks(tmp_path: Path) -> None:
    in_zips(tmp_path)
    splits = load("gtsrb", tmp_path)
    few = splits.holding_out(FRAMES + 1)
    assert few.valid.groups is not None and few.train.groups is not None
    assert len(few.valid) == FRAMES and len(few.valid.groups.unique()) == 1
    assert not torch.isin(few.train.groups, few.valid.groups).any()
    assert len(few.train) + len(few.valid) == len(splits.train) + len(splits.valid)
    assert len(splits.holding_out(1).valid) == FRAMES  # one track remains
    assert splits.holding_out(1000) is splits
