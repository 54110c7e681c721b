"""The benchmark: all contenders give the same image, an interrupted run continues, and the table shows the rows."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from stn import InputError
from stn.lab.bench import attention, contenders, device, families, first_use, measure, run
from stn.lab.bench.cases import SUITES, Case, quick, traffic
from stn.lab.bench.markdown import faster, markdown
from stn.lab.bench.patterns import PATTERNS
from stn.transforms import FAMILIES
from tests.helpers import ramp


@pytest.mark.parametrize("rule", ("affine", "projective"))
def test_contenders_give_the_same_picture(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A contender that computed less would be faster without reason."""
    monkeypatch.setattr(contenders, "torch_compiled", lambda case: None)
    case = Case("opencv", (1, 3, 40, 48), rule=rule)
    calls = contenders.contenders(case)
    ours = calls.pop("stn")()[0]
    assert {"kornia", "OpenCV planes", "OpenCV interleaved"} <= set(calls)
    for name, call in calls.items():
        out = call()
        if name == "OpenCV interleaved":
            theirs = torch.from_numpy(out[0]).movedim(-1, 0)
        else:
            theirs = torch.stack([torch.as_tensor(plane) for plane in out]) if name == "OpenCV planes" else out[0]
        inner = (theirs - ours)[:, 8:-8, 8:-8]
        assert inner.square().mean().sqrt() < (0.2 if name.startswith("OpenCV") else 1e-3), name  # OpenCV rounds coordinates


def test_the_thin_plate_rivals_give_the_same_picture() -> None:
    case = quick(SUITES["thin_plate"][0])
    image, theta = case.image(), case.theta()
    theirs = contenders.matmul_and_grid_sample(case)(image, theta)
    torch.testing.assert_close(contenders.SPLINE(theta).sample(image), theirs, atol=2e-3, rtol=0)
    coordinates = ramp(case.shape[2:], align_corners=True, dtype=torch.float32).expand(len(theta), -1, -1, -1)
    kornias = contenders.kornia_thin_plate(case)(coordinates, theta)
    ours = contenders.SPLINE(theta).sample(coordinates, align_corners=True)
    inner = (slice(None), slice(None), slice(8, -8), slice(8, -8))
    off, moved = (kornias - ours)[inner], (ours - coordinates)[inner]
    assert off.square().mean() < 0.1 * moved.square().mean()


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Return two small cases, without torch.compile, which takes long to compile."""
    cases = tuple(Case("affine", (2, 1, 8, 8), task) for task in ("forward", "both"))
    monkeypatch.setattr(run, "SUITES", {"affine": cases})
    monkeypatch.setattr(contenders, "torch_compiled", lambda case: None)
    monkeypatch.setattr(run, "costs", lambda: iter([{"suite": "costs", "case": "import", "torch": 1.0, "stn": 0.1}]))
    monkeypatch.setattr(run, "first_use", lambda done, repeats: iter(()))


@pytest.mark.usefixtures("small")
def test_a_killed_benchmark_goes_on(tmp_path: Path) -> None:
    measured: list[str] = []

    def stop_after_one(line: str) -> None:
        measured.append(line)
        if len(measured) == 2:
            raise KeyboardInterrupt

    options: dict[str, Any] = {"threads": (1,), "rounds": 2}
    with pytest.raises(KeyboardInterrupt):
        run.bench(tmp_path / "cpu", progress=stop_after_one, **options)
    kept = json.loads((tmp_path / "cpu.json").read_text())["rows"]
    rows = run.bench(tmp_path / "cpu", resume=True, progress=measured.append, **options)
    assert rows[: len(kept)] == kept
    assert [line.split(",")[1].strip() for line in measured[:1] + measured[2:3]] == ["forward", "both"]
    table = (tmp_path / "cpu.md").read_text()
    for row in rows:
        assert "median_ms" not in row or f"{row['median_ms']:.2f} ± {row['spread_ms']:.2f}" in table


def test_ratios_are_against_the_faster_of_torch() -> None:
    found = {
        name: {"median_ms": ms} for name, ms in (("stn", 2.0), ("torch", 10.0), ("torch.compile", 6.0), ("kornia", 1.0))
    }
    assert faster(found, ("torch", "torch.compile")) == 3.0
    rows = [
        {"suite": "affine", "case": "a", "task": "forward", "threads": 1, "spread_ms": 0.0, "contender": n, **r}
        for n, r in found.items()
    ]
    assert "| 3.00 |" in markdown({"date": "today"}, rows)


def test_what_quality_costs(tmp_path: Path) -> None:
    rows = run.bench(tmp_path / "cpu", suites=("quality",), threads=(1,), rounds=2, trial=True, progress=lambda line: None)
    assert {row["contender"] for row in rows} >= {"plain bilinear", "antialias=True", "torch bicubic"}
    assert {row["case"] for row in rows} == {"2x3x64x64 to 16x16 affine"}
    assert "| plain bilinear |" in (tmp_path / "cpu.md").read_text()
    other = {"suite": "affine", "case": "a", "task": "forward", "threads": 2, "spread_ms": 0.0, "contender": "stn"}
    text = markdown({"date": "today"}, [other | {"median_ms": 2.0}, *rows])  # no suite has rows for every number of threads
    assert "## affine, 2 threads" in text and "## quality, 1 thread" in text and "## quality, 2" not in text


def test_unknown_suites_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="suites must be one of affine, .*; got 'speed'"):
        run.bench(tmp_path / "x", suites=("speed",))


class Clock:
    """Stand-in for torch.cuda.Event on machines without a GPU: each call adds one second, reported in ms."""

    now = 0.0

    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing
        self.at: float | None = None

    def record(self) -> None:
        self.at = Clock.now

    def synchronize(self) -> None:
        assert self.at is not None

    def elapsed_time(self, end: "Clock") -> float:
        assert self.at is not None and end.at is not None
        return 1e3 * (end.at - self.at)


def test_time_on_a_device_is_between_events_and_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.Event", Clock)
    order: list[str] = []

    def call(name: str, duration: float) -> None:
        order.append(name)
        Clock.now += duration

    calls = {"slow": lambda: call("slow", 0.5), "quick": lambda: call("quick", 1 / 128)}
    times = device.times_on_device(calls, 2)
    assert times["slow"] == [0.5, 0.5] and times["quick"] == [1 / 128, 1 / 128]
    assert order == ["slow"] * 4 + ["quick"] * 4 + (["slow"] + ["quick"] * 3) * 2  # warm-up, a trial each, blocks of 20 ms


def test_rows_of_a_device_say_how_many_bytes_it_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contenders, "torch_compiled", lambda case: None)
    monkeypatch.setattr(measure, "times_on_device", lambda calls, rounds: {name: [1e-3, 1e-3, 4e-3] for name in calls})
    case = Case("affine", (2, 1, 8, 8), "both")
    rows = measure.measure_on_device(case, 3)
    assert [row["contender"] for row in rows] == ["stn", "torch", "kornia", device.COPY]
    assert traffic(case) == 4 * 128 * 5 and traffic(Case("quality", (2, 1, 8, 8), shrink=4)) == 4 * (128 + 8)
    assert rows[0]["gigabytes_per_second"] == pytest.approx(4 * 128 * 5 / 1e-3 / 1e9)
    rows[-1]["gigabytes_per_second"] *= 2
    text = markdown({"date": "today"}, rows)
    assert "## affine, cpu" in text and "| 2x1x8x8 affine | both | 0 | 0 | 50 % |" in text
    source = device.copying(traffic(case), "cpu")()
    assert source.numel() == traffic(case) // 2


@pytest.mark.parametrize("name", ("cuda:99", "tpu", "cuda:x", "cpu:0"))
def test_a_device_that_is_not_there_is_refused(name: str, tmp_path: Path) -> None:
    missing = "an available device; torch finds .* CUDA devices; got 'cuda:99'"
    expected = missing if name == "cuda:99" else f"cpu, cuda or .*; got '{name}'"
    with pytest.raises(InputError, match=f"device must be .*{expected}"):
        run.bench(tmp_path / "x", device=name)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.usefixtures("small")
def test_a_benchmark_of_a_device(tmp_path: Path) -> None:
    rows = run.bench(tmp_path / "cuda", device="cuda", rounds=2, progress=lambda line: None)
    assert {row["contender"] for row in rows if "device" in row} == {"stn", "torch", "kornia", device.COPY}
    assert "## affine, cuda" in (tmp_path / "cuda.md").read_text()


@pytest.mark.parametrize("shape, pattern", [(case.shape, case.pattern) for case in SUITES["grids"] if case.task == "both"])
def test_stored_grids_give_the_same_picture(shape: tuple[int, ...], pattern: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The result, and both gradients. Of noise, some pixels lie half a pixel from two others: nearest may choose either."""
    monkeypatch.setattr(contenders, "torch_compiled", lambda case: None)
    both = quick(Case("grids", shape, "both", "grid", pattern=pattern))
    for case in (both, replace(both, task="forward")):
        calls = contenders.contenders(case)
        ours, theirs = calls["stn"](), calls["torch"]()
        for mine, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(mine, other, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("task", ("forward", "both"))
def test_attention_is_its_plain_formula(task: str) -> None:
    ours, theirs = (call() for call in attention.calls((2, 16, 9, 14), task).values())
    for mine, other in zip([ours] if task == "forward" else ours, [theirs] if task == "forward" else theirs, strict=True):
        torch.testing.assert_close(mine, other, atol=1e-4, rtol=1e-4)


EXACT = {name: 2e-3 for name in FAMILIES} | {"velocity": 0.05, "cpab": 0.05}  # squarings follow points differently


@pytest.mark.parametrize("name, d", [(name, d) for name in FAMILIES for d in (2, 3) if (name, d) != ("corners", 3)])
def test_families_in_plain_torch_give_the_same_points(name: str, d: int) -> None:
    """Of images of normalized coordinates: smooth, so that different ways of following points agree."""
    size = (24, 28, 20)[:d]
    image = ramp(size, align_corners=False, dtype=torch.float32).expand(3, *(-1,) * (d + 1))
    theta = families.theta_of(name, 3, d)
    ours = families.family_of(name, d)(theta).sample(image)
    theirs = families.sampled_by(name, size)(image, theta)
    inner = (slice(None), slice(None), *(slice(6, -6) for _ in size))
    half = torch.tensor(size[::-1]).view(d, *(1,) * d) / 2  # pixels of one unit of the coordinates
    assert ((ours - image) * half)[inner].abs().max() > 0.2  # pixels
    off = (ours - theirs)[inner].abs()
    assert off.quantile(0.9) < (10 * EXACT[name] if EXACT[name] > 0.01 else EXACT[name]), off.quantile(0.9)


def test_grids_are_as_their_names_say() -> None:
    size = (128, 128)
    base = PATTERNS["identity"].grid(2, size)
    for deviation in (0.001, 0.01, 0.05):
        moved = PATTERNS[f"noise {deviation}"].grid(2, size) - base
        assert moved.std().item() == pytest.approx(deviation, rel=0.02)
        assert moved.diff(dim=2).std() > deviation  # neighbors are independent
    flow = PATTERNS["flow 0.1"].grid(2, size) - base
    assert 0.05 < flow.std() < 0.2 and flow.diff(dim=2).abs().max() < 0.02
    points = PATTERNS["random"].grid(2, size)
    assert points.abs().max() <= 1 and points.std().item() == pytest.approx(3**-0.5, rel=0.02)
    image, row, column = (PATTERNS[name].grid(2, size) for name in ("noise 0.01", "row, noise 0.01", "column, noise 0.01"))
    assert row.shape == (2, 1, 16384, 2) and column.shape == (2, 16384, 1, 2)
    assert torch.equal(row.flatten(), image.flatten()) and torch.equal(column.flatten(), image.flatten())
    assert len(PATTERNS) == 10
    assert PATTERNS["nearest, noise 0.01"].mode == "nearest" and PATTERNS["bicubic, noise 0.01"].mode == "bicubic"


def test_suites_have_their_shapes() -> None:
    small = {(1, 1, 28, 28), (1, 3, 64, 64), (8, 1, 28, 28), (8, 32, 14, 14), (16, 64, 7, 7), (1, 3, 224, 224)}
    small |= {(64, 3, 32, 32), (32, 1, 28, 28), (128, 1, 28, 28)}
    for task in ("forward", "both"):
        assert small == {case.shape for case in SUITES["small"] if case.task == task}
        grids = [(case.shape, case.pattern) for case in SUITES["grids"] if case.task == task]
        assert grids[:10] == [((16, 3, 128, 128), name) for name in PATTERNS]
        assert grids[10:] == [((2, 2, 32, 32, 32), name) for name in ("noise 0.01", "random")]


def test_a_row_says_how_near_it_comes_to_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case("grids", (2, 3, 8, 8), "both", "grid", pattern="noise 0.01")
    image, grid = 2 * 3 * 64, 2 * 64 * 2
    assert traffic(case) == 4 * (2 * (image + image + grid) + image + grid)
    assert traffic(replace(case, task="forward")) == 4 * (2 * image + grid)
    monkeypatch.setattr(contenders, "torch_compiled", lambda case: None)
    rows = measure.measure_case(case, 1, 2)
    assert [row["contender"] for row in rows] == ["stn", "torch", device.HOST_COPY]
    assert {row["bytes"] for row in rows} == {traffic(case)}
    for row, milliseconds in zip(rows, (8.0, 16.0, 2.0), strict=True):
        row |= {"median_ms": milliseconds, "spread_ms": 0.0}
    text = markdown({"date": "today"}, rows)
    assert "| speedup over torch | share of copy |" in text and "| 2.00 | 25 % |" in text
    assert "share of copy" not in markdown({"date": "today"}, rows[:2])  # rows of an earlier version


def test_first_use_is_measured_in_new_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(first_use, "USES", {"a": "time.sleep(0.2)", "b": "", "c": ""})
    (row,) = first_use.first_use(done=("b", "c"), repeats=2)
    assert row["case"] == "a" and min(row["empty_s"], row["full_s"]) > 0.2
    text = markdown({"date": "today"}, [row | {"empty_s": 12.0, "full_s": 0.5}])
    assert "| a | 12.00 | 0.50 |" in text
    caches: list[str] = []

    def run_with(code: str, cache: str) -> dict[str, float]:
        caches.append(cache)
        return {"seconds": float(len(caches))}

    monkeypatch.setattr(first_use, "run", run_with)
    found = [(row["empty_s"], row["full_s"]) for row in first_use.first_use(repeats=3)]
    assert found == [(1.0, 3.0), (5.0, 7.0), (9.0, 11.0)]  # the first with an empty cache, and the median of the others
    assert [len(set(caches[i : i + 4])) for i in (0, 4, 8)] == [1, 1, 1] and len(set(caches)) == 3


@pytest.mark.skipif(sys.platform != "linux", reason="counts page faults")
def test_freed_memory_stays_with_the_process() -> None:
    """Otherwise torch, which allocates its results, pays for the same pages in every call."""
    code = """
import resource, torch
from stn.lab.experiments.machine import keep_memory
def faults():
    def allocate(): torch.empty(2**24).fill_(1)  # 64 MB
    allocate(), allocate()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    allocate()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(faults(), keep_memory(), faults())
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    before, _, after = out.stdout.split()
    assert int(after) < 100, (before, after)


def test_the_benchmark_keeps_freed_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[bool] = []
    monkeypatch.setattr(run, "keep_memory", lambda: called.append(True))
    monkeypatch.setattr(run, "SUITES", {"affine": ()})
    run.bench(tmp_path / "cpu", suites=("affine",), progress=lambda line: None)
    assert called == [True]
