"""A training run: the files that it writes, and that a kill loses nothing."""

import dataclasses
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from stn import InputError
from stn.lab.data.draw import Example
from stn.lab.experiments import Run, RunFolder
from stn.lab.experiments.evaluate import evaluate, mean_and_spread, trained_network
from stn.lab.experiments.folder import Row
from stn.lab.experiments.train import Trainer, TrainingDiverged, train

TIMES = {"seconds", "images_per_second"}


def results(rows: list[Row]) -> list[Row]:
    return [{key: value for key, value in row.items() if key not in TIMES} for row in rows]


def test_what_a_run_leaves_behind(small: Run, folder: RunFolder) -> None:
    rows = train(small, folder, quiet=True)
    assert folder.rows() == rows and folder.run() == small
    assert [row["split"] for row in rows] == ["valid"] * 3 + ["test"] * 2
    assert [(row["epoch"], row["step"]) for row in rows] == [(1, 10), (2, 20), (3, 30), (3, 30), (3, 30)]
    for row in rows:
        assert {"loss", "error_percent", "images_per_second", "seconds"} <= set(row)
    assert [row["draw"] for row in rows[3:]] == [0, 1]
    assert rows[2]["train_error_percent"] < rows[0]["train_error_percent"] < 95
    assert rows[3]["error_percent"] != rows[4]["error_percent"]
    assert sorted(os.listdir(folder.path)) == ["checkpoints", "config.json", "rows.jsonl", "tensorboard"]
    assert any(name.startswith("events.") for name in os.listdir(folder.path / "tensorboard"))
    mean, spread = mean_and_spread(rows)
    errors = [row["error_percent"] for row in rows[3:]]
    assert mean == pytest.approx(sum(errors) / 2) and spread == pytest.approx(abs(errors[0] - errors[1]) / math.sqrt(2))


def test_equal_runs_give_equal_rows_and_seeds_matter(small: Run, tmp_path: Path) -> None:
    first, second = (results(train(small, RunFolder(tmp_path / name), quiet=True)) for name in "ab")
    assert first == second
    other = Run(**{**small.__dict__, "seed": 1})
    assert results(train(other, RunFolder(tmp_path / "c"), quiet=True)) != first


def test_few_held_out_leave_more_to_learn_from(small: Run, folder: RunFolder) -> None:
    few = dataclasses.replace(small, held_out=14, epochs=1)
    row = train(few, folder, quiet=True)[0]
    assert row["step"] == 11  # 1386 images in batches of 126 instead of 1260
    wrong = row["error_percent"] * 14 / 100
    assert wrong == pytest.approx(round(wrong), abs=1e-4)


def test_dropout_is_of_the_hidden_layers_and_of_training_alone(small: Run, folder: RunFolder, tmp_path: Path) -> None:
    dropped = train(small, folder, quiet=True)
    whole = train(dataclasses.replace(small, dropout=0.0), RunFolder(tmp_path / "whole"), quiet=True)
    assert dropped[0]["train_loss"] > 1.02 * whole[0]["train_loss"]
    assert evaluate(folder, draws=1)[0]["loss"] == pytest.approx(dropped[3]["loss"], abs=1e-5)


def test_evaluation_repeats_what_training_reported(small: Run, folder: RunFolder) -> None:
    rows = train(small, folder, quiet=True)
    again = evaluate(folder, draws=3)
    for row, reported in zip(again, rows[3:], strict=False):
        assert row["error_percent"] == pytest.approx(reported["error_percent"], abs=1e-4)
        assert row["loss"] == pytest.approx(reported["loss"], abs=1e-5)
    assert len(again) == 3 and not trained_network(folder).training


WHOLE: list[Row] = []  # rows of the same run without a kill, trained once


class Killed(BaseException):
    """Stand-in for SIGKILL: nothing in the code under test may catch it."""


@pytest.mark.parametrize("at", range(1, 11))
def test_killed_at_any_write_it_resumes_to_the_same_rows(
    small: Run, tmp_path: Path, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run folder changes only when write_atomically renames a file. The test kills the run before and after each one."""
    if not WHOLE:
        WHOLE.extend(results(train(small, RunFolder(tmp_path / "whole"), quiet=True)))
    folder, replace, calls = RunFolder(tmp_path / "killed"), os.replace, 0

    def kill(source: Path, target: Path) -> None:
        nonlocal calls
        calls += 1
        if calls == at and at % 2:
            raise Killed
        replace(source, target)
        if calls == at:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", kill)
        try:
            train(small, folder, quiet=True)
        except Killed:
            pass
        else:
            assert at > calls
    assert results(train(small, folder, resume=True, quiet=True)) == WHOLE
    assert results(folder.rows()) == WHOLE
    assert not [path for path in folder.path.rglob("*.partial") if path.stem.strip(".") == "config.json"]


def test_rows_that_the_checkpoint_does_not_know_are_kept_aside(small: Run, folder: RunFolder, tmp_path: Path) -> None:
    rows = train(dataclasses.replace(small, epochs=1), folder, quiet=True)
    more = [*rows, rows[-1] | {"draw": 9}]
    folder.write_rows(more)
    train(dataclasses.replace(small, epochs=1), folder, resume=True, quiet=True)
    assert folder.rows() == rows
    assert [json.loads(line) for line in (folder.path / "rows.old-1.jsonl").read_text().splitlines()] == more


def test_sigkill_and_resume_from_the_command_line(tmp_path: Path) -> None:
    killed = RunFolder(tmp_path / "killed")
    command = [sys.executable, "-m", "stn", "train", "--model", "fcn", "--distortion", "none", "--epochs", "4"]
    command += ["--draws", "2", "--out", str(killed.path), "--resume"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while len(killed.rows()) < 2 and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    whole = train(killed.run(), RunFolder(tmp_path / "whole"), quiet=True)
    assert results(killed.rows()) == results(whole)


def test_a_finished_run_is_left_alone(small: Run, folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = train(small, folder, quiet=True)
    monkeypatch.setattr(Trainer, "_train_epoch", None)
    assert train(small, folder, resume=True, quiet=True) == rows


def test_a_loss_that_is_no_number_ends_the_run_with_a_sentence(
    small: Run, folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, calls = Trainer._step, 0

    def diverge(self: Trainer, example: Example) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return step(self, example._replace(x=example.x * math.nan) if calls == 15 else example)

    monkeypatch.setattr(Trainer, "_step", diverge)
    with pytest.raises(
        TrainingDiverged, match=r"the loss became nan in epoch 2 by step 10. Lower lr \(now 0.003\) .* epoch 1"
    ):
        train(small, folder, quiet=True)
    assert [row["epoch"] for row in folder.rows()] == [1]


def test_a_rate_that_is_far_too_high_diverges(small: Run, folder: RunFolder) -> None:
    with pytest.raises(TrainingDiverged, match="No epoch was completed"):
        train(Run(**{**small.__dict__, "lr": 1e30, "localization_lr": 1e30}), folder, quiet=True)


def test_folders_that_do_not_fit(small: Run, folder: RunFolder, tmp_path: Path) -> None:
    folder.open(small)
    with pytest.raises(
        InputError, match="out must be a new or an empty folder, or the folder of a run with resume=True; got .*run"
    ):
        train(small, folder, quiet=True)
    other = Run(**{**small.__dict__, "epochs": 9})
    with pytest.raises(InputError, match="the run in .*run has epochs=3; use the same settings, or a new folder"):
        train(other, folder, resume=True, quiet=True)
    with pytest.raises(InputError, match="the run folder must hold a checkpoint; .* has not completed an epoch"):
        evaluate(folder)
    with pytest.raises(InputError, match="the run folder must hold config.json; .*elsewhere does not"):
        evaluate(RunFolder(tmp_path / "elsewhere"))
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="out must be a new or an empty folder"):
        train(small, RunFolder(tmp_path / "file"), quiet=True)


@pytest.mark.parametrize(
    "spoil, sentence",
    [
        (lambda f: f.config.write_text("{"), "config.json must be JSON; Expecting"),
        (lambda f: f.config.write_text(json.dumps({"epoch": 3})), "settings of a run must be one of .*; got 'epoch'"),
        (lambda f: f.checkpoint.write_bytes(f.checkpoint.read_bytes()[:1000]), "last.pt must be a checkpoint of a run; "),
        (lambda f: f.checkpoint.write_bytes(b"junk"), "last.pt must be a checkpoint of a run; "),
    ],
)
def test_damaged_folders(small: Run, folder: RunFolder, spoil: Any, sentence: str) -> None:
    train(Run(**{**small.__dict__, "epochs": 1, "draws": 1}), folder, quiet=True)
    spoil(folder)
    with pytest.raises(InputError, match=sentence):
        evaluate(folder)


@pytest.mark.parametrize("take_over", (evaluate, lambda folder: train(folder.run(), folder, resume=True, quiet=True)))
def test_a_folder_of_another_versions_network(small: Run, folder: RunFolder, take_over: Any) -> None:
    train(Run(**{**small.__dict__, "epochs": 1, "draws": 1}), folder, quiet=True)
    state = folder.load()
    assert state is not None
    for part in ("network", "evaluated"):
        state[part].popitem()
    folder.save(state, state["rows"])
    with pytest.raises(
        InputError, match="last.pt must hold the network that .* builds .* RuntimeError. Train again, in ano"
    ):
        take_over(folder)
