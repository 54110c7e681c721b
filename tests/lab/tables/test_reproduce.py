"""A table is made cell by cell, continues after an interruption, and shows which cells are missing."""

import dataclasses
import errno
import json
import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from stn import InputError
from stn.lab.experiments import Run, RunFolder
from stn.lab.figures import draw_table
from stn.lab.networks import build, num_parameters
from stn.lab.tables import TABLES, Cell, Table
from stn.lab.tables.markdown import markdown
from stn.lab.tables.reproduce import Job, cell_row, planned, reproduce

RUN = Run(distortion="none", model="fcn", epochs=2, draws=2, batch_size=256)
TINY = Table(
    "Tiny",
    (
        Cell("ST-FCN rigid", "NONE", dataclasses.replace(RUN, model="st-fcn", transform="rigid"), 90.0, "fcn/none"),
        Cell("FCN", "NONE", RUN, 0.0),
        Cell("FCN", "R", dataclasses.replace(RUN, distortion="r"), 0.0),
    ),
    recipe="As it comes.",
    quick=2,
    pictured=("st-fcn",),
)


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TABLES, "tiny", TINY)
    monkeypatch.setattr("stn.lab.experiments.train.COPIES", {"digits": 1})


def make(folder: Path, **options: Any) -> list[dict[str, Any]]:
    return reproduce("tiny", root=None, out=folder / "tiny", runs=folder / "runs", **options)


def test_rows_table_and_figure(tmp_path: Path) -> None:
    rows = make(tmp_path, cells=["*/none"], seeds=2)
    assert [(row["cell"], row["seed"]) for row in rows] == [
        ("st-fcn-rigid/none", 0),
        ("fcn/none", 0),
        ("st-fcn-rigid/none", 1),
        ("fcn/none", 1),
    ]
    assert rows == [json.loads(line) for line in (tmp_path / "tiny.jsonl").read_text().splitlines()]
    row = rows[0]
    assert row["run"]["epochs"] == 2 and "root" not in row["run"] and row["parameters"] > 300_000 and row["step"] == 8
    assert {"off_image_share", "theta_gradient", "valid_error_percent", "machine", "seconds"} <= set(row)
    text = (tmp_path / "tiny.md").read_text()
    assert "- Not trained yet: fcn/r." in text and "- Above the paper's error: fcn/none." in text
    mixed = [row | {"error_percent": error} for row, error in zip(rows, (5.0, 6.0, 5.0, 4.0), strict=True)]
    assert "than the baseline of the same seed: st-fcn-rigid/none 1 of 2." in markdown("tiny", TINY, mixed, "full")
    assert "same seed" not in markdown("tiny", TINY, mixed[:3], "full")
    assert (
        "| ST-FCN rigid | **" in text
        and "| – (0.0) |" in text
        and text.count("\n| fcn/none | ") == 2
        and "](tiny.png)" in text
    )
    picture = draw_table(TINY, tmp_path / "runs", tmp_path / "tiny.png")
    assert picture is not None and picture.stat().st_size > 1000
    assert draw_table(TINY, tmp_path / "nowhere", tmp_path / "none.png") is None


def test_what_is_there_is_left_alone_and_a_changed_recipe_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = make(tmp_path, cells=["fcn/none"])
    called: list[str] = []

    def count(job: Job) -> dict[str, Any]:
        called.append(job.cell.name)
        return cell_row(job)

    monkeypatch.setattr("stn.lab.tables.reproduce.cell_row", count)
    assert make(tmp_path, cells=["fcn/none"], seeds=1) == first and called == []
    rows = make(tmp_path, cells=["fcn/*"], seeds=1)
    assert called == ["fcn/r"] and rows[0] == first[0]
    changed = dataclasses.replace(TINY, cells=(dataclasses.replace(TINY.cells[1], run=dataclasses.replace(RUN, lr=1e-3)),))
    monkeypatch.setitem(TABLES, "tiny", changed)
    with pytest.raises(
        InputError, match="cell fcn/none, seed 0: the run in .* has lr=0.003; use the same settings, or a new folder"
    ):
        make(tmp_path, cells=["fcn/none"])
    rows = reproduce("tiny", root=None, out=tmp_path / "tiny", runs=tmp_path / "new")
    assert [(row["cell"], row["run"]["lr"]) for row in rows] == [("fcn/none", 1e-3)]  # no row of other settings is left


def test_what_another_call_writes_meanwhile_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two calls share one file, each with its own cells, perhaps on two machines."""

    def train_another_first(job: Job) -> dict[str, Any]:
        if job.cell.name == "fcn/none":
            make(tmp_path, cells=["fcn/r"])
        return cell_row(job)

    monkeypatch.setattr("stn.lab.tables.reproduce.cell_row", train_another_first)
    rows = make(tmp_path, cells=["fcn/none"])
    assert [row["cell"] for row in rows] == ["fcn/r", "fcn/none"]
    assert "Not trained yet: st-fcn-rigid/none." in (tmp_path / "tiny.md").read_text()


def test_a_stopped_cell_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = make(tmp_path / "whole", cells=["fcn/none"])[0]

    def stop(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("stn.lab.experiments.train.Trainer._test", stop)
        with pytest.raises(KeyboardInterrupt):
            make(tmp_path, cells=["fcn/none"])
    assert not (tmp_path / "tiny.jsonl").exists()
    row = make(tmp_path, cells=["fcn/none"])[0]
    for key in ("error_percent", "draws_spread", "valid_error_percent", "train_loss"):
        assert row[key] == whole[key], key


def test_the_quick_budget_is_a_shorter_one(tmp_path: Path) -> None:
    row = make(tmp_path, cells=["fcn/none"], budget="quick")[0]
    assert row["budget"] == "quick" and row["run"]["epochs"] == 1
    assert "a trial" in markdown("tiny", TINY, [row], "quick") and "fcn/none | 0" not in markdown(
        "tiny", TINY, [row], "full"
    )


def test_workers_train_cells_at_once_and_find_the_same(tmp_path: Path) -> None:
    alone = make(tmp_path / "alone", cells=["fcn/*"], budget="quick")
    at_once = make(tmp_path / "at once", cells=["fcn/*"], budget="quick", workers=2)
    # A worker is a separate process, where an epoch is ten copies of the digits.
    assert {row["cell"] for row in at_once} == {row["cell"] for row in alone}
    assert all(row["step"] == 49 and row["threads"] >= 1 and row["error_percent"] < 40 for row in at_once)


def test_a_worker_that_fails_says_which_cell(tmp_path: Path) -> None:
    RunFolder(tmp_path / "runs" / RUN.name).open(dataclasses.replace(RUN, seed=7))
    with pytest.raises(InputError, match="cell fcn/none, seed 0: the run in .* has seed=7"):
        make(tmp_path, cells=["fcn/none"], workers=2)


def test_a_worker_that_is_killed_ends_the_command_with_a_sentence(tmp_path: Path) -> None:
    before = multiprocessing.active_children()

    def kill() -> None:
        while not (children := [child for child in multiprocessing.active_children() if child not in before]):
            time.sleep(0.01)
        os.kill(children[0].pid or 0, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(InputError, match="a worker process was killed, .* the same command continues from there"):
        make(tmp_path, cells=["fcn/*"], workers=2)
    killer.join()


@pytest.mark.parametrize(
    "reason", [ValueError("bad value(s) in fds_to_keep"), OSError("handle is closed"), OSError(errno.EBADF, "bad file")]
)
def test_a_worker_that_dies_while_another_starts_ends_it_the_same_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: Exception
) -> None:
    """Its pipes are then closed, and their numbers belong to other files."""

    def failing(*_: object) -> None:
        raise reason

    monkeypatch.setattr("stn.lab.tables.reproduce.ProcessPoolExecutor.submit", failing)
    with pytest.raises(InputError, match="a worker process was killed, .* the same command continues from there"):
        make(tmp_path, cells=["fcn/*"], workers=2)


def test_a_worker_that_cannot_start_is_no_killed_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object) -> None:
        raise OSError(errno.EAGAIN, "no more processes")

    monkeypatch.setattr("stn.lab.tables.reproduce.ProcessPoolExecutor.submit", failing)
    with pytest.raises(OSError, match="no more processes"):
        make(tmp_path, cells=["fcn/*"], workers=2)


@pytest.mark.parametrize(
    "options, sentence",
    [
        ({"cells": ["vit/*"]}, "cells must be names or patterns among st-fcn-rigid/none, fcn/none, fcn/r; got 'vit/[*]'"),
        ({"budget": "huge"}, "budget must be one of full, quick; got 'huge'"),
        ({"seeds": 0}, "seeds must be an integer of at least 1; got 0"),
        ({"workers": 0}, "workers must be an integer of at least 1; got 0"),
    ],
)
def test_bad_requests(tmp_path: Path, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        make(tmp_path, **options)


def test_cells_come_in_the_order_asked_for() -> None:
    chosen = planned(TINY, root=None, seeds=2, budget="full", patterns=["fcn/r", "*/none"])
    order = ["fcn/r", "st-fcn-rigid/none", "fcn/none"]
    assert [(cell.run.seed, cell.name) for cell in chosen] == [(seed, name) for seed in (0, 1) for name in order]


def test_table_1_is_the_papers() -> None:
    cells = TABLES["table1"].cells
    assert len(cells) == 36 and len({cell.name for cell in cells}) == 36
    paper = {cell.name: cell.paper for cell in cells}
    assert paper["st-cnn-tps/e"] == 1.1 and paper["fcn/tc"] == 13.2 and paper["st-fcn-affine/rts"] == 0.8
    for cell in planned(TABLES["table1"], root=Path("data"), seeds=1, budget="full"):
        run = cell.run
        assert cell.baseline == "" or cell.baseline in paper
        assert run.epochs * (55_000 // run.batch_size) <= 15_000, cell.name
        side = {"rts": 42, "tc": 60}.get(run.distortion, 28)
        assert 0.95 * 400_000 < num_parameters(build(run.model, side, run.transform)) <= 400_000
