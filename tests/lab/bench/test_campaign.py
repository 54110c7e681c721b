"""`stn bench --device cuda --suites all`: rows as they come, errors and missing devices as rows, and verdicts."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from stn import InputError
from stn.lab.bench import campaign, contenders, families, on_device, run
from stn.lab.bench.bars import BARS, page
from stn.lab.bench.cases import Case
from stn.lab.bench.device import COPY
from stn.transforms import FAMILIES

Row = dict[str, Any]


def rows_of(code: str, seconds: float = 60.0) -> list[Row]:
    return list(campaign.rows_of("affine", [sys.executable, "-c", code], seconds))


def test_a_suite_that_fails_keeps_its_rows() -> None:
    good = "import json; print(json.dumps({'suite': 'affine', 'n': 1}), flush=True);"
    assert rows_of(good) == [{"suite": "affine", "n": 1}]
    first, error = rows_of(good + "raise SystemError('the device fell off the bus')")
    assert first["n"] == 1 and error["error"] == "exit status 1: SystemError: the device fell off the bus"
    first, error = rows_of(good + "import time; time.sleep(60)", 2.0)
    assert first["n"] == 1 and error["error"] == "stopped after 2 s"
    (error,) = rows_of("print('a warning')")
    assert error["error"].startswith("a line is not a row: a warning")


def test_without_a_device_each_row_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(campaign, "present", lambda device: False)
    monkeypatch.setattr(run, "present", lambda device: False)
    rows = run.bench_everything(tmp_path / "cuda", "cuda", minutes=8.0, rounds=2)
    assert {row["error"] for row in rows} == {"no device"} and {row["suite"] for row in rows} == set(on_device.suites())
    assert json.loads((tmp_path / "cuda.json").read_text())["rows"] == rows
    text = (tmp_path / "cuda.md").read_text()
    assert text.count("| no device |") == len(rows) and text.count("| not measured |") == len(BARS)
    assert "- device: cuda, no device" in text


@pytest.mark.parametrize("device, minutes", (("tpu", 8.0), ("cuda", 0.0)))
def test_what_cannot_be_run_is_refused(device: str, minutes: float, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="device must be|minutes must be positive; got 0.0"):
        run.bench_everything(tmp_path / "x", device, minutes=minutes, rounds=2)


def test_time_is_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    """No suite gets more than a third of the time; when it is over, the rest of the rows say so."""
    clock, given = [0.0], []

    def suite(name: str, command: list[str], seconds: float) -> Iterator[Row]:
        given.append(seconds)
        clock[0] += seconds
        yield {"suite": name, "command": command}

    monkeypatch.setattr(campaign, "present", lambda device: True)
    monkeypatch.setattr(campaign.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(campaign, "rows_of", suite)
    rows = list(campaign.campaign("cuda", 1.0, rounds=3, trial=True, progress=lambda line: None))
    assert given == [20.0, 20.0, 20.0] and [row["suite"] for row in rows[:3]] == ["copy", "affine", "small"]
    assert rows[0]["command"][2:] == ["stn.lab.bench.on_device", "copy", "--device", "cuda", "--rounds", "3", "--trial"]
    assert {row["error"] for row in rows[3:]} == {"no time left"}


@pytest.fixture
def clocked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Times in place of a device's."""
    monkeypatch.setattr(on_device, "times_on_device", lambda calls, rounds: {name: [1e-3] * 3 for name in calls})


@pytest.mark.usefixtures("clocked")
@pytest.mark.parametrize("suite", ("affine", "deterministic", "float16", "step", "copy"))
def test_the_suites_run(suite: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if suite in on_device.CASES:
        monkeypatch.setitem(on_device.CASES, suite, on_device.CASES[suite][:2])
    monkeypatch.setattr(on_device, "COPIES", range(16, 19, 2))
    rows = list(on_device.rows(suite, "cpu", 3, trial=True))
    assert rows and not [row for row in rows if "error" in row]
    names = {row.get("contender") for row in rows}
    rivals = {"affine": {"torch", COPY}, "deterministic": {on_device.IN_ORDER}}
    assert names == ({"stn"} | rivals.get(suite, set()) if suite not in ("float16", "copy") else {None, COPY} & names)
    if suite == "float16":
        assert all(0 < row["units"] <= 0.75 for row in rows)  # rounded once, after sums in float32


@pytest.mark.usefixtures("clocked")
def test_an_error_of_one_contender_is_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(case: Case) -> Any:
        return lambda image, theta: torch.linalg.cholesky(-torch.eye(2))

    monkeypatch.setattr(on_device, "torch_eager", broken)
    monkeypatch.setitem(on_device.CASES, "affine", on_device.CASES["affine"][:1])
    failed, *rows = on_device.rows("affine", "cpu", 3, trial=True)
    assert failed["contender"] == "torch" and "LinAlgError: linalg.cholesky" in failed["error"]
    assert [row["contender"] for row in rows] == ["stn", COPY]


def test_verdicts_are_of_the_rows() -> None:
    def row(suite: str, task: str, contender: str, ms: float) -> Row:
        place = {"suite": suite, "case": "a", "task": task, "contender": contender, "threads": 1}
        return place | {"median_ms": ms, "spread_ms": 0.0, "device": "cuda"}

    rows = [row("affine", task, name, ms) for task, name, ms in
            (("forward", "stn", 1.0), ("forward", "torch", 3.0), ("both", "stn", 1.0), ("both", "torch", 2.0))]  # fmt: skip
    rows += [row("deterministic", "both", name, ms) for name, ms in (("stn", 1.0), (on_device.IN_ORDER, 3.0))]
    rows += [{"suite": "float16", "case": "a", "task": "forward", "units": 0.6}]
    text = page({"date": "today", "device": "cuda, a card"}, rows)
    assert "| forward over torch eager, geometric mean | at least 2 | 3.00 (1 cases) | met |" in text
    assert "| forward and backward over torch eager, geometric mean | at least 2.5 | 2.00 (1 cases) | missed |" in text
    assert "largest ratio of times | at most 2 | 3.00 (1 cases) | missed |" in text
    assert "largest | at most 1 | 0.60 (1 cases) | met |" in text and "a card" in text


@pytest.mark.parametrize("name", FAMILIES)
def test_the_tables_of_families_are_on_their_device(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case("families", (2, 1, 12, 12), family=name, device="meta")
    operator = contenders.torch_eager(case)
    theta = families.theta_of(name, 2, 2).to("meta")
    assert operator is not None and operator(torch.empty(case.shape, device="meta"), theta).shape == case.shape
