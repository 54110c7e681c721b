"""Send SIGTERM and Ctrl-C to each long command at random moments, and check that nothing is lost or left running.

    python -m stn.lab.studies.interruptions --count 20 --seed 0 [COMMAND ..]

Each command runs in its own process group. A signal goes to its main process (or, like Ctrl-C in a terminal, to the whole
group) at a random moment between its start and shortly after its usual end. The command must exit within a minute with 130,
143, 0 if it was done, or by the signal itself while Python was loading. It must print no traceback and leave no process of
the group and no partial file. A final, undisturbed call must succeed. Trainings must give the same rows as without signals.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TRAIN = ["train", "--model", "fcn", "--distortion", "none", "--epochs", "2", "--draws", "1"]
COMMANDS = {
    "train": [*TRAIN, "--out", "run", "--resume"],
    "reproduce": ["reproduce", "trial", "--workers", "2", "--seeds", "1", "--out", "table", "--runs", "cells"],
    "demo": ["demo", "--out", "demo"],
    "bench": ["bench", "--trial", "--suites", "affine", "--rounds", "2", "--threads", "1", "--out", "rows", "--resume"],
    "register": ["register", "a.npy", "b.npy", "c.npy", "--transform", "bspline"],
    "report": ["report", "whole", "--out", "page.html"],
}
# `stn`, with small networks in place of the demonstration's and a small table: their machinery is what is tried.
START = """
import dataclasses, sys
from stn.lab import tables
from stn.lab.experiments import demo
from stn.lab.experiments.runs import Run
def small(model): return Run(distortion="none", model=model, epochs=1, draws=1)
demo.RUNS = small("fcn"), small("st-fcn")
cells = tuple(tables.Cell("FCN", d.upper(), dataclasses.replace(small("fcn"), distortion=d)) for d in ("none", "r", "rts"))
tables.TABLES["seeds"] = tables.Table("Tiny", cells, recipe="As it comes.", quick=1, pictured=())
sys.argv = ["stn", *("seeds" if word == "trial" else word for word in sys.argv[1:])]
from stn.__main__ import main
if __name__ == "__main__":
    main()
"""


def start(words: list[str], place: Path) -> subprocess.Popen[str]:
    script = place / "start.py"
    script.write_text(START)
    out, error = (place / "out").open("w"), (place / "error").open("w")
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, str(script), *words], cwd=place, stdout=out, stderr=error, text=True, start_new_session=True,
        env=environment,
    )  # fmt: skip


def members(group: int) -> list[int]:
    """Return the processes of a group that still run."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[2]) == group and fields[0] != "Z":
                found.append(int(entry.name))
    return found


def interrupt(
    name: str, words: list[str], place: Path, moment: float, number: signal.Signals, whole_group: bool
) -> list[str]:
    process = start(words, place)
    time.sleep(moment)
    try:
        os.killpg(process.pid, number) if whole_group else process.send_signal(number)
    except ProcessLookupError:
        pass
    label, wrong = f"{name}, {number.name} after {moment:.2f} s", []
    try:
        code = process.wait(timeout=60)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return [f"{label}: still running a minute later"]
    said = (place / "error").read_text()
    if code not in (0, 130, 143, -number):
        wrong.append(f"{label}: ended with {code}: {said[-400:]}")
    if "Traceback" in said and code != -number:
        wrong.append(f"{label}: a traceback: {said[-600:]}")
    deadline = time.monotonic() + 5
    while (left := members(process.pid)) and time.monotonic() < deadline:
        time.sleep(0.1)
    if left:
        wrong.append(f"{label}: processes {left} are left")
        os.killpg(process.pid, signal.SIGKILL)
    partial = [path for path in place.rglob("*.partial")]
    if partial and code in (130, 143):
        wrong.append(f"{label}: {partial[0].name} is left")
    return wrong


def results(run: Path) -> list[object]:
    rows = [json.loads(line) for line in (run / "rows.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key not in ("seconds", "images_per_second")} for row in rows]


def tried(name: str, count: int, seed: int) -> list[str]:
    """Interrupt one command `count` times. Returns the violations."""
    import numpy as np

    with tempfile.TemporaryDirectory() as folder:
        place, wrong = Path(folder), []
        volume = np.random.default_rng(0).random((40, 40, 40)).astype(np.float32)
        np.save(place / "a.npy", volume)
        np.save(place / "b.npy", np.roll(volume, 2, 0))
        if name in ("train", "report"):
            assert start([*TRAIN, "--out", "whole"], place).wait() == 0
        draw, words = random.Random(f"{seed} {name}"), COMMANDS[name]
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as other:
            for file in (*place.glob("*.npy"), place / "whole"):
                if file.exists():
                    (Path(other) / file.name).symlink_to(file)
            assert start(words, Path(other)).wait() == 0, (Path(other) / "error").read_text()
        usual = time.monotonic() - began
        for attempt in range(count):
            number = draw.choice((signal.SIGTERM, signal.SIGINT))
            group = number == signal.SIGINT and draw.random() < 0.5
            wrong += interrupt(name, words, place, draw.uniform(0.05, usual * 1.05), number, group)
            print(f"\r{name}: {attempt + 1} of {count}, {len(wrong)} wrong", end="", flush=True)
        if start(words, place).wait() != 0:
            wrong.append(f"{name}: does not go on: {(place / 'error').read_text()[-400:]}")
        elif name == "train" and results(place / "run") != results(place / "whole"):
            wrong.append("train: other rows than those of a run that was never stopped")
        print(f" ({usual:.1f} s when left alone)")
        return wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commands", nargs="*", metavar="COMMAND", help=f"of {', '.join(COMMANDS)} (default: all)")
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    if unknown := set(given.commands) - set(COMMANDS):
        parser.error(f"COMMAND must be one of {', '.join(COMMANDS)}; got {', '.join(sorted(unknown))}")
    wrong = [sentence for name in given.commands or COMMANDS for sentence in tried(name, given.count, given.seed)]
    print("\n".join(wrong) or "nothing was lost, and nothing was left")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
