"""The lines of a chart are at their values."""

import json
import math

import pytest

from stn.lab.experiments.folder import Row
from stn.lab.page.charts import BOTTOM, LEFT, RIGHT, TOP, charts


def rows(key: str, *values: float) -> list[Row]:
    return [{"split": "valid", "epoch": epoch, key: value} for epoch, value in enumerate(values, start=1)]


def test_a_chart_of_powers() -> None:
    (chart,) = charts([rows("error_percent", 100.0, 10.0), rows("error_percent", 1.0)])
    first, second = chart.lines
    middle = (LEFT + RIGHT) / 2
    assert first.dots == [(middle, TOP), (RIGHT, (TOP + BOTTOM) / 2)] and second.dots == [(middle, BOTTOM)]
    assert first.points == " ".join(f"{x},{y}" for x, y in first.dots)
    assert json.loads(first.values) == [[1, 100.0], [2, 10.0]] and (first.run, second.run) == (0, 1)
    assert [label for _, label in chart.up] == ["1", "2", "5", "10", "20", "50", "100"]
    assert [label for _, label in chart.across] == ["0", "1", "2"]


def test_zero_stands_at_the_foot_of_powers() -> None:
    (chart,) = charts([rows("error_percent", 10.0, 0.0, 1.0)])
    heights = [y for _, y in chart.lines[0].dots]
    assert list(chart.up[0]) == [BOTTOM, "0"]
    assert heights[:2] == [TOP, BOTTOM] and TOP < heights[2] < BOTTOM


@pytest.mark.parametrize("values", [(0.013,), (0.0, 0.0), (0.9, 1.1), (37.0, 2.0), (4.0,), (-1.0, 3.0)])
def test_an_even_axis_holds_all_values_between_round_marks(values: tuple[float, ...]) -> None:
    (chart,) = charts([rows("mean_scale", *values)])
    places, labels = [place for place, _ in chart.up], [float(label) for _, label in chart.up]
    assert 3 <= len(labels) <= 9 and labels == sorted(labels) and places == sorted(places, reverse=True)
    for value, (_, y) in zip(values, chart.lines[0].dots, strict=True):
        share = (value - labels[0]) / (labels[-1] - labels[0])
        assert TOP <= y <= BOTTOM and y == pytest.approx(BOTTOM - share * (BOTTOM - TOP), abs=0.06)


def test_what_no_run_has_gets_no_chart_and_what_is_no_number_no_dot() -> None:
    assert charts([[], [{"split": "test", "loss": 1.0}]]) == []
    (chart,) = charts([rows("loss", 1.0, math.nan, 0.5), []])
    assert len(chart.lines[0].dots) == 2 and chart.lines[1].dots == []


def test_many_epochs_have_few_marks() -> None:
    (chart,) = charts([rows("loss", *([1.0] * 140))])
    assert len(chart.across) <= 7
