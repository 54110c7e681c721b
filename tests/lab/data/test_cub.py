"""The reader of CUB-200-2011, on small folders that the tests write in the original layout."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from stn import InputError
from stn.lab.data import RepairWarning, load
from stn.lab.data.cub import FOLDER, Birds, central_view, load_cub, random_view, read_resized, square_pictures
from stn.lab.data.files import describe
from tests.helpers import seeded

CLASSES = {3: "003.Sooty_Albatross", 17: "017.Cardinal", 200: "200.Common_Yellowthroat"}
PER_CLASS = 24  # images; every second one is for training
Tables = dict[str, list[str]]


def tables() -> Tables:
    """Return tables in which ids are not contiguous and the classes alternate in the list of images."""
    images = [(5 + 7 * i, list(CLASSES)[i % 3]) for i in range(3 * PER_CLASS)]
    return {
        "classes.txt": [f"{number} {name}" for number, name in reversed(CLASSES.items())],
        "images.txt": [f"{i} {CLASSES[number]}/bird_{i}.png" for i, number in images],
        "image_class_labels.txt": [f"{i} {number}" for i, number in reversed(images)],
        "train_test_split.txt": [f"{i} {int(k % 6 < 3)}" for k, (i, _) in enumerate(images)],
        "bounding_boxes.txt": [f"{i} 4.5 3.0 20.0 30.5" for i, _ in images],
    }


def make(root: Path, rows: Tables | None = None) -> Path:
    """Write images of 48x40 pixels, each with its own color."""
    rows = rows or tables()
    for k, row in enumerate(rows["images.txt"]):
        path = root / "images" / row.split()[1]
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (48, 40), (k, k, 200)).save(path)
    return write(root, rows)


def write(root: Path, rows: Tables) -> Path:
    for name, lines in rows.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text("".join(f"{line}\n" for line in lines))
    return root


def picture(root: Path, k: int) -> Path:
    """Return the file of the k-th image in the list."""
    return root / "images" / tables()["images.txt"][k].split()[1]


def of(birds: Birds) -> list[int]:
    """Return the indices of these images, read from their color."""
    return [int(birds[i][0][0, 0, 0]) for i in range(len(birds))]


@pytest.mark.parametrize("below", (".", FOLDER))
def test_tables_are_joined_by_id(tmp_path: Path, below: str) -> None:
    make(tmp_path / below)
    splits, repairs = load_cub(tmp_path, short_side=32, size=28)
    assert describe(repairs) == "" and splits.train.classes == tuple(CLASSES.values())
    training = [k for k in range(72) if k % 6 < 3]
    held_out = [66, 67, 68]  # the last of every 12 training images of a class
    assert of(splits.valid) == held_out
    assert of(splits.train) == [k for k in training if k not in held_out]
    assert of(splits.test) == [k for k in range(72) if k % 6 >= 3]
    for birds in splits:
        assert birds.labels.tolist() == [k % 3 for k in of(birds)]
        view, label = birds[-1]
        assert view.shape == (3, 28, 28) and view.dtype == torch.uint8 and label == birds.labels[-1]
        assert birds.sizes.tolist() == [[48, 40]] * len(birds) and birds.parts is None
        assert birds.boxes.tolist() == [[4.5, 3.0, 24.5, 33.5]] * len(birds)


def test_part_of_the_images_may_be_listed(tmp_path: Path) -> None:
    rows = tables()
    rows["images.txt"] = rows["images.txt"][::2]
    splits, _ = load_cub(make(tmp_path, rows), short_side=32, size=28)
    assert sum(map(len, splits)) == 36 and len(splits.test.classes) == 3


PARTS = {
    "parts/parts.txt": ["1 back", "2 left eye", "15 throat"],
    "parts/part_locs.txt": ["12 15 10.5 4.0 1", "12 2 0.0 0.0 0", "6 1 1.0 1.0 1", "5 1 7.0 8.0 1"],  # there is no image 6
}


def test_parts_are_read_if_there(tmp_path: Path) -> None:
    splits, _ = load_cub(make(tmp_path, tables() | PARTS), short_side=32, size=28)
    assert splits.train.parts is not None and splits.train.parts.shape == (33, 3, 3)
    assert splits.train.parts[0].tolist() == [[7, 8, 1], [0, 0, 0], [0, 0, 0]]
    assert splits.train.parts[1].tolist() == [[0, 0, 0], [0, 0, 0], [10.5, 4, 1]]
    assert splits.test.parts is not None and not splits.test.parts[:, :, 2].any()


@pytest.mark.parametrize("size, expected", (((500, 375), (683, 512)), ((333, 500), (512, 769)), ((60, 60), (512, 512))))
def test_the_short_side_is_as_asked(tmp_path: Path, size: tuple[int, int], expected: tuple[int, int]) -> None:
    Image.new("RGB", size).save(tmp_path / "bird.png")
    assert read_resized(tmp_path / "bird.png", 512).shape == (3, expected[1], expected[0])


def test_shrinking_averages(tmp_path: Path) -> None:
    board = (np.indices((128, 128)).sum(axis=0) % 2 * 255).astype(np.uint8)
    Image.fromarray(np.stack([board] * 3, axis=-1)).save(tmp_path / "board.png")
    inner = read_resized(tmp_path / "board.png", 32)[:, 1:-1, 1:-1].float()
    assert (inner - 127.5).abs().max() < 8


IMAGE = torch.arange(7 * 10).view(1, 7, 10).expand(3, -1, -1)  # pixel = 10 row + column


def test_the_central_view_is_the_middle() -> None:
    assert torch.equal(central_view(IMAGE, 5), IMAGE[:, 1:6, 2:7])
    assert torch.equal(central_view(IMAGE, 7), IMAGE[:, :, 1:8])


def test_random_views_are_all_parts_and_their_mirror_images_alike() -> None:
    generator = seeded()
    seen: dict[tuple[int, bool], int] = {}
    for _ in range(2880):
        view = random_view(IMAGE, 5, generator)
        flipped = bool(view[0, 0, 0] > view[0, 0, 1])
        corner = int(view.min())
        expected = IMAGE[:, corner // 10 : corner // 10 + 5, corner % 10 : corner % 10 + 5]
        assert torch.equal(view.flip(-1) if flipped else view, expected)
        seen[corner, flipped] = seen.get((corner, flipped), 0) + 1
    assert len(seen) == 3 * 6 * 2 and min(seen.values()) > 40  # the expected count is 80, with a standard deviation of 9


def test_views_larger_than_the_image() -> None:
    for view in (lambda: central_view(IMAGE, 8), lambda: random_view(IMAGE, 8, seeded())):
        with pytest.raises(InputError, match=r"size must be at most the image's height and width; got 8 for \(3, 7, 10\)"):
            view()


@pytest.fixture
def noisy(tmp_path: Path) -> Path:
    """Write images of noise, so that every view is different."""
    make(tmp_path)
    for k in range(72):
        pixels = np.random.default_rng(k).integers(0, 256, (40, 48, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(picture(tmp_path, k))
    return tmp_path


def test_views_are_a_function_of_seed_and_place(noisy: Path) -> None:
    birds = load_cub(noisy, short_side=40, size=28)[0].test
    once, again, other = ([birds.drawn(seed)[i][0] for i in range(8)] for seed in (1, 1, 2))
    assert all(map(torch.equal, once, again)) and not any(map(torch.equal, once, other))
    assert torch.equal(birds.drawn(1)[-1][0], birds.drawn(1)[len(birds) - 1][0])
    middle = torch.from_numpy(np.array(Image.open(picture(noisy, 3)))).permute(2, 0, 1)[:, 6:34, 10:38]
    assert torch.equal(birds[0][0], middle)


def test_workers_draw_the_same_views(noisy: Path) -> None:
    birds = load_cub(noisy, short_side=40, size=28)[0].train.drawn(3)
    here = list(DataLoader(birds, batch_size=16))
    there = list(DataLoader(birds, batch_size=16, num_workers=2, multiprocessing_context="spawn"))
    assert [len(labels) for _, labels in here] == [16, 16, 1]
    for (views, labels), (others, same) in zip(here, there, strict=True):
        assert torch.equal(views, others) and torch.equal(labels, same) and labels.dtype == torch.int64


def test_points_are_where_the_view_shows_them(tmp_path: Path) -> None:
    make(tmp_path)
    for k, size in ((3, (64, 40)), (4, (40, 90))):  # the first two images of the test set
        canvas = Image.new("RGB", size)
        canvas.paste((255, 255, 255), (12, 18, 20, 30))
        canvas.save(picture(tmp_path, k))
    birds = load_cub(tmp_path, short_side=80, size=70)[0].test.take([0, 1])
    x = torch.tensor([[[12.0, 18], [20, 30]]]).expand(2, -1, -1)
    edges = (birds.in_view(x) + 1) * 35  # in pixels of the view
    for i, (low, high) in enumerate(edges):
        bright = (birds[i][0][0] > 127).nonzero().flip(-1)  # x, y
        torch.testing.assert_close(bright.amin(0).float(), low.clamp(min=0), atol=0.6, rtol=0)
        torch.testing.assert_close(bright.amax(0) + 1.0, high, atol=0.6, rtol=0)
    torch.testing.assert_close(edges[:, 0], torch.tensor([[24.0 - 29, 36 - 5], [24 - 5, 36 - 55]]))


def test_what_can_be_repaired_is_counted(tmp_path: Path) -> None:
    rows = tables()
    boxes = {
        3: "-2.0 3.0 20.0 30.0",
        4: "30.0 20.0 18.5 20.0",
        5: "48.0 3.0 5.0 5.0",
        9: "1.0 1.0 -3.0 5.0",
        10: "0 0 48 40",
    }
    for k, box in boxes.items():
        rows["bounding_boxes.txt"][k] = f"{5 + 7 * k} {box}"
    make(tmp_path, rows)
    Image.new("L", (48, 40), 90).save(picture(tmp_path, 3))
    Image.new("RGB", (48, 40), (255, 0, 0)).convert("P").save(picture(tmp_path, 4))
    splits, repairs = load_cub(tmp_path, short_side=32, size=28)
    assert dict(part.rsplit(": ", 1) for part in describe(repairs).split("; ")) == {
        "boxes clipped to their image": "2",
        "boxes outside their image replaced by the whole image": "2",
        "images of another kind made RGB": "2",
    }
    whole = [0.0, 0.0, 48.0, 40.0]
    assert splits.test.boxes[:5].tolist() == [[0, 3, 18, 33], [30, 20, 48, 40], whole, whole, whole]
    assert (splits.test[0][0] == 90).all() and splits.test[1][0][:, 5, 5].tolist() == [255, 0, 0]


def replace(name: str, place: int, line: str) -> Callable[[Path], object]:
    rows = tables() | PARTS
    rows[name][place] = line
    return lambda root: write(root, {name: rows[name]})


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "no folder": (
        lambda root: root.rename(root.with_name("moved")),
        "must hold images.txt .and 4 more of 5 files.; it does not. The data set comes from https://www.vision.caltech.edu/",
    ),
    "table missing": (
        lambda root: (root / "classes.txt").unlink(),
        "must hold classes.txt; it does not. The data set comes",
    ),
    "listed but absent": (
        lambda root: picture(root, 7).unlink(),
        r"images must hold 017.Cardinal/bird_54.png; it does not. The data set comes from https://www.vision",
    ),
    "no picture": (
        lambda root: picture(root, 7).write_text("<html>"),
        "bird_54.png must be a complete picture file; it is damaged or of another kind",
    ),
    "class out of range": (
        replace("image_class_labels.txt", 0, "502 4"),
        "image_class_labels.txt must name classes of classes.txt; image 502 has class 4",
    ),
    "split out of range": (replace("train_test_split.txt", 0, "5 2"), r"must say 1 \(training\) or 0 of each image; got 2"),
    "image without a class": (
        replace("image_class_labels.txt", 0, "503 3"),
        "image_class_labels.txt must have a row for each of 72 images; 1 lack one, first 502",
    ),
    "image without a box": (replace("bounding_boxes.txt", 1, ""), "bounding_boxes.txt must have a row .* first 12"),
    "an id twice": (
        replace("train_test_split.txt", 1, "5 0"),
        "train_test_split.txt must have each id once; 5 occurs again",
    ),
    "words for numbers": (
        replace("bounding_boxes.txt", 2, "19 4.5 x 2 2"),
        "bounding_boxes.txt, line 3, must have the fields int, float, float, float, float; got '19 4.5 x 2 2'",
    ),
    "a field missing": (replace("classes.txt", 1, "17"), "classes.txt, line 2, must have the fields int, str; got '17'"),
    "nothing listed": (lambda root: write(root, {"images.txt": [""]}), "images.txt must list at least one image"),
    "parts without places": (
        lambda root: write(root, {"parts/parts.txt": ["1 back"]}),
        "parts must hold part_locs.txt; it does not. The data set comes from",
    ),
    "part out of range": (
        lambda root: write(root, PARTS | {"parts/part_locs.txt": ["5 3 1.0 1.0 1"]}),
        "part_locs.txt must name parts of parts.txt; image 5 has part 3",
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_folder_is_told(tmp_path: Path, what: str) -> None:
    root = make(tmp_path / "cub")
    spoil, sentence = BAD[what]
    spoil(root)
    with pytest.raises(InputError, match=sentence):
        load_cub(root, short_side=32, size=28)


@pytest.mark.parametrize("workers", (0, 1))
def test_a_truncated_image_is_told_when_it_is_decoded(noisy: Path, workers: int) -> None:
    path = picture(noisy, 4)
    path.write_bytes(path.read_bytes()[:2000])
    birds = load_cub(noisy, short_side=32, size=28)[0].test
    context = "spawn" if workers else None
    with pytest.raises(InputError, match=f"{path.name} must be a complete picture file; it is damaged or of another kind"):
        list(DataLoader(birds, batch_size=4, num_workers=workers, multiprocessing_context=context))


def test_settings_that_make_no_sense(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="short_side must be an integer of at least 448; got 256"):
        load_cub(make(tmp_path), short_side=256)
    with pytest.raises(InputError, match="size must be an integer of at least 1; got 0"):
        load_cub(tmp_path, size=0)


def test_squares_in_memory_are_the_middle_views(tmp_path: Path) -> None:
    make(tmp_path)
    splits, _ = square_pictures(tmp_path, 24)
    for labeled, birds in zip(splits, load_cub(tmp_path, short_side=24, size=24)[0], strict=True):
        assert labeled.images.shape == (len(birds), 3, 24, 24) and torch.equal(labeled.labels, birds.labels)
        assert all(torch.equal(labeled.images[i], birds[i][0]) for i in range(len(birds)))


def test_loaded_by_name_repairs_are_a_warning(tmp_path: Path) -> None:
    rows = tables()
    rows["bounding_boxes.txt"][0] = rows["bounding_boxes.txt"][0].split()[0] + " -4.5 3.0 20.0 30.5"
    make(tmp_path, rows)
    with pytest.warns(RepairWarning, match="boxes clipped to their image: 1$"):
        splits = load("cub", tmp_path)
    assert splits.train.images.shape[1:] == (3, 256, 256)
    with pytest.raises(InputError, match="download must be False for data='cub'"):
        load("cub", tmp_path, download=True)
    with pytest.raises(InputError, match="root must name the folder of the files of data='cub'; got None"):
        load("cub")
