"""Damaged run folders: each command gives a correct result or a clear error, and loses no good row."""

import dataclasses
import json
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from stn import InputError
from stn.lab.experiments import Run, RunFolder
from stn.lab.experiments.checkpoint import checksum
from stn.lab.experiments.evaluate import evaluate
from stn.lab.experiments.rows import DamagedRows
from stn.lab.experiments.train import train
from stn.lab.studies.damage import DAMAGES, command, meet

TRAIN = ["train", "--model", "fcn", "--distortion", "none", "--epochs", 2, "--draws", 1, "--batch-size", 252]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return two finished runs with different seeds."""
    place = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stn.lab.experiments.train.COPIES", {"digits": 1})
        for seed in (0, 1):
            assert command(*TRAIN, "--seed", seed, "--out", place / str(seed))[0] == 0
    return place / "0", place / "1"


@pytest.fixture
def run(runs: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("stn.lab.experiments.train.COPIES", {"digits": 1})
    return Path(shutil.copytree(runs[0], tmp_path / "run"))


def sentence(*words: object) -> str:
    """Return the error message of a command that fails."""
    code, _, error = command(*words)
    assert code == 2 and "Traceback" not in error, error
    lines = [line for line in error.splitlines() if line.strip()]
    assert lines[-1].startswith("stn: "), error
    return lines[-1]


def resume(run: Path) -> list[object]:
    return [*TRAIN, "--out", run, "--resume"]


@pytest.mark.parametrize("number", range(24))
def test_random_damages(number: int, runs: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """A part of `stn.lab.studies.damage`."""
    monkeypatch.setattr("stn.lab.experiments.train.COPIES", {"digits": 1})
    names = ("evaluate", "report", "train") if number % 3 else ("evaluate", "figures", "train")
    draw = random.Random(number)
    assert meet(DAMAGES[number % len(DAMAGES)], draw, *runs, TRAIN, names) == []


# ---- each field of each file: missing, null, of another type, from a newer version ----

FIELDS = [field.name for field in dataclasses.fields(Run)]


@pytest.mark.parametrize("value", (None, [], {}, "x", -1, True, 1e400), ids=repr)
@pytest.mark.parametrize("field", FIELDS)
def test_a_field_of_the_settings_of_a_wrong_type(field: str, value: Any, run: Path) -> None:
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(config | {field: value}))
    folder = RunFolder(run)
    try:
        found = folder.run()
    except InputError as error:
        assert "config.json" in str(error) and field in str(error)
    else:  # a valid value is used
        assert getattr(found, field) == (Path(value) if field == "root" and value is not None else value)


@pytest.mark.parametrize("field", FIELDS)
def test_a_setting_that_is_missing_is_its_default_or_does_not_fit_the_checkpoint(field: str, run: Path) -> None:
    """Folders of earlier versions have fewer settings; they can still be read."""
    config, expected = json.loads((run / "config.json").read_text()), RunFolder(run).run()
    del config[field]
    (run / "config.json").write_text(json.dumps(config))
    try:
        RunFolder(run).load()
    except InputError as error:
        assert "config.json" in str(error) or f"it is of a run with {field}=" in str(error)
    else:
        assert RunFolder(run).run() == expected


def test_a_setting_that_is_missing_or_unknown(run: Path) -> None:
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(config | {"newer_setting": 1}))
    assert "config.json: settings of a run must be one of" in sentence("evaluate", run)
    newer = config | {"written_by": {"format": 99, "stn": "9.0"}, "newer_setting": 1}
    (run / "config.json").write_text(json.dumps(newer))
    for words in (["evaluate", run], ["report", run], resume(run), ["export", run, run.parent / "model.onnx"]):
        assert "it is from a newer one (9.0)" in sentence(*words)


@pytest.mark.parametrize("text", ("null", "[]", "3", '"x"', "{", "", "[" * 100_000, '{"written_by": 3, "lr": null}'))
def test_settings_that_are_none(text: str, run: Path) -> None:
    (run / "config.json").write_text(text)
    for words in (["evaluate", run], ["figures", run], ["report", run], resume(run)):
        assert "config.json" in sentence(*words)


PARTS = ("network", "average", "optimizer", "schedule", "evaluated", "epoch", "step", "seconds", "rows")


def spoiled(state: dict[str, Any], part: str, value: float) -> None:
    next(iter(state[part].values())).fill_(value)


def rewritten(run: Path, change: Callable[[dict[str, Any]], Any], *, sealed: bool) -> None:
    """Change the checkpoint by hand, and give it a valid checksum if `sealed`."""
    path = run / "checkpoints" / "last.pt"
    state = torch.load(path, weights_only=True)
    changed = change(state)
    state = state if changed is None else changed
    if sealed and isinstance(state, dict):
        state["checksum"] = checksum({key: value for key, value in state.items() if key != "checksum"})
    torch.save(state, path)


@pytest.mark.parametrize("value", ("missing", None, "x", 3.5, [], {}), ids=repr)
@pytest.mark.parametrize("part", PARTS)
def test_a_part_of_the_checkpoint_that_is_wrong(part: str, value: Any, run: Path) -> None:
    rows = (run / "rows.jsonl").read_bytes()

    def change(state: dict[str, Any]) -> None:
        state.pop(part)
        if value != "missing":
            state[part] = value

    rewritten(run, change, sealed=True)
    if (part, value) in (("seconds", 3.5),):
        return  # a valid value
    assert "last.pt" in sentence("evaluate", run) if part == "evaluated" else sentence(*resume(run))
    assert (run / "rows.jsonl").read_bytes() == rows


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda state: [1, 2], "it holds a list"),
        (lambda state: torch.zeros(3), "it holds a Tensor"),
        (lambda state: state.update(epoch=5), "must have 1 to 2 epochs with one row each; got 5"),
        (lambda state: state["rows"].append({"split": "valid"}), "its rows are not rows of a run"),
        (lambda state: state["run"].update(seed=7), "it is of a run with seed=7"),
        (lambda state: state["versions"].update(format=99, stn="9.0"), "it is from a newer one (9.0)"),
        (lambda state: spoiled(state, "evaluated", torch.nan), "must hold finite weights; "),
        (lambda state: spoiled(state, "network", torch.inf), "must hold finite weights; "),
    ],
)
def test_a_checkpoint_that_is_none(change: Callable[[dict[str, Any]], Any], words: str, run: Path) -> None:
    rows = (run / "rows.jsonl").read_bytes()
    rewritten(run, change, sealed=True)
    for command_line in (["evaluate", run], resume(run)):
        assert words in sentence(*command_line)
    assert (run / "rows.jsonl").read_bytes() == rows


def test_a_weight_that_was_changed_is_not_used(run: Path) -> None:
    def change(state: dict[str, Any]) -> None:
        state["evaluated"]["0.weight" if "0.weight" in state["evaluated"] else next(iter(state["evaluated"]))].mul_(1.5)

    rewritten(run, change, sealed=False)
    with pytest.raises(InputError, match="last.pt must be an unchanged checkpoint of a run; its checksum"):
        evaluate(RunFolder(run))


def test_a_checkpoint_of_an_earlier_version_is_read(run: Path) -> None:
    expected = evaluate(RunFolder(run), draws=1)[0]["loss"]
    rewritten(run, lambda state: {key: state[key] for key in (*PARTS, "film")}, sealed=False)
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps({key: config[key] for key in FIELDS}))
    assert evaluate(RunFolder(run), draws=1)[0]["loss"] == expected
    assert command(*resume(run))[0] == 0


def test_a_damaged_checkpoint_leaves_the_rows_alone(run: Path) -> None:
    rows = (run / "rows.jsonl").read_bytes()
    (run / "checkpoints" / "last.pt").write_bytes(b"junk")
    assert "last.pt must be a checkpoint" in sentence(*resume(run))
    assert (run / "rows.jsonl").read_bytes() == rows


def test_a_run_whose_checkpoint_is_gone_does_not_begin_anew(run: Path) -> None:
    rows = (run / "rows.jsonl").read_bytes()
    (run / "checkpoints" / "last.pt").unlink()
    assert "must have checkpoints/last.pt to continue; it has 3 rows and no checkpoint" in sentence(*resume(run))
    assert (run / "rows.jsonl").read_bytes() == rows


def test_of_cut_rows_the_good_ones_count(run: Path) -> None:
    rows = (run / "rows.jsonl").read_bytes()
    (run / "rows.jsonl").write_bytes(rows[:-40])
    with pytest.warns(DamagedRows, match="1 of 3 lines of .*rows.jsonl are damaged"):
        assert len(RunFolder(run).rows()) == 2
    (run / "checkpoints" / "last.pt").unlink()
    code, _, error = command("report", run, "--out", run.parent / "page.html")
    assert code == 0 and "1 of 3 lines" in error and error.startswith("stn: ")
    assert "rows" in (run.parent / "page.html").read_text()


@pytest.mark.parametrize("text", (b"null", b"[]", b"{}", b'{"split": "valid"}', b"\xff\xfe", b"x", b'{"epoch": "1"}'))
def test_rows_of_another_form(text: bytes, run: Path) -> None:
    """The checkpoint has all rows: a resumed run writes them again, and keeps the old file under another name."""
    before = RunFolder(run).rows()
    (run / "rows.jsonl").write_bytes(text + b"\n")
    with pytest.warns(DamagedRows):
        assert RunFolder(run).told() == before
    assert command(*resume(run))[0] == 0
    assert RunFolder(run).rows() == before and (run / "rows.old-1.jsonl").read_bytes() == text + b"\n"


# ---- changes that are allowed ----


def test_data_and_device_may_change_between_two_parts_of_a_run(run: Path, tmp_path: Path) -> None:
    before = RunFolder(run).rows()
    assert command(*resume(run), "--root", tmp_path / "moved", "--device", "cpu", "--download")[0] == 0
    assert RunFolder(run).rows() == before and RunFolder(run).run().root == tmp_path / "moved"
    longer = [*TRAIN[:5], "--epochs", 3, *TRAIN[7:], "--out", run, "--resume"]
    assert "has --epochs 2; use the same settings" in sentence(*longer)


@pytest.mark.parametrize("words", (["evaluate"], ["report", "--out", "page.html"], ["figures"]))
def test_the_data_may_have_moved(words: list[str], run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found: list[Any] = []

    def load(name: str, root: object = None, **options: object) -> Any:
        from stn.lab.data import load as real

        found.append((root, options))
        return real(name, None)

    for module in ("experiments.evaluate", "figures.run"):
        monkeypatch.setattr(f"stn.lab.{module}.load", load)
    assert command(words[0], run, *words[1:], "--root", "elsewhere", "--download")[0] == 0
    assert all(one == (Path("elsewhere"), {"download": True}) for one in found)
    assert found or words[0] != "evaluate"


def test_two_processes_do_not_train_in_one_folder(run: Path) -> None:
    """The operating system holds the lock, so a killed process releases it."""
    lock = f"with RunFolder({str(run)!r}).lock(): print('mine', flush=True); time.sleep(60)"
    code = f"import time; from stn.lab.experiments import RunFolder\n{lock}"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None and owner.stdout.readline() == "mine\n"
        said = sentence(*resume(run))
        assert "must be trained by one process at a time" in said and f"process {owner.pid} on " in said
        owner.kill()
    assert command(*resume(run))[0] == 0


def test_what_killed_writers_left_is_removed(run: Path) -> None:
    left = run / "checkpoints" / ".last.pt.999999999-0123abcd.partial"
    left.write_bytes(b"x" * 100)
    assert train(RunFolder(run).run(), RunFolder(run), resume=True, quiet=True)
    assert not left.exists() and not list(run.rglob("*.partial")) and not (run / ".lock").exists()
