"""A number on a page is that of its row: each sentence with one is looked up, and computed again from committed rows."""

import json
import re
from pathlib import Path

import pytest

from stn.lab.bench.markdown import TORCH
from stn.lab.figures.bars import geometric_mean, speedups

ROOT = Path(__file__).parents[1]
ROWS = json.loads((ROOT / "benchmarks" / "results" / "cpu.json").read_text())["rows"]


def errors(table: str, cell: str) -> float:
    rows = [json.loads(line) for line in (ROOT / "results" / f"{table}.jsonl").read_text().splitlines()]
    found = [row["error_percent"] for row in rows if row["cell"] == cell]
    return sum(found) / len(found)


def speedup(task: str, suite: str = "affine", case: str | None = None, rivals: tuple[str, ...] = TORCH) -> float:
    rows = [row for row in ROWS if case is None or row.get("case") == case]
    return geometric_mean(speedups(rows, rivals)[suite][task])


def kornias(suite: str = "affine", case: str | None = None) -> float:
    """How many times as fast as the best of PyTorch, over the cases that kornia has."""
    rows = [row for row in ROWS if case is None or row.get("case") == case]
    cases = {row["case"] for row in rows if row.get("contender") == "kornia"}
    rows = [row for row in rows if row.get("case") in cases]
    against_torch, against_kornia = (speedups(rows, names)[suite]["forward"] for names in (TORCH, ("kornia",)))
    return geometric_mean([a / b for a, b in zip(against_torch, against_kornia, strict=True)])


def costs(option: str, *tasks: str) -> list[float]:
    """Our own time with an option over that of plain sampling, for each task and number of threads."""
    rows = [row for row in ROWS if row["suite"] == "quality" and row["task"] in (tasks or ("forward", "theta", "both"))]
    times = {(row["task"], row["threads"], row["contender"]): row["median_ms"] for row in rows}
    return [time / times[(*key, "plain bilinear")] for (*key, name), time in times.items() if name == option]


def found(scene: str) -> float:
    rows = [json.loads(line) for line in (ROOT / "results" / "colocalization.jsonl").read_text().splitlines()]
    shares = [row["found_percent"] for row in rows if row["cell"].startswith(scene)]
    return sum(shares) / len(shares)


def worst(key: str) -> float:
    return max(row[key] for row in ROWS if row.get("task") == "accuracy")


DIGIT = "1x1x28x28 affine"
# page -> pattern with a group for each number, and the numbers from the rows
README = {
    r"seven shapes from digits to volumes \| 1x \| ([\d.]+)x \| ([\d.]+)x": lambda: (kornias(), speedup("forward")),
    r"one 28x28 image \| 1x \| ([\d.]+)x \| ([\d.]+)x": lambda: (
        kornias("small", DIGIT),
        speedup("forward", "small", DIGIT),
    ),
    r"([\d.]+) times as fast as PyTorch forward, ([\d.]+) times with theta's gradient, and ([\d.]+)\s+times with both": (
        lambda: (speedup("forward"), speedup("theta"), speedup("both"))
    ),
    r"forward is ([\d.]+) times as fast, with both gradients ([\d.]+) times": lambda: (
        speedup("forward", "small"),
        speedup("both", "small"),
    ),
    r"at ([\d.]+)\s+to ([\d.]+) times the cost of plain sampling": lambda: (
        min(costs("antialias=True")),
        max(costs("antialias=True")),
    ),
    r"at (\d)\s+times the cost of theta's exact gradient": lambda: (max(costs('gradient="wide"', "theta")),),
    r"100 images share, without labels: (\d+) % alone, (\d+) % in clutter": lambda: (
        found("translated"),
        found("cluttered"),
    ),
    r"the value is within (\S+) of float64, PyTorch's within (\d\S+\d)": lambda: (worst("stn_value"), worst("torch_value")),
    r"float32 \| (\S+) \| \S+ \| (\S+) \|": lambda: (worst("torch_value"), worst("stn_value")),
    r"([\d.]+) % of errors in four steps, ([\d.]+) % with": lambda: (
        errors("alignment", "ic-stn-4/28"),
        errors("alignment", "st-cnn/28"),
    ),
    r"([\d.]+) % misread with four layers, ([\d.]+) % without": lambda: (
        errors("strings", "st-cnn-multi/64"),
        errors("strings", "cnn/64"),
    ),
    r"([\d.]+) % misread, ([\d.]+) % without the rectifier": lambda: (
        errors("text", "st-crnn/64x200"),
        errors("text", "crnn/64x200"),
    ),
    r"([\d.]+) % of errors, ([\d.]+) % without": lambda: (errors("volumes", "st-cnn/32"), errors("volumes", "cnn/32")),
}


def agree(written: str, value: float) -> bool:
    """Whether `written` is `value`, rounded to as many digits."""
    if "e" in written:
        return float(written) == float(f"{value:.0e}")
    places = len(written.partition(".")[2])
    return float(written) == round(value, places)


@pytest.mark.parametrize("pattern", README)
def test_numbers_of_the_readme(pattern: str) -> None:
    found = re.findall(pattern, (ROOT / "README.md").read_text())
    assert len(found) == 1
    assert all(agree(text, value) for text, value in zip(found[0], README[pattern](), strict=True)), README[pattern]()


def test_a_wrong_number_is_seen() -> None:
    assert agree("5.7", 5.74) and not agree("5.8", 5.74) and not agree("5.70", 5.74)
    assert agree("7e-4", 6.7e-4) and not agree("7e-4", 7.6e-4)
