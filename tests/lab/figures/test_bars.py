"""The charts on the start page agree with the rows."""

import json
from pathlib import Path

import pytest
import torch

import stn
from stn.lab.bench.markdown import TORCH
from stn.lab.figures.bars import DARK, LIGHT, Comparison, Theme, accuracy, geometric_mean, speed, speedups
from stn.lab.studies import front

ROOT = Path(__file__).parents[3]
ROWS = json.loads((ROOT / "benchmarks" / "results" / "cpu.json").read_text())["rows"]


def test_ratios_are_those_of_the_benchmark_table() -> None:
    found = speedups(ROWS, TORCH)
    table = (ROOT / "benchmarks" / "results" / "cpu.md").read_text().split("## affine, 1 thread")[1].split("##")[0]
    for task, values in found["affine"].items():
        line = next(line for line in table.splitlines() if line.startswith(f"| geometric mean | {task} "))
        assert f"{geometric_mean(values):.2f} (smallest {min(values):.2f})" in line
    assert {len(values) for values in found["affine"].values()} == {7}


def test_a_case_without_a_rival_or_of_other_threads_is_left_out() -> None:
    row = {"suite": "a", "task": "forward", "case": "x", "threads": 1}
    rows = [row | {"contender": "stn", "median_ms": 2.0}, row | {"contender": "torch", "median_ms": 6.0}]
    alone = row | {"case": "y", "contender": "stn", "median_ms": 1.0}
    faster = row | {"contender": "torch.compile", "median_ms": 1.0, "threads": 2}
    assert speedups([*rows, alone, faster], TORCH) == {"a": {"forward": [3.0]}}


@pytest.mark.parametrize("theme", (LIGHT, DARK))
def test_speed_has_a_bar_and_dots_for_each_task(theme: Theme) -> None:
    ax = speed({"affine": {"forward": [2.0, 8.0], "both": [3.0]}}, theme).axes[0]
    assert [bar.get_width() for container in ax.containers for bar in container] == pytest.approx([3.0, 2.0])
    assert [len(line.get_xdata()) for line in ax.lines[:2]] == [2, 1]  # type: ignore[arg-type]  # matplotlib's type is too wide
    assert {text.get_text() for text in ax.texts} == {"4.0x", "3.0x"}
    assert ax.xaxis.label.get_color() == theme.ink


def test_accuracy_has_a_pair_of_bars_for_each_comparison() -> None:
    ax = accuracy([Comparison("a", 4.0, 1.0), Comparison("b", 3.0, 2.0)]).axes[0]
    assert [bar.get_width() for container in ax.containers for bar in container] == [4.0, 3.0, 1.0, 2.0]


def test_comparisons_are_means_of_committed_rows() -> None:
    found = {c.name: c for c in front.comparisons(ROOT / "results")}
    assert set(found) == set(front.COMPARED)
    assert found["strings of digits on an arc"][1:] == pytest.approx((6.88, 3.93), abs=0.005)
    assert found["rotated digits"].without > found["rotated digits"].with_layer


def test_a_similarity_through_two_points() -> None:
    matrix = front.through_two_points(front.EYES, front.EYES_LEVEL)
    ends = torch.tensor([[*point, 1.0] for point in front.EYES_LEVEL])
    torch.testing.assert_close(ends @ matrix.T, torch.tensor(front.EYES, dtype=torch.float32))
    assert matrix[0, 0] == matrix[1, 1] and matrix[0, 1] == -matrix[1, 0]


def test_scenes_are_drawn(tmp_path: Path) -> None:
    image = torch.rand(3, 40, 60)
    scene = front.scene("affine", image, stn.Affine()(stn.Affine().identity().unsqueeze(0)), (20, 30))
    figure = front.real([scene, scene._replace(target=torch.rand(1, 20, 30))])
    assert [ax.get_title() for ax in figure.axes][1::2] == ["output: affine", "output: affine (blue: target)"]
    assert scene.output.shape == (3, 20, 30)
