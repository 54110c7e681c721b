"""The readers of SVHN, on small folders that the tests write in the original MATLAB format."""

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
import torch
from PIL import Image

from stn import InputError
from stn.lab.data.files import describe
from stn.lab.data.svhn import (
    enlarged,
    load_svhn,
    load_svhn_cropped,
    read_cropped,
    read_digit_struct,
    read_numbers,
)

Digit = tuple[float, float, float, float, float]  # label, left, top, width, height
FIELDS = ("label", "left", "top", "width", "height")


class MatFile:
    """Write digitStruct.mat as MATLAB does: a 512-byte preamble, then HDF5 with cells that are references into #refs#."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file = h5py.File(path, "w", userblock_size=512)
        self.cells = self.file.create_group("#refs#")

    def cell(self, values: np.ndarray, kind: str) -> h5py.Reference:
        dataset = self.cells.create_dataset(f"c{len(self.cells)}", data=values)
        dataset.attrs["MATLAB_class"] = np.bytes_(kind)
        return dataset.ref

    def boxes(self, digits: Sequence[Digit]) -> h5py.Reference:
        group = self.cells.create_group(f"c{len(self.cells)}")
        group.attrs["MATLAB_class"] = np.bytes_("struct")
        for field, values in zip(FIELDS, zip(*digits, strict=True), strict=True):
            if len(values) == 1:  # MATLAB stores the fields of a single struct in place
                group.create_dataset(field, data=np.array([values], dtype=np.float64))
            else:
                self.references(group, field, [self.cell(np.array([[v]], np.float64), "double") for v in values])
        return group.ref

    def references(self, group: h5py.Group, name: str, references: Sequence[h5py.Reference]) -> None:
        column = np.array([[reference] for reference in references], dtype=h5py.ref_dtype)
        group.create_dataset(name, data=column, dtype=h5py.ref_dtype)

    def close(self, numbers: dict[str, Sequence[Digit]]) -> None:
        group = self.file.create_group("digitStruct")
        group.attrs["MATLAB_class"] = np.bytes_("struct")
        names = [np.array([[ord(letter)] for letter in name], np.uint16) for name in numbers]  # (letters, 1)
        self.references(group, "name", [self.cell(name, "char") for name in names])
        self.references(group, "bbox", [self.boxes(digits) for digits in numbers.values()])
        self.file.close()
        with self.path.open("r+b") as file:
            file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM")


NUMBERS: dict[str, Sequence[Digit]] = {
    "1.png": [(1, 20, 10, 8, 20), (9, 29, 11, 10, 20)],
    "2.png": [(10, 12, 6, 9, 18)],
    "3.png": [(2, 5, 5, 6, 12), (10, 12, 5, 6, 12), (4, 19, 6, 6, 12), (7, 25, 6, 6, 12), (5, 32, 7, 6, 12)],
}


def ramp(width: int = 64, height: int = 40) -> Image.Image:
    """Return an image whose red is the column and whose green is the row."""
    y, x = np.mgrid[:height, :width]
    return Image.fromarray(np.stack([x, y, 0 * x + 7], axis=-1).astype(np.uint8))


def make(folder: Path, numbers: dict[str, Sequence[Digit]] = NUMBERS) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in numbers:
        ramp().save(folder / name)
    MatFile(folder / "digitStruct.mat").close(numbers)
    return folder


def read(folder: Path, size: int = 16, margin: float = 0.3) -> tuple[torch.Tensor, torch.Tensor, str]:
    data, repairs = read_numbers(folder, size, margin=margin)
    return data.images, data.labels, describe(repairs)


def test_names_digits_and_boxes_are_read(tmp_path: Path) -> None:
    numbers = read_digit_struct(make(tmp_path) / "digitStruct.mat")
    assert [number.name for number in numbers] == list(NUMBERS)
    assert [number.digits.tolist() for number in numbers] == [[1, 9], [0], [2, 0, 4, 7, 5]]
    assert numbers[0].boxes.tolist() == [[20, 10, 28, 30], [29, 11, 39, 31]]
    assert numbers[1].boxes.tolist() == [[12, 6, 21, 24]]


def test_labels_say_where_a_number_ends(tmp_path: Path) -> None:
    images, labels, repairs = read(make(tmp_path))
    assert images.shape == (3, 3, 16, 16) and images.dtype == torch.uint8
    assert labels.tolist() == [[1, 9, 10, 10, 10], [0, 10, 10, 10, 10], [2, 0, 4, 7, 5]] and labels.dtype == torch.int64
    assert repairs == ""


@pytest.mark.parametrize("size, margin", ((8, 0.3), (32, 0.3), (64, 0.0), (16, 0.5)))
def test_the_crop_is_the_box_around_all_digits_enlarged(tmp_path: Path, size: int, margin: float) -> None:
    """A resized crop of a ramp is a ramp, so its values show the position of the crop."""
    image = read(make(tmp_path), size, margin)[0][0].double()
    left, top, right, bottom = 20.0, 10.0, 39.0, 31.0
    width, height = (1 + margin) * (right - left), (1 + margin) * (bottom - top)
    at = (torch.arange(size) + 0.5) / size - 0.5  # from the center
    x, y = (left + right - 1) / 2 + at * width, (top + bottom - 1) / 2 + at * height
    assert (image[0] - x).abs().max() <= 0.75 and (image[1] - y[:, None]).abs().max() <= 0.75  # rounded twice
    assert (image[2] == 7).all()


def test_a_margin_is_a_share_of_width_and_height() -> None:
    boxes = np.array([[10.0, 20, 20, 40], [20, 24, 30, 60]])
    assert enlarged(boxes, 0.3).tolist() == [7, 14, 33, 66]
    assert enlarged(boxes, 0.0).tolist() == [10, 20, 30, 60]


def test_the_margin_ends_at_the_images_edge(tmp_path: Path) -> None:
    image = read(make(tmp_path, {"1.png": [(1, 0, 0, 20, 40)], "2.png": [(1, 50, 5, 14, 30)]}), 40)[0].double()
    assert image[0, 0].min() == 0 and image[0, 1].max() == 39 and abs(float(image[0, 0].max()) - 22.5) <= 0.75
    assert image[1, 0].max() == 63


def test_shrinking_averages(tmp_path: Path) -> None:
    folder = make(tmp_path, {"1.png": [(1, 0, 0, 64, 40)], "2.png": [(1, 0, 0, 64, 40)]})
    board = (np.indices((40, 64)).sum(axis=0) % 2 * 255).astype(np.uint8)
    Image.fromarray(np.stack([board] * 3, axis=-1)).save(folder / "1.png")
    inner = read(folder, 8)[0][0, :, 1:-1, 1:-1].float()
    assert (inner - 127.5).abs().max() < 16


def test_what_can_be_repaired_is_counted(tmp_path: Path) -> None:
    numbers: dict[str, Sequence[Digit]] = {
        "1.png": [(1, -3, 5, 10, 20), (2, 8, 5, 10, 20), (3, 60, 30, 10, 20)],  # two boxes reach outside the image
        "2.png": [(4, 10, 5, 10, 20)],  # gray
        "3.png": [(5, 10, 5, 10, 20), (6, 64, 5, 10, 20)],  # the second box lies outside the image
        "4.png": [(1, 3 * i, 5, 3, 20) for i in range(6)],  # too many digits
        "5.png": [(7, 10, 5, 10, 20)],  # with transparency
        "6.png": [(8, 10, 5, 0, 20)],  # a box of width 0
        "7.png": [(9, 10, 5, float("nan"), 20)],
    }
    folder = make(tmp_path, numbers)
    ramp().convert("L").save(folder / "2.png")
    ramp().convert("RGBA").save(folder / "5.png")
    images, labels, repairs = read(folder, 64)
    assert labels[:, 0].tolist() == [1, 4, 7]
    counts = dict(part.rsplit(": ", 1) for part in repairs.split("; "))
    assert counts == {
        "numbers of more than 5 digits left out": "1",
        "numbers with a digit's box empty or outside the image left out": "3",
        "boxes clipped to their image": "2",
        "images of another kind made RGB": "2",
    }
    assert images[0, 0].min() == 0 and images[0, 0].max() == 63  # from edge to edge
    grey = torch.from_numpy(np.array(ramp().convert("L")))
    assert (images[1, 0] == images[1, 1]).all() and images[1].max() <= grey.max()
    assert len(set(images[2, 0].flatten().tolist())) > 5  # the colors are kept


def half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def two_gone(folder: Path) -> None:
    for name in ("2.png", "3.png"):
        (folder / name).unlink()


def rewrite(folder: Path, change: Callable[[h5py.File], None]) -> None:
    with h5py.File(folder / "digitStruct.mat", "r+") as file:
        change(file)


def without_a_field(file: h5py.File) -> None:
    del file[file["digitStruct/bbox"][0, 0]]["top"]


def one_value_short(file: h5py.File) -> None:
    group = file[file["digitStruct/bbox"][0, 0]]
    column = group["top"][:1]
    del group["top"]
    group.create_dataset("top", data=column, dtype=h5py.ref_dtype)


def one_name_short(file: h5py.File) -> None:
    column = file["digitStruct/name"][1:]
    del file["digitStruct/name"]
    file.create_dataset("digitStruct/name", data=column, dtype=h5py.ref_dtype)


def names_for_boxes(file: h5py.File) -> None:
    column = file["digitStruct/name"][()]
    del file["digitStruct/bbox"]
    file.create_dataset("digitStruct/bbox", data=column, dtype=h5py.ref_dtype)


def empty(file: h5py.File) -> None:
    del file["digitStruct"]


def a_group(file: h5py.File) -> None:
    del file["digitStruct/bbox"]
    file.create_group("digitStruct/bbox")


SPOILT: dict[str, tuple[Callable[[Path], object], str]] = {
    "no annotation": (
        lambda folder: (folder / "digitStruct.mat").unlink(),
        "train must hold digitStruct.mat; it does not. The data set comes from http://ufldl.stanford.edu/housenumbers/",
    ),
    "listed but absent": (
        two_gone,
        r"train must hold 2.png \(and 1 more of 3 files\); it does not. The data set comes from http://ufldl",
    ),
    "truncated image": (
        lambda folder: half(folder / "2.png"),
        "2.png must be a complete picture file; it is damaged or of another kind",
    ),
    "no picture": (
        lambda folder: (folder / "3.png").write_text("<html>"),
        "3.png must be a complete picture file; it is damaged or of another kind",
    ),
    "truncated annotation": (
        lambda folder: half(folder / "digitStruct.mat"),
        "digitStruct.mat must be a complete MATLAB v7.3",
    ),
    "another annotation": (
        lambda folder: scipy.io.savemat(folder / "digitStruct.mat", {"digitStruct": 1}),
        "digitStruct.mat must be a complete MATLAB v7.3 file with digitStruct/name and digitStruct/bbox",
    ),
    "an empty annotation": (lambda folder: rewrite(folder, empty), "must be a complete MATLAB v7.3 file"),
    "a field missing": (lambda folder: rewrite(folder, without_a_field), "label, left, top, width, height.; got .*top"),
    "a value missing": (lambda folder: rewrite(folder, one_value_short), "must be a complete MATLAB v7.3 file"),
    "a name missing": (lambda folder: rewrite(folder, one_name_short), "must be a complete MATLAB v7.3 file"),
    "names for boxes": (lambda folder: rewrite(folder, names_for_boxes), "must be a complete MATLAB v7.3 file"),
    "boxes in place": (lambda folder: rewrite(folder, a_group), "must be a complete MATLAB v7.3 file"),
    "label 0": (
        lambda folder: make(folder, NUMBERS | {"2.png": [(0, 5, 5, 9, 9)]}),
        r"digitStruct.mat must have labels from 1 to 10 \(digit 0\); 2.png has \[0.0\]",
    ),
    "label 11": (
        lambda folder: make(folder, NUMBERS | {"3.png": [(1, 5, 5, 9, 9), (11, 5, 5, 9, 9)]}),
        "has .1.0, 11.0.",
    ),
    "nothing usable": (
        lambda folder: make(folder, {name: [(1, 70, 5, 9, 9)] for name in NUMBERS}),
        "train must hold at least one usable image; 3 are listed, and none is",
    ),
}


@pytest.mark.parametrize("what", SPOILT)
def test_a_bad_folder_is_told(tmp_path: Path, what: str) -> None:
    folder = make(tmp_path / "train")
    make(tmp_path / "test")
    spoil, sentence = SPOILT[what]
    spoil(folder)
    with pytest.raises(InputError, match=sentence):
        load_svhn(tmp_path, 16)
    assert not list(tmp_path.glob("*.pt*"))  # a wrong download is deleted


def many(count: int, first: int = 1) -> dict[str, Sequence[Digit]]:
    return {f"{first + i}.png": [(1 + i % 10, 10, 5, 10 + i, 20)] for i in range(count)}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    make(tmp_path / "train", many(20))
    make(tmp_path / "test", many(7))
    make(tmp_path / "extra", many(9) | {"10.png": [(1, 3 * i, 5, 3, 20) for i in range(6)]})
    return tmp_path


def test_a_tenth_is_held_out_of_train_alone(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    splits, repairs = load_svhn(root, 16)
    assert [len(split) for split in splits] == [18, 2, 7] and describe(repairs) == ""
    whole = read_numbers(root / "train", 16)[0]
    assert torch.equal(torch.cat([splits.train.images, splits.valid.images]), whole.images)
    assert torch.equal(torch.cat([splits.train.labels, splits.valid.labels]), whole.labels)
    more, repairs = load_svhn(root, 16, extra=True)
    assert [len(split) for split in more] == [27, 2, 7]
    assert torch.equal(more.valid.images, splits.valid.images) and torch.equal(more.train.images[:18], splits.train.images)
    assert more.train.labels[:, 0].tolist() == [(1 + i % 10) % 10 for i in (*range(18), *range(9))]
    assert describe(repairs) == "numbers of more than 5 digits left out: 1"
    assert capsys.readouterr().out == ""  # the progress bar appears only on terminals


def test_crops_are_kept_until_settings_or_annotation_change(root: Path) -> None:
    first, _ = load_svhn(root, 16, extra=True)
    kept = {f"{name}-16px-margin0.3.pt" for name in ("train", "test", "extra")}
    assert {path.name for path in root.iterdir() if path.is_file()} == kept  # and no partial file
    for folder in ("train", "test", "extra"):
        for path in (root / folder).glob("*.png"):
            path.unlink()
    again, repairs = load_svhn(root, 16, extra=True)
    for a, b in zip(first, again, strict=True):
        assert torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels)
    assert describe(repairs) == "numbers of more than 5 digits left out: 1"
    for size, margin in ((17, 0.3), (16, 0.2)):
        with pytest.raises(InputError, match=r"train must hold 1.png \(and 19 more of 20 files\)"):
            load_svhn(root, size, margin=margin)
    os.utime(root / "train" / "digitStruct.mat", ns=(1, 1))
    with pytest.raises(InputError, match="train must hold 1.png"):
        load_svhn(root, 16)


def flipped(path: Path) -> None:
    """Flip one bit of a pixel; torch reads such a file without an error."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("damage", (half, flipped, lambda path: path.write_bytes(b""), lambda path: torch.save([1], path)))
def test_kept_crops_that_are_damaged_are_made_anew(root: Path, damage: Callable[[Path], object]) -> None:
    expected = load_svhn(root, 16)[0].train.images
    damage(root / "train-16px-margin0.3.pt")
    for _ in range(2):
        assert torch.equal(load_svhn(root, 16)[0].train.images, expected)
    assert torch.load(root / "train-16px-margin0.3.pt")["images"].shape == (20, 3, 16, 16)


def test_crops_may_be_kept_elsewhere(root: Path, tmp_path: Path) -> None:
    load_svhn(root, 16, cache=tmp_path / "elsewhere" / "here")
    assert len(list((tmp_path / "elsewhere" / "here").iterdir())) == 2 and not list(root.glob("*.pt"))
    (tmp_path / "file").write_text("no folder")
    with pytest.warns(UserWarning, match="the crops could not be saved in .* and will be made again each time"):
        assert len(load_svhn(root, 16, cache=tmp_path / "file")[0].train) == 18


def test_crops_that_cannot_be_kept_leave_nothing_behind(root: Path) -> None:
    (root / "train-16px-margin0.3.pt").mkdir()
    with pytest.warns(UserWarning, match="the crops could not be saved in .*train-16px-margin0.3.pt and will"):
        assert len(load_svhn(root, 16)[0].train) == 18
    assert not list(root.glob(".*"))


@pytest.fixture
def three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def test_threads_change_nothing(root: Path, three_threads: None) -> None:
    together = read(root / "train")[0]
    torch.set_num_threads(1)
    assert torch.equal(read(root / "train")[0], together)


def test_settings_that_make_no_sense(root: Path) -> None:
    with pytest.raises(InputError, match="size must be an integer of at least 1; got 0"):
        load_svhn(root, 0)
    with pytest.raises(InputError, match="margin must not be negative; got -0.1"):
        load_svhn(root, margin=-0.1)


def make_cropped(path: Path, count: int = 20, **change: np.ndarray) -> dict[str, np.ndarray]:
    pixels = np.random.default_rng(count).integers(0, 256, (32, 32, 3, count)).astype(np.uint8)
    arrays = {"X": pixels, "y": (np.arange(count) % 10 + 1).astype(np.uint8)[:, None]} | change
    scipy.io.savemat(path, arrays, do_compression=True)
    return arrays


def test_cropped_digits(tmp_path: Path) -> None:
    arrays = [make_cropped(tmp_path / f"{name}_32x32.mat", n) for name, n in (("train", 30), ("test", 20), ("extra", 40))]
    splits = load_svhn_cropped(tmp_path)
    assert [len(split) for split in splits] == [27, 3, 20]
    assert splits.train.images.shape == (27, 3, 32, 32) and splits.train.images.is_contiguous()
    assert np.array_equal(splits.train.images[5].permute(1, 2, 0).numpy(), arrays[0]["X"][..., 5])
    assert splits.test.labels[:11].tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]
    more = load_svhn_cropped(tmp_path, extra=True)
    assert [len(split) for split in more] == [67, 3, 20]
    assert np.array_equal(more.train.images[66].permute(1, 2, 0).numpy(), arrays[2]["X"][..., 39])


def test_a_bad_file_of_cropped_digits_is_told(tmp_path: Path) -> None:
    path = tmp_path / "train_32x32.mat"
    with pytest.raises(InputError, match="must hold train_32x32.mat; it does not. The data set comes from http://ufldl"):
        load_svhn_cropped(tmp_path)
    make_cropped(path)
    half(path)
    with pytest.raises(InputError, match="train_32x32.mat must be a complete MATLAB file with X and y; got"):
        read_cropped(path)
    scipy.io.savemat(path, {"X": np.zeros(3)})
    with pytest.raises(InputError, match="train_32x32.mat must be a complete MATLAB file with X and y; got KeyError"):
        read_cropped(path)
    make_cropped(path, y=np.ones((19, 1), np.uint8))
    with pytest.raises(InputError, match=r"must hold X of \(32, 32, 3, 19\) uint8, .*; got \(32, 32, 3, 20\) uint8"):
        read_cropped(path)
    make_cropped(path, X=np.zeros((32, 32, 3, 20)))
    with pytest.raises(InputError, match=r"got \(32, 32, 3, 20\) float64"):
        read_cropped(path)
    make_cropped(path, y=np.full((20, 1), 0, np.uint8))
    with pytest.raises(InputError, match=r"must have labels from 1 to 10 \(digit 0\); got \[0\]"):
        read_cropped(path)
