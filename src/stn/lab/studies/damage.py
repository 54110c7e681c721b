"""Damage a run folder at random, and check that every command gives a correct result or one sentence.

    python -m stn.lab.studies.damage --count 200 --seed 0

Bytes are flipped; files are truncated, removed, overwritten with zeros, or replaced by those of another run. A command that
exits with 0 must print the same as for the intact run. All rows of an undamaged file must still exist afterwards. A command
that exits with 2 must print one sentence. `tests/lab/studies/test_damage.py` runs a part of this study.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import random
import re
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from stn import cli

FILES = ("config.json", "rows.jsonl", "checkpoints/last.pt")
Damage = Callable[[random.Random, Path, Path], None]  # a file, and the same file of another run


def flip(draw: random.Random, file: Path, other: Path) -> None:
    data = bytearray(file.read_bytes())
    for _ in range(draw.choice((1, 1, 4, 64))):
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    file.write_bytes(bytes(data))


def cut(draw: random.Random, file: Path, other: Path) -> None:
    data = file.read_bytes()
    file.write_bytes(data[: draw.randrange(len(data))])


def zero(draw: random.Random, file: Path, other: Path) -> None:
    data = bytearray(file.read_bytes())
    start = draw.randrange(len(data))
    end = min(len(data), start + draw.choice((16, 512, 4096)))
    data[start:end] = bytes(end - start)
    file.write_bytes(bytes(data))


def remove(draw: random.Random, file: Path, other: Path) -> None:
    file.unlink()


def swap(draw: random.Random, file: Path, other: Path) -> None:
    shutil.copyfile(other, file)


DAMAGES: tuple[Damage, ...] = (flip, flip, cut, zero, remove, swap)


def command(*words: object) -> tuple[int, str, str]:
    """Run a command in this process. Returns its exit code, output and error output."""
    out, error, before = io.StringIO(), io.StringIO(), sys.argv
    sys.argv = ["stn", *map(str, words)]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
            cli.main()
        code = 0
    except SystemExit as end:
        code = int(end.code or 0)
    finally:
        sys.argv = before
    return code, out.getvalue(), error.getvalue()


def commands(run: Path, train: Sequence[object], elsewhere: Path) -> dict[str, Sequence[object]]:
    return {
        "evaluate": ["evaluate", run, "--draws", 1],
        "report": ["report", run, "--out", elsewhere / "page.html"],
        "figures": ["figures", run, "--count", 2],
        "export": ["export", run, elsewhere / "model.onnx"],
        "train": [*train, "--out", run, "--resume"],
    }


def rows_of(run: Path) -> list[str]:
    return [line for file in run.glob("rows*.jsonl") for line in file.read_text(errors="replace").splitlines()]


def without_times(text: str, run: Path) -> str:
    """Return the output of a command without speeds and paths."""
    return re.sub(r"\d[\d,.]* images/s|, \d+ s\b", "", text.replace(str(run.parent), ""))


def meet(
    kind: Damage, draw: random.Random, intact: Path, other: Path, train: Sequence[object], names: Sequence[str]
) -> list[str]:
    """Damage a copy of a run and run these commands on it. Returns the violations."""
    wrong: list[str] = []
    with tempfile.TemporaryDirectory() as place:
        run = Path(place) / "run"
        shutil.copytree(intact, run)
        file = draw.choice(FILES)
        kind(draw, run / file, other / file)
        good_rows = [] if file == "rows.jsonl" else rows_of(run)
        for name in names:
            words = commands(run, train, Path(place))[name]
            code, out, error = command(*words)
            label = f"{name} after {kind.__name__} of {file}"
            sentences = [line for line in error.splitlines() if line.strip()]
            if code not in (0, 2) or "Traceback" in error:
                wrong.append(f"{label}: ended with {code}: {error[-300:]}")
            elif code == 2 and not sentences[-1:][0].startswith("stn: "):
                wrong.append(f"{label}: no sentence: {error[-300:]}")
            elif code == 0 and name == "evaluate" and out != command(*commands(intact, train, Path(place))[name])[1]:
                wrong.append(f"{label}: another result")
            elif code == 0 and name == "train" and not _same_rows(run, intact):
                wrong.append(f"{label}: other rows")
        if missing := [row for row in good_rows if row not in rows_of(run)]:
            wrong.append(f"{kind.__name__} of {file}: lost {len(missing)} rows")
    return wrong


def _same_rows(run: Path, intact: Path) -> bool:
    kept, expected = (
        [json.loads(row) for row in (folder / "rows.jsonl").read_text().splitlines()] for folder in (run, intact)
    )
    return bool(kept == expected)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        train = ["train", "--model", "st-fcn", "--distortion", "none", "--epochs", 1, "--draws", 1]
        intact, other = Path(place) / "intact", Path(place) / "other"
        for run, seed in ((intact, 0), (other, 1)):
            assert command(*train, "--seed", seed, "--out", run)[0] == 0
        wrong: list[str] = []
        done: Counter[str] = Counter()
        for number in range(given.count):
            draw = random.Random(f"{given.seed} {number}")
            kind = draw.choice(DAMAGES)
            names = ("evaluate", "report", "figures", "export", "train")
            wrong += meet(kind, draw, intact, other, train, names)
            done[kind.__name__] += 1
            print(f"\r{number + 1} of {given.count}, {len(wrong)} wrong", end="", flush=True)
        print("\n" + "\n".join(wrong))
        print(dict(done), f"{len(wrong)} of {given.count * 5} commands failed the check")
        sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
