"""The reader of hippocampi, on NIfTI files that the tests write."""

import gzip
from pathlib import Path

import numpy as np
import pytest
import torch

import stn
from stn import InputError
from stn.lab.data.hippocampus import load_hippocampus, pairs, scaled
from tests.hippocampi import FOLDERS, write_case, write_cases

nibabel = pytest.importorskip("nibabel")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cases(tmp_path_factory.mktemp("hippocampi"))


def test_every_fifth_case_is_held_out(root: Path) -> None:
    data = load_hippocampus(root)
    assert [case.name[-3:] for case in data.test] == ["004", "009"]
    assert [case.name[-3:] for case in data.train] == ["000", "001", "002", "003", "005", "006", "007", "008"]


def test_values_and_labels_are_those_of_nibabel(root: Path) -> None:
    for case in load_hippocampus(root).test:
        image, labels = (nibabel.load(root / folder / f"{case.name}.nii.gz").get_fdata().T for folder in FOLDERS)
        assert np.array_equal(case.labels[0, 0].numpy(), labels)
        low, high = np.quantile(image, (0.01, 0.99))
        np.testing.assert_allclose(case.image[0, 0].numpy(), ((image - low) / (high - low)).clip(0, 1), atol=1e-4)
        assert case.size == image.shape


def test_the_plain_names_of_folders_are_read_too(tmp_path: Path) -> None:
    write_cases(tmp_path, folders=("images", "labels"))
    assert len(load_hippocampus(tmp_path).train) == 8


def test_values_keep_their_order_whatever_their_range() -> None:
    values = torch.arange(1000.0).view(1, 1, 10, 10, 10)
    for factor, shift in ((1.0, 0.0), (1e4, -5e5), (1e-3, 3.0)):
        torch.testing.assert_close(scaled(factor * values + shift), scaled(values), atol=1e-4, rtol=0)
    assert scaled(torch.ones(1, 1, 4, 4, 4)).abs().max() == 0


def test_pairs_are_different_and_the_same_each_time(root: Path) -> None:
    cases = load_hippocampus(root).train
    found = pairs(cases, 56)
    names = [(a.name, b.name) for a, b in found]
    assert len(set(names)) == 56 and all(a != b for a, b in names)
    assert [(a.name, b.name) for a, b in pairs(cases, 5)] == [(a.name, b.name) for a, b in pairs(cases, 5)]
    assert [a.name for a, _ in pairs(cases, 5, seed=1)] != [a.name for a, _ in pairs(cases, 5)]
    with pytest.raises(InputError, match="count must be from 1 to 56, the number of pairs of 8 cases; got 57"):
        pairs(cases, 57)


def test_centers_and_voxels_meet(root: Path) -> None:
    case = load_hippocampus(root).test[0]
    size = tuple(n + 4 for n in case.size)
    points = torch.tensor([[0.0, 0.0, 0.0], [5.0, 6.0, 7.0]])
    moved = case.centered(size).points(points, pixels=(case.size, size))[0]
    torch.testing.assert_close(moved, points - 2, atol=1e-4, rtol=0)


def test_what_is_no_such_data_set_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="root must hold the folders images and labels or imagesTr and labelsTr"):
        load_hippocampus(tmp_path)
    write_cases(tmp_path, count=3)
    with pytest.raises(InputError, match="must hold at least 10 files .nii.gz; it has 3"):
        load_hippocampus(tmp_path)
    write_cases(tmp_path)
    path = tmp_path / "labelsTr" / "hippocampus_003.nii.gz"
    kept = path.read_bytes()

    def refused(sentence: str) -> None:
        with pytest.raises(InputError, match=sentence):
            load_hippocampus(tmp_path)
        path.write_bytes(kept)

    path.unlink()
    refused("hippocampus_003.nii.gz must have its labels in .*, which does not exist")
    path.write_bytes(gzip.compress(b"no volume"))
    refused("path must be a complete NIfTI file")
    write_case(tmp_path, 3, labels=torch.ones(5, 6, 7, dtype=torch.uint8))
    refused("must have the same size; got")
    size = tuple(stn.read_nifti(tmp_path / "imagesTr" / path.name).values.shape[2:])
    write_case(tmp_path, 3, labels=torch.ones(size, dtype=torch.uint8))
    refused("must have the labels 0, 1 and 2; it has 1")
    write_case(tmp_path, 3, labels=torch.full(size, 3, dtype=torch.uint8))
    refused("must have the labels 0, 1 and 2; it has 3")
