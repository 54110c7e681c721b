"""The command line, used as a person would."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import stn_command
from stn import cli
from stn.io.images import read_picture, write_picture
from tests.strokes import line_picture


def stn(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    monkeypatch.setattr("sys.argv", ["stn", *map(str, words)])
    try:
        cli.main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    write_picture(torch.rand(3, 12, 16), tmp_path / "in.png")
    return tmp_path / "in.png"


COMMANDS = ("train", "evaluate", "figures", "report", "export", "read", "warp", "register", "reproduce", "demo", "warm-up")


@pytest.mark.parametrize("command", ("", *COMMANDS))
def test_help_names_every_option(command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert stn(monkeypatch, *filter(None, [command]), "--help") == 0
    out = capsys.readouterr().out
    wanted = {
        "": [*COMMANDS, "stn warp photo.jpg", "--version", "--tyro-write-completion bash"],
        "reproduce": ["TABLE", "--root", "--download", "--seeds", "--budget", "--cells", "--workers", "--out", "--list"],
        "train": [
            "--data",
            "--resume",
            "--localization-lr",
            "--seed",
            "one cycle",
            "--device",
            "{digits,mnist,svhn,cub,gtsrb}",
        ],
        "warp": ["IMAGE", "OUT", "--rotate", "--corners", "counterclockwise", "--max-pixels", "{zeros,border,reflection"],
        "evaluate": ["RUN", "--draws", "--device", "--root", "--download"],
        "read": ["IMAGE [IMAGE ..]", "--model", "45 degrees"],
        "figures": ["RUN [RUN ..]", "--model", "--count", "--out", "--root", "--download"],
        "report": ["RUN [RUN ..]", "--out", "--root", "--download"],
        "register": [
            "MOVING",
            "FIXED",
            "OUT",
            "{translation,rigid,",
            "--loss",
            "correlation",
            "--bending",
            "--theta",
            "--fixed-mask",
        ],
        "export": ["RUN", "OUT", "--opset", "--lowering", "GridSample"],
        "demo": ["--out"],
        "warm-up": ["--all", "--workers", "number of cores", "float64"],
    }[command]
    words = " ".join(out.replace("│", " ").split())
    assert all(word in words for word in wanted)
    assert "{None}" not in words and "(default: None)" not in words and "(default: False)" not in words
    assert words.count("(default: runs/") == words.count("default: runs/")


@pytest.mark.parametrize("columns", (80, 120))
def test_help_breaks_lines_where_the_terminal_ends(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    for command in COMMANDS:
        stn(monkeypatch, command, "--help")
        boxed = [line.strip("│").rstrip() for line in capsys.readouterr().out.splitlines() if line.startswith("│")]
        for line, following in zip(boxed, boxed[1:], strict=False):
            indent = len(following) - len(following.lstrip())
            text = following.split()
            if text and indent > 4 and len(line) - len(line.lstrip()) == indent:  # the same paragraph continues
                assert len(line) + len(text[0]) + 1 >= columns - 6, (command, line, following)


def test_a_digit_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    page = torch.ones(1, 60, 80)
    page[:, 10:50, 38:43] = 0  # a black stroke
    write_picture(page, tmp_path / "one.png")
    write_picture(torch.cat([1 - page, torch.ones(1, 60, 80)]), tmp_path / "white.png")  # with transparency
    write_picture(torch.ones(3, 9, 9), tmp_path / "empty.png")
    assert stn(monkeypatch, "read", tmp_path / "one.png", tmp_path / "white.png") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.rsplit(": ", 1)[1].split()[0] for line in lines] == ["1", "1"] and lines[0].startswith(str(tmp_path))
    assert stn(monkeypatch, "read") == 0
    assert "st-cnn-affine/rts: Digits that are turned" in capsys.readouterr().out
    assert stn(monkeypatch, "read", tmp_path / "empty.png") == 2
    assert "empty.png: image must show a digit" in capsys.readouterr().err
    assert stn(monkeypatch, "read", "--model", "rts") == 2
    assert "stn: --model must be one of st-cnn-affine/rts" in capsys.readouterr().err


def test_a_curved_line_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    up, down, one = (tmp_path / name for name in ("up.png", "down.png", "one.png"))
    write_picture(line_picture("1407", 2.0), up)
    write_picture(line_picture("52936", -1.6, dark=True), down)
    write_picture(line_picture("1"), one)
    assert stn(monkeypatch, "read", up, one, down) == 0  # the network goes by the shape of the writing
    assert [line.rsplit(": ", 1)[1].split()[0] for line in capsys.readouterr().out.splitlines()] == ["1407", "1", "52936"]
    assert stn(monkeypatch, "read", "--model", "st-cnn-tps/rts", up) == 0
    assert re.fullmatch(rf"{re.escape(str(up))}: \d \(\d+ %\)", capsys.readouterr().out.strip())
    assert stn(monkeypatch, "read", "--model", "st-crnn-tps/curved", up) == 0
    assert capsys.readouterr().out.startswith(f"{up}: 1407 (")


def test_the_pictures_of_a_trained_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["figures", "--model", "st-cnn-affine/rts", "--count", 2, "--out", tmp_path]
    assert stn(monkeypatch, *command) == 0
    assert capsys.readouterr().out.split() == [str(tmp_path / "means.png"), str(tmp_path / "looks.png")]
    assert stn(monkeypatch, *command, "run") == 2
    assert "stn: --model cannot be combined with RUN; got RUN too" in capsys.readouterr().err


def test_names_of_cells(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert stn(monkeypatch, "reproduce", "table1", "--list") == 0
    assert capsys.readouterr().out.splitlines()[:2] == ["fcn/r", "fcn/rts"]
    assert stn(monkeypatch, "reproduce", "colocalization", "--list") == 0
    assert "translated/0" in capsys.readouterr().out.splitlines()
    assert stn(monkeypatch, "reproduce", "hippocampus", "--list") == 0
    assert capsys.readouterr().out.splitlines()[:4] == ["centers", "affine", "velocity", "learned"]
    assert stn(monkeypatch, "--version") == 0
    assert capsys.readouterr().out.startswith("stn ")


def test_train_evaluate_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("stn.lab.experiments.train.COPIES", {"digits": 1})
    out = tmp_path / "run"
    command = ["train", "--model", "st-fcn", "--distortion", "r", "--epochs", 1, "--transform", "rigid", "--out", out]
    assert stn(monkeypatch, *command) == 0
    assert "epoch 1/1: training error" in (text := capsys.readouterr().out) and f"Run: {out}" in text.replace("\n", "")
    assert f": {torch.get_num_threads()} thread" in text
    assert json.loads((out / "config.json").read_text())["transform"] == "rigid"
    assert stn(monkeypatch, "evaluate", out, "--draws", 2) == 0
    assert "draw 2: loss" in (text := capsys.readouterr().out) and "test error" in text
    assert stn(monkeypatch, "figures", out, "--count", 2) == 0
    assert all(Path(line).is_file() for line in capsys.readouterr().out.split())
    assert stn(monkeypatch, "figures", out, out, "--count", 2, "--out", tmp_path) == 0
    assert capsys.readouterr().out.split()[-1] == str(tmp_path / "errors.png")
    page = tmp_path / "page.html"
    assert stn(monkeypatch, "report", out, "--out", page) == 0
    assert capsys.readouterr().out.split() == [str(page)] and "st-fcn-rigid" in page.read_text()
    assert stn(monkeypatch, "export", out, tmp_path / "model.onnx", "--opset", 17) == 0
    words = capsys.readouterr().out.split()
    assert (tmp_path / "model.onnx").is_file() and float(words[-1]) < 1e-4, words


def test_warp(picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image, out = read_picture(picture), tmp_path / "out.png"
    assert stn(monkeypatch, "warp", picture, out) == 0
    assert torch.equal(read_picture(out), image)
    assert stn(monkeypatch, "warp", picture, out, "--rotate", -180) == 0
    torch.testing.assert_close(read_picture(out), image.flip(1, 2))
    assert stn(monkeypatch, "warp", picture, out, "--translate", 3, -2, "--padding-mode", "wrap") == 0
    torch.testing.assert_close(read_picture(out), image.roll((-2, 3), (1, 2)))
    assert stn(monkeypatch, "warp", picture, out, "--size", 6, 8, "--scale", 2) == 0
    torch.testing.assert_close(read_picture(out), image[:, 3:9, 4:12])
    corners = [3.5, 1.5, 11.5, 1.5, 11.5, 7.5, 3.5, 7.5]
    assert stn(monkeypatch, "warp", picture, out, "--corners", *corners, "--size", 6, 8) == 0
    torch.testing.assert_close(read_picture(out), image[:, 2:8, 4:12])


def test_warp_of_an_array(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Use values that image files cannot hold: negative and fractional ones."""
    image, out = np.random.default_rng(0).normal(size=(12, 16, 3)).astype(np.float32), tmp_path / "out.npy"
    np.save(tmp_path / "in.npy", image)
    assert stn(monkeypatch, "warp", tmp_path / "in.npy", out, "--rotate", 180) == 0
    np.testing.assert_allclose(np.load(out), image[::-1, ::-1], atol=1e-5)
    np.save(tmp_path / "in.npy", (255 * np.eye(12)).astype(np.uint8))
    assert stn(monkeypatch, "warp", tmp_path / "in.npy", out, "--translate", 2, 1) == 0
    np.testing.assert_array_equal(np.load(out), (255 * np.eye(12, k=1) * (np.arange(12) > 1)).astype(np.uint8))


def test_register(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Move an image with `stn warp` and register it back; do the same for a volume, between arrays."""
    smooth = torch.nn.functional.interpolate(torch.rand(1, 1, 6, 6), size=(48, 64), mode="bicubic").clamp(0, 1)[0]
    fixed, moving, out = (tmp_path / f"{name}.png" for name in ("fixed", "moving", "out"))
    write_picture(smooth, fixed)
    assert stn(monkeypatch, "warp", fixed, moving, "--rotate", 8, "--translate", 4, -2, "--padding-mode", "border") == 0
    theta = tmp_path / "theta.npy"
    assert stn(monkeypatch, "register", moving, fixed, out, "--transform", "affine", "--theta", theta) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "48x64: ncc" in lines[-2] and lines[-1] == str(out)
    inner = (slice(None), slice(8, -8), slice(8, -8))
    before, after = ((read_picture(path) - smooth)[inner].abs().mean() for path in (moving, out))
    assert after < 0.01 < 10 * after < before
    assert np.load(theta).shape == (6,)
    spoiled, mask = fixed.with_stem("spoiled"), tmp_path / "mask.png"
    seen = torch.ones(1, 48, 64)
    seen[:, 16:32, 20:44] = 0  # black does not count
    write_picture(smooth * seen, spoiled)
    write_picture(seen, mask)
    assert stn(monkeypatch, "register", moving, spoiled, out, "--transform", "rigid", "affine", "--fixed-mask", mask) == 0
    assert capsys.readouterr().out.count("family: ") == 2
    assert (read_picture(out) - smooth)[inner].abs().mean() < 0.01

    volume = torch.nn.functional.interpolate(torch.rand(1, 1, 4, 4, 4), size=(20, 20, 20), mode="trilinear")[0, 0].numpy()
    arrays = [tmp_path / f"{name}.npy" for name in ("moving", "fixed", "out")]
    np.save(arrays[0], np.roll(volume, 2, axis=2))
    np.save(arrays[1], volume)
    assert stn(monkeypatch, "register", *arrays, "--transform", "translation") == 0
    assert np.abs(np.load(arrays[2]) - volume)[:, :, 2:-2].mean() < 0.01


def test_warm_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A few small functions in place of the whole lists. The second time compiles nothing, and --all only what is new."""
    from stn.ops.cpu import ahead

    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    stages = [ahead.Job("stages", (kind, ahead.SINGLE)) for kind in ("affine", "projective")]
    monkeypatch.setattr(ahead, "usual", lambda: stages[:1])
    monkeypatch.setattr(ahead, "everything", lambda: stages)
    ends = ("compiled 2 functions in", "nothing to compile: all 2 functions are on disk", "compiled 2 functions in")
    for options, end in zip(([], [], ["--all", "--workers", "1"]), ends, strict=True):
        assert stn(monkeypatch, "warm-up", *options) == 0
        *each, last = capsys.readouterr().out.splitlines()
        assert last.startswith(end) and len(each) == end.startswith("compiled")
    assert "found 2 on disk" in last and each[0].startswith("numbers and gradient, projective, float32: ")


@pytest.mark.parametrize(
    "words, sentence",
    [
        (["evaluate", "nowhere"], "stn: the run folder must hold config.json; nowhere does not"),
        (["figures", "nowhere"], "stn: the run folder must hold config.json; nowhere does not"),
        (["report"], "stn: RUN must be given at least once; got none"),
        (["report", "nowhere"], "stn: the run folder must hold config.json; nowhere does not"),
        (
            ["warp", "IN", "out.nothing"],
            "stn: the output must end in .png, .jpg or the suffix of another picture format; got out.nothing",
        ),
        (["warp", "nothing.png", "out.png"], "stn: the image must be a file; nothing.png does not exist"),
        (["warp", "IN", "out.png", "--size", "0", "4"], "stn: --size must have positive lengths; got (0, 4)"),
        (
            ["warp", "IN", "out.png", "--mode", "cubic"],
            "stn: --mode must be one of bicubic, bilinear, bspline, catmull_rom, lanczos3, nearest; got 'cubic'",
        ),
        (
            ["warp", "IN", "out.png", "--corners", *"01234567", "--rotate", "9"],
            "stn: --corners cannot be combined with --rotate, .*; got --rotate too",
        ),
        (
            ["register", "IN", "IN", "out.png", "--transform", "afine"],
            "stn: --transform must be one of affine, .*; got 'afine'",
        ),
        (["register", "IN", "nothing.npy", "out.png"], "stn: the image must be a file; nothing.npy does not exist"),
        (["export", "nowhere", "model.onnx"], "stn: the run folder must hold config.json; nowhere does not"),
        (["train", "--data", "mnist"], "stn: --root must name the folder of the files of --data mnist; got None"),
        (
            ["train", "--data", "mnist", "--root", "nowhere"],
            "stn: --root must hold train-images-idx3-ubyte .*--download",
        ),
        (["train", "--device", "tpu"], "stn: --device must be one of auto, cpu, cuda, mps; got 'tpu'"),
        (["train", "--seed", "-1"], "stn: --seed must be an integer from 0 to 2^32 - 1; got -1"),
        (["train", "--lr", "nan"], "stn: --lr must be positive; got nan"),
        (["train", "--lr", "inf"], "stn: --lr must be finite; got inf"),
        (["demo", "--seed", "-1"], "stn: --seed must be an integer from 0 to 2^32 - 1; got -1"),
        (["warm-up", "--workers", "0"], "stn: --workers must be an integer of at least 1; got 0"),
        (["bench", "--threads", "0"], "stn: --threads must be an integer of at least 1; got 0"),
        (["evaluate", "nowhere", "--device", "tpu"], "stn: --device must be cpu, cuda or cuda and a number, .*; got 'tpu'"),
        (["bench", "--device", "tpu"], "stn: --device must be cpu, cuda or cuda and a number, .*; got 'tpu'"),
        (["train", "--transform", "afine"], "transform must be one of affine, .*; got 'afine'"),
        (["reproduce", "table1", "--cells", "x"], "stn: --cells must be names or patterns among fcn/r, .*; got 'x'"),
        (
            ["reproduce", "table1", "--cells", "fcn/r"],
            "stn: cell fcn/r, seed 0: --root must name the folder of the files of data='mnist'; got None",
        ),
    ],
)
def test_bad_requests_end_with_a_sentence(
    words: list[str],
    sentence: str,
    picture: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import re

    monkeypatch.chdir(tmp_path)
    assert stn(monkeypatch, *[picture if word == "IN" else word for word in words]) == 2
    captured = capsys.readouterr()
    text = " ".join((captured.out + captured.err).replace("│", " ").split())
    pattern = sentence if ".*" in sentence else re.escape(sentence)
    assert re.search(pattern, text), text
    assert "Traceback" not in text


def test_a_run_that_is_interrupted_says_how_to_go_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def interrupt(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("stn.lab.experiments.train.train", interrupt)
    assert stn(monkeypatch, "train", "--out", tmp_path / "run") == 130
    assert "--resume" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command, given, expected", (("train", None, "PASSIVE"), ("train", "ACTIVE", "ACTIVE"), ("bench", None, None))
)
def test_threads_wait_without_spinning(
    command: str, given: str | None, expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[str | None] = []
    monkeypatch.setattr("stn.__main__.main", lambda: found.append(os.environ.get("OMP_WAIT_POLICY")))
    monkeypatch.setattr(sys, "argv", ["stn", command])
    monkeypatch.setattr(os, "environ", {} if given is None else {"OMP_WAIT_POLICY": given})
    stn_command.main()
    assert found == [expected]


def test_without_its_packages_the_command_says_what_to_install() -> None:
    """This simulates an installation with `pip install torch-stn` alone: an import finder hides tyro."""
    hide = (
        "import importlib.util as u; find = u.find_spec; u.find_spec = lambda name: None if name == 'tyro' else find(name)"
    )
    code = f"{hide}; from stn.__main__ import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr.strip() == "stn: the package tyro is needed here: pip install 'torch-stn[cli]'"
