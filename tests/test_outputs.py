"""Output of commands: checked before the work, written completely or not at all, never over a file of another origin."""

import errno
import importlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stn.io.images import write_picture
from stn.lab.experiments import Run, RunFolder
from stn.lab.experiments.demo import RUNS
from stn.lab.experiments.folder import MARK
from stn.lab.experiments.train import Trainer
from stn.lab.studies.damage import command
from stn.lab.tables import TABLES, Cell, Table
from tests.helpers import seeded

Words = Callable[[Path], list[object]]  # command line that writes to this folder
RUN = Run(distortion="none", model="fcn", epochs=1, draws=1, batch_size=256)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with an image, a volume and a finished run, for all tests."""
    place = tmp_path_factory.mktemp("place")
    write_picture(torch.rand(3, 24, 24, generator=seeded()), place / "in.png")
    np.save(place / "volume.npy", np.random.default_rng(0).random((8, 9, 10), np.float32))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stn.lab.experiments.train.COPIES", {"digits": 1})
        words = ["train", "--model", "fcn", "--distortion", "none", "--epochs", 1, "--draws", 1, "--batch-size", 256]
        assert command(*words, "--out", place / "run")[0] == 0
    return place


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    table = Table("Tiny", (Cell("FCN", "NONE", RUN),), recipe="As it comes.", quick=1, pictured=())
    monkeypatch.setitem(TABLES, "seeds", table)
    monkeypatch.setattr("stn.lab.experiments.train.COPIES", {"digits": 1})


def commands(place: Path, to: Path) -> dict[str, list[object]]:
    """Return every command that writes, with its output below `to`."""
    train = ["train", "--model", "fcn", "--distortion", "none", "--epochs", 1, "--draws", 1, "--batch-size", 256]
    return {
        "warp": ["warp", place / "in.png", to / "out.png"],
        "warp npy": ["warp", place / "in.png", to / "out.npy"],
        "register": ["register", place / "in.png", place / "in.png", to / "out.png", "--steps", 1],
        "register theta": ["register", place / "in.png", place / "in.png", to / "out.png", "--theta", to / "t.npy"],
        "export": ["export", place / "run", to / "model.onnx"],
        "report": ["report", place / "run", "--out", to / "page.html"],
        "figures": ["figures", place / "run", place / "run", "--out", to],
        "reproduce": ["reproduce", "seeds", "--seeds", 1, "--out", to / "seeds", "--runs", to / "runs"],
        "train": [*train, "--out", to / "run"],
        "bench": ["bench", "--trial", "--suites", "affine", "--rounds", 2, "--threads", 1, "--out", to / "bench"],
        "demo": ["demo", "--out", to / "demo"],
    }


NAMES = list(commands(Path(), Path()))
WORK = {  # the function that must not run when an output is refused
    "warp": "stn.cli.warp._warped",
    "register": "stn.cli.register._found",
    "export": "stn.lab.experiments.evaluate.trained_network",
    "report": "stn.lab.page.write_report",
    "figures": "stn.lab.figures.draw_run",
    "reproduce": "stn.lab.tables.reproduce.cell_row",
    "train": "stn.lab.experiments.train.Trainer.fit",
    "bench": "stn.lab.bench.run.measure_case",
    "demo": "stn.lab.experiments.train.Trainer.fit",
}


def refused(name: str, words: list[object], monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the error message of a command that is refused before any work."""

    def work(*arguments: object, **options: object) -> Any:
        raise AssertionError("the work has begun")

    with monkeypatch.context() as patch:
        module, _, function = WORK[name.split()[0]].rpartition(".")
        if module.endswith("Trainer"):
            patch.setattr(Trainer, function, work)
        else:
            patch.setattr(importlib.import_module(module), function, work)
        code, _, error = command(*words)
    assert code == 2 and "Traceback" not in error and error.count("stn: ") == 1, error
    return error


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_that_is_missing_is_made(name: str, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if name in ("bench", "demo", "register theta", "export"):  # slow; they create the folder as the others do
        return
    code, _, error = command(*commands(place, tmp_path / "a" / "b")[name])
    assert code == 0, error
    assert any(path.is_file() for path in (tmp_path / "a" / "b").rglob("*"))
    assert not list(tmp_path.rglob("*.partial")) and not list(tmp_path.rglob("*.lock"))


@pytest.mark.parametrize("number", (errno.EROFS, errno.EACCES, errno.ENOSPC))
@pytest.mark.parametrize("name", NAMES)
def test_a_folder_that_cannot_be_written_is_refused_before_the_work(
    name: str, number: int, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, *arguments: object, **options: object) -> None:
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(Path, "touch", refuse)
    said = refused(name, commands(place, tmp_path)[name], monkeypatch)
    assert {errno.EROFS: "read-only", errno.EACCES: "permission is denied", errno.ENOSPC: "disk is full"}[number] in said


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_that_is_a_file(name: str, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "to").write_text("mine")
    assert "is a file" in refused(name, commands(place, tmp_path / "to")[name], monkeypatch) or name in ("train", "demo")
    assert (tmp_path / "to").read_text() == "mine"


OUTPUT = {"warp": "out.png", "warp npy": "out.npy", "register": "out.png", "register theta": "t.npy", "export": "model.onnx",
          "report": "page.html", "reproduce": "seeds.jsonl", "bench": "bench.json"}  # fmt: skip


@pytest.mark.parametrize("name", OUTPUT)
def test_an_output_that_is_a_folder(name: str, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / OUTPUT[name]).mkdir()
    assert "must be a file; " in refused(name, commands(place, tmp_path)[name], monkeypatch)


@pytest.mark.parametrize("name", ("warp", "register", "report", "figures", "reproduce", "train"))
def test_a_full_disk_ends_in_a_sentence_and_keeps_what_is_there(
    name: str, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = tmp_path / OUTPUT.get(name, "errors.png")
    if name in ("warp", "report"):
        old.write_text("old")

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    code, _, error = command(*commands(place, tmp_path)[name])
    assert code == 2 and "the disk is full" in error and "Traceback" not in error
    assert not list(tmp_path.rglob("*.partial")) and (not old.exists() or old.read_text() == "old")


@pytest.mark.parametrize(
    "words, sentence",
    [
        (["warp", "in.png", "in.png"], "OUT must not be an input file"),
        (["warp", "in.png", "./in.png"], "OUT must not be an input file"),
        (["register", "in.png", "in.png", "in.png"], "OUT must not be an input file"),
        (["register", "in.png", "in.png", "o.npy", "--theta", "o.npy"], "--theta must be a different file from out"),
        (["register", "in.png", "in.png", "o.png", "--theta", "o.png"], "--theta must end in .npy"),
        (
            ["register", "in.png", "in.png", "o.xyz"],
            "the output must end in .png, .jpg or the suffix of another picture format",
        ),
        (["register", "in.png", "in.png", "o"], "the output must end in .png, .jpg or the suffix of another picture format"),
        (["register", "volume.npy", "volume.npy", "o.png"], "OUT must end in .npy for a volume"),
        (["warp", "in.png", "o.psd"], "the output must end in .png, .jpg or the suffix of another picture format"),
        (["export", "run", "model.txt"], "OUT must end in .onnx"),
        (["export", "run", "run/checkpoints/last.pt"], "OUT must end in .onnx"),
        (["report", "run", "--out", "run/rows.jsonl"], "--out must end in .html or .htm"),
        (["report", "run", "--out", "page.txt"], "--out must end in .html or .htm"),
        (["reproduce", "seeds", "--out", "run/rows"], "--out must not be a file of a run"),
        (["bench", "--out", "run/config"], "--out must not be a file of a run"),
    ],
)
def test_outputs_that_do_not_fit(
    words: list[str], sentence: str, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = Path(shutil.copytree(place, tmp_path / "here"))
    before = {path: path.read_bytes() for path in here.rglob("*") if path.is_file()}
    monkeypatch.chdir(here)
    assert sentence in refused(words[0], list(words), monkeypatch)
    assert before == {path: path.read_bytes() for path in here.rglob("*") if path.is_file()}


# ---- a program removes only files that it made ----


def test_the_demonstration_replaces_its_own_runs_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = RunFolder(tmp_path / RUNS[0].name)
    mine.open(RUNS[0])
    said = refused("demo", ["demo", "--out", tmp_path], monkeypatch)
    assert "stn demo did not create" in said and mine.exists()
    (mine.path / MARK).touch()
    (mine.path / "notes.txt").write_text("mine")
    assert "also holds notes.txt" in refused("demo", ["demo", "--out", tmp_path], monkeypatch)
    assert (mine.path / "notes.txt").read_text() == "mine"


def test_the_demonstration_runs_again_where_it_ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quick = tuple(Run(distortion="none", model=model, epochs=1, draws=1, batch_size=256) for model in ("fcn", "st-fcn"))
    monkeypatch.setattr("stn.lab.experiments.demo.RUNS", quick)
    for _ in range(2):
        code, out, error = command("demo", "--out", tmp_path)
        assert code == 0, error
    assert "looks.png" in out
    assert {path.name for path in tmp_path.iterdir()} == {run.name for run in quick}


def test_rows_of_another_table_are_kept_aside(tmp_path: Path) -> None:
    words = ["reproduce", "seeds", "--seeds", 1, "--out", tmp_path / "t", "--runs", tmp_path / "runs"]
    assert command(*words)[0] == 0
    mine = json.loads((tmp_path / "t.jsonl").read_text())
    older = mine | {"run": mine["run"] | {"lr": 9.0}, "seed": 3}
    other = mine | {"cell": "cnn/elsewhere"}
    text = "".join(json.dumps(row) + "\n" for row in (mine, older, other)) + '{"cell": "cut'
    (tmp_path / "t.jsonl").write_text(text)
    code, _, error = command(*words)
    assert code == 0 and "2 rows of other settings and 1 damaged lines; it is kept as" in error
    assert (tmp_path / "t.old-1.jsonl").read_text() == text
    assert json.loads((tmp_path / "t.jsonl").read_text()) == mine
    assert command(*words)[2] == "" and not (tmp_path / "t.old-2.jsonl").exists()


@pytest.mark.parametrize("ending, text", ((".md", "# My notes"), (".png", "my picture")))
def test_a_table_does_not_replace_other_documents(
    ending: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / f"README{ending}").write_text(text)
    words: list[object] = ["reproduce", "seeds", "--out", tmp_path / "README", "--runs", tmp_path / "runs"]
    assert "--out must be a new file, or a table of this command" in refused("reproduce", words, monkeypatch)
    assert (tmp_path / f"README{ending}").read_text() == text


def test_the_benchmark_keeps_its_old_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stn.lab.bench.run.measure_case", lambda case, threads, rounds: [])
    monkeypatch.setattr("stn.lab.bench.run.accuracy", lambda case: {"suite": "affine", "case": case.name, "task": "x"})
    (tmp_path / "cpu.json").write_text("old rows")
    (tmp_path / "cpu.md").write_text("old table")
    words = ["bench", "--trial", "--suites", "affine", "--threads", 1, "--out", tmp_path / "cpu"]
    assert "cpu.json must hold rows of stn bench" in command(*words, "--resume")[2]
    code, _, error = command(*words)
    assert code == 0 and "is kept as" in error
    assert (tmp_path / "cpu.old-1.json").read_text() == "old rows" and (tmp_path / "cpu.old-1.md").read_text() == "old table"


# ---- reading needs no permission to write ----


def test_a_report_of_a_run_that_cannot_be_written(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Path(shutil.copytree(place / "run", tmp_path / "run"))
    shutil.rmtree(run / "figures", ignore_errors=True)
    replace = os.replace

    def refuse(source: Path, target: Path) -> None:
        if run in Path(target).parents:
            raise OSError(errno.EROFS, "Read-only file system")
        replace(source, target)

    monkeypatch.setattr(os, "replace", refuse)
    code, _, error = command("report", run, "--out", tmp_path / "page.html")
    assert code == 0 and error == "" and (tmp_path / "page.html").stat().st_size > 5000
    assert "could not be drawn" not in (tmp_path / "page.html").read_text()
    for words in (["evaluate", run, "--draws", 1], ["export", run, tmp_path / "model.onnx"]):
        assert command(*words)[0] == 0


@pytest.mark.parametrize("name", ("film.gif", "looks.png", "curves.png"))
def test_a_damaged_picture_is_drawn_anew(name: str, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Path(shutil.copytree(place / "run", tmp_path / "run"))
    assert command("report", run, "--out", tmp_path / "page.html")[0] == 0
    (run / "figures" / name).write_bytes(b"GIF89a" if name.endswith("gif") else b"\x89PNG\r\n")
    assert command("report", run, "--out", tmp_path / "page.html")[0] == 0
    assert "iVBORw0KGgo" not in (tmp_path / "page.html").read_text() or name == "curves.png"
    assert name != "curves.png" or (run / "figures" / name).stat().st_size > 1000
