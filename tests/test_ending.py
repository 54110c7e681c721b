"""How commands end: with a message about their options, or silently; on a signal as on Ctrl-C; on any terminal."""

import errno
import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from stn import InputError, cli
from stn.cli.ending import spoken
from stn.lab.experiments import RunFolder
from stn.lab.experiments.train import Trainer
from stn.lab.studies.damage import command
from stn.lab.studies.interruptions import members, results

TRAIN = ["train", "--model", "fcn", "--distortion", "none", "--epochs", 2, "--draws", 1, "--batch-size", 252]


@pytest.mark.parametrize(
    "name, sentence, said",
    [
        ("train", "lr must be positive; got 0", "--lr must be positive; got 0"),
        ("train", "batch_size must be", "--batch-size must be"),
        ("train", "accelerator must be one of", "--device must be one of"),
        ("train", "a is not there (download=True fetches it)", "a is not there (--download fetches it)"),
        ("train", "the run in x has epochs=3, lr=0.1; use", "the run in x has --epochs 3, --lr 0.1; use"),
        ("train", "Lower lr (now 3.0) or localization_lr (now 1)", "Lower --lr (now 3.0) or --localization-lr (now 1)"),
        ("train", "runs/lr/config.json: lr must be positive", "runs/lr/config.json: lr must be positive"),
        ("warp", "corners cannot be combined with shear;", "--corners cannot be combined with --shear;"),
        ("warp", "out must end in .npy", "OUT must end in .npy"),
        ("report", "out must end in .html", "--out must end in .html"),
        ("register", "moving must not be constant", "MOVING must not be constant"),
        ("reproduce", "cell fcn/r, seed 0: root must name x", "cell fcn/r, seed 0: --root must name x"),
        ("stn", "lr must be positive", "lr must be positive"),
    ],
)  # fmt: skip
def test_sentences_speak_of_options(name: str, sentence: str, said: str) -> None:
    assert spoken(sentence, cli.names_of(name)) == said


def raising(error: BaseException) -> Any:
    def work(*arguments: object, **options: object) -> None:
        raise error

    return work


@pytest.mark.parametrize(
    "error, code, said",
    [
        (InputError("draws must be an integer"), 2, "stn: --draws must be an integer\n"),
        (MemoryError(), 2, "stn: evaluate needs more memory than is available\n"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), 2, "stn: evaluate needs more memory"),
        (OSError(errno.ENOSPC, "No space left on device", "f.txt"), 2, "stn: f.txt: the disk is full\n"),
        (OSError(errno.EMFILE, "Too many open files"), 2, "stn: evaluate: too many files are open\n"),
        (BrokenPipeError(), 141, ""),
        (KeyboardInterrupt(), 130, "\nstn: interrupted\n"),
    ],
)
def test_errors_of_the_user_and_the_machine(
    error: BaseException, code: int, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stn.lab.experiments.evaluate.evaluate", raising(error))
    ended, _, text = command("evaluate", "run")
    assert ended == code and text.startswith(said)


def test_an_error_of_ours_is_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stn.lab.experiments.evaluate.evaluate", raising(RuntimeError("ours")))
    with pytest.raises(RuntimeError, match="ours"):
        command("evaluate", "run")


@pytest.mark.parametrize("name, way", (("train", "with --resume continues"), ("reproduce", "the same command continues")))
def test_who_can_go_on_says_how(name: str, way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stn.lab.experiments.train.train", raising(KeyboardInterrupt()))
    monkeypatch.setattr("stn.lab.tables.reproduce.train", raising(KeyboardInterrupt()))
    words = {"train": ["train", "--out", tmp_path], "reproduce": ["reproduce", "table1", "--out", tmp_path / "t"]}[name]
    if name == "reproduce":
        words += ["--runs", tmp_path / "runs"]
    code, _, error = command(*words)
    assert code == 130 and way in error


@pytest.mark.parametrize("number, code", ((signal.SIGTERM, 143), (signal.SIGINT, 130)))
def test_a_signal_between_two_steps_loses_nothing(
    number: signal.Signals, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stn.lab.experiments.train.COPIES", {"digits": 1})
    step, steps = Trainer._step, 0

    def signalled(self: Trainer, example: Any) -> torch.Tensor:
        nonlocal steps
        steps += 1
        if steps == 8:  # in the second of two epochs of five steps
            os.kill(os.getpid(), number)
        return step(self, example)

    assert command(*TRAIN, "--out", tmp_path / "whole")[0] == 0
    monkeypatch.setattr(Trainer, "_step", signalled)
    ended, _, error = command(*TRAIN, "--out", tmp_path / "run")
    assert ended == code and "interrupted; the same command with --resume continues" in error
    assert not list((tmp_path / "run").rglob("*.partial")) and len(RunFolder(tmp_path / "run").rows()) == 1
    assert command(*TRAIN, "--out", tmp_path / "run", "--resume")[0] == 0
    assert results(tmp_path / "run") == results(tmp_path / "whole")


def test_an_interruption_that_a_compiler_turned_into_its_own_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def compile_(*arguments: object, **options: object) -> None:
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(10)
        except KeyboardInterrupt:
            pass  # the exception is lost in a callback
        raise RuntimeError("no compiled object yet")

    monkeypatch.setattr("stn.cli.ending.PATIENCE", 3600)
    monkeypatch.setattr("stn.lab.experiments.evaluate.evaluate", compile_)
    ended, _, error = command("evaluate", "run")
    assert ended == 130 and error == "\nstn: interrupted\n"


def test_a_terminal_without_the_sign_gets_a_plain_one(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"split": "test", "draw": 0, "loss": 0.5, "error_percent": 1.5}]
    monkeypatch.setattr("stn.lab.experiments.evaluate.evaluate", lambda *arguments, **options: rows)
    monkeypatch.setattr("sys.argv", ["stn", "evaluate", "run"])
    data = io.BytesIO()
    terminal = io.TextIOWrapper(data, encoding="ascii", errors="strict", write_through=True)
    with monkeypatch.context() as patch:
        patch.setattr("sys.stdout", terminal)
        cli.main()
    assert b"test error 1.50 +- 0.00 %" in data.getvalue()


@pytest.mark.parametrize("words", (["--version"], ["warp", "-h"], ["reproduce", "table1", "--list"]))
def test_who_stops_reading_hears_no_more(words: list[str]) -> None:
    """This is the case of `stn .. | head -0`."""
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as pipe:
        done = subprocess.run([sys.executable, "-m", "stn", *words], stdout=pipe, stderr=subprocess.PIPE, text=True)
    assert done.stderr == "" and done.returncode in (0, 141)


DETACHED: dict[str, Any] = {  # a separate process group, with this library on the path
    "start_new_session": True,
    "stdout": subprocess.DEVNULL,
    "stderr": subprocess.DEVNULL,
    "env": os.environ | {"PYTHONPATH": str(Path(cli.__file__).parents[2])},
}
PARENT = """
import dataclasses, sys
from pathlib import Path
from stn.lab.tables.reproduce import reproduce
from stn.lab.tables import cells as tables
from stn.lab.experiments.runs import Run
RUN = Run(distortion="none", model="fcn", epochs=1000, draws=1)
cells = tuple(tables.Cell("FCN", d.upper(), dataclasses.replace(RUN, distortion=d)) for d in ("none", "r"))
tables.TABLES["long"] = tables.Table("Long", cells, recipe="", quick=1, pictured=())
if __name__ == "__main__":
    reproduce("long", root=None, out=Path("t"), runs=Path("runs"), workers=2)
"""


def test_workers_end_with_their_parent(tmp_path: Path) -> None:
    """A parent that is killed with SIGKILL cannot end its workers."""
    (tmp_path / "parent.py").write_text(PARENT)
    parent = subprocess.Popen([sys.executable, "parent.py"], **DETACHED, cwd=tmp_path)
    try:
        deadline = time.monotonic() + 120
        while not list(tmp_path.glob("runs/*/config.json")) and time.monotonic() < deadline and parent.poll() is None:
            time.sleep(0.05)
        assert len(members(parent.pid)) > 2
        parent.kill()
        parent.wait()
        deadline = time.monotonic() + 20
        while members(parent.pid) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert members(parent.pid) == []
    finally:
        if members(parent.pid):
            os.killpg(parent.pid, signal.SIGKILL)
