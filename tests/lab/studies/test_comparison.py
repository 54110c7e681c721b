"""The comparison of registration programs: its scores, its cases, and contenders that are missing or fail."""

from pathlib import Path

import numpy as np
import pytest
import torch

from stn.lab.bench.kept import Kept
from stn.lab.bench.rivals import AFFINE, DEFORMABLE, RIGID, Rival, moved
from stn.lab.studies import comparison
from stn.lab.studies.comparison import Case, compare, drawn, missing, pair, row, scores, table
from tests.helpers import seeded

IMAGE = torch.nn.functional.interpolate(torch.rand(1, 1, 6, 7, generator=seeded()), (48, 56), mode="bicubic").clamp(0, 1)


@pytest.mark.parametrize("family", (RIGID, AFFINE, DEFORMABLE))
@pytest.mark.parametrize("size", ((48, 56), (16, 20, 18)))
def test_maps_are_of_their_family_and_do_not_fold(family: str, size: tuple[int, ...]) -> None:
    true, count = drawn(family, size, 3), (12,) * len(size)
    assert (true.fold_share(count) == 0).all()
    if family == RIGID:  # lengths in pixels stay
        points = 10 * torch.rand(20, len(size), dtype=torch.float64, generator=seeded())
        there = true.points(points, pixels=(size, size))[0]
        torch.testing.assert_close((there[1:] - there[:-1]).norm(dim=-1), (points[1:] - points[:-1]).norm(dim=-1))
    if family == DEFORMABLE:
        shift = torch.from_numpy(moved(true, size, size)(comparison._pixels(size, 1)) - comparison._pixels(size, 1))
        assert 7.5 < shift.norm(dim=-1).max() < 8.5


def test_scores_of_the_true_map_and_of_one_beside_it() -> None:
    labels = (IMAGE > 0.5).float()
    case = pair("picture", IMAGE, AFFINE, 1, labels)
    assert case.true is not None
    right = moved(case.true, case.moving.shape, case.fixed.shape)
    exact, off = scores(case, right), scores(case, lambda points: right(points) + [3.0, 4.0])
    assert exact == {"pixels": pytest.approx(0, abs=1e-9), "failed": False, "dice": 1.0}
    assert off["pixels"] == pytest.approx(5) and off["failed"] and off["dice"] < 0.95
    assert not exact["failed"] and scores(case, lambda points: np.full_like(points, np.nan))["failed"]


def test_slices_without_a_known_map_are_scored_by_likeness() -> None:
    moving = IMAGE[0, 0].numpy()
    fixed = np.pad(moving[:, :-2], ((0, 0), (2, 0)))  # zeros, as the moving image has beyond its edge
    case = Case("r16 to r64", AFFINE, moving, fixed, None)
    same, shifted = scores(case, lambda points: points), scores(case, lambda points: points - [2.0, 0.0])
    assert shifted["dissimilarity"] < 1e-6 < same["dissimilarity"]


def test_contenders_that_are_missing_or_fail(tmp_path: Path) -> None:
    def breaks(moving: np.ndarray, fixed: np.ndarray, family: str) -> comparison.Move:
        raise RuntimeError("no overlap")

    gone, broken = Rival("gone", "no_such_package", breaks), Rival("broken", "stn", breaks)
    flat = Rival("identity", "stn", lambda moving, fixed, family: lambda points: points, (AFFINE,), (2,))
    kept, rivals = Kept(tmp_path / "rows", lambda rows: table(rows, "Title")), [gone, broken, flat]
    compare(kept, iter([pair("picture", IMAGE, family, 1) for family in (RIGID, AFFINE)]), rivals)
    rows = kept.rows
    assert [one["contender"] for one in rows] == ["broken", "broken", "identity"]
    assert rows[0]["failed"] and rows[0]["exception"] == "RuntimeError: no overlap"
    assert rows[2]["failed"] and rows[2]["pixels"] > 1 and rows[2]["seconds"] >= 0
    assert missing([gone, broken]) == ["gone is not installed (package no_such_package) and has no rows."]
    page = (tmp_path / "rows.md").read_text()
    assert "| photographs | affine | broken | 1 | 1 |  |" in page


def test_rows_of_an_earlier_run_stay(tmp_path: Path) -> None:
    calls = []

    def still(moving: np.ndarray, fixed: np.ndarray, family: str) -> comparison.Move:
        calls.append(moving.shape == IMAGE.shape[2:])
        return lambda points: points

    for seeds in ((1,), (1, 2)):
        kept = Kept(tmp_path / "rows", lambda rows: "", resume=True)
        compare(kept, iter([pair("picture", IMAGE, RIGID, seed) for seed in seeds]), [Rival("identity", "stn", still)])
    assert [one["seed"] for one in kept.rows] == [1, 2] and calls.count(True) == 2


def test_stn_finds_the_map() -> None:
    """In the direction and the coordinates that the scores expect."""
    case = pair("picture", IMAGE, RIGID, 1)
    found = row(case, comparison.RIVALS[0])
    assert comparison.RIVALS[0].name == "stn" and not found["failed"] and found["pixels"] < 0.3
