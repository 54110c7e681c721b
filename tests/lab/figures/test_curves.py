"""The curves agree with the rows."""

import numpy as np
import pytest

from stn.lab.experiments.folder import Row
from stn.lab.figures.curves import by_epoch, curves, errors


def rows(*validation: float, test: tuple[float, ...] = ()) -> list[Row]:
    valid = [
        {"split": "valid", "epoch": epoch, "error_percent": error, "train_error_percent": 1.5 * error}
        for epoch, error in enumerate(validation, start=1)
    ]
    return valid + [{"split": "test", "error_percent": error} for error in test]


def test_curves_show_the_rows() -> None:
    figure = curves(rows(20.0, 10.0, 5.0, test=(4.0, 5.0)), "run")
    training, validation, test = figure.axes[0].lines
    assert np.asarray(validation.get_xydata()).tolist() == [[1, 20], [2, 10], [3, 5]]
    assert np.asarray(training.get_ydata())[0] == 30 and "4.50 % over 2 draws" in str(test.get_label())


def test_the_spread_over_seeds() -> None:
    figure = errors({"a": [rows(20.0, 10.0, test=(4.0, 6.0)), rows(30.0, 8.0, 7.0, test=(3.0,))], "b": [rows(9.0)]})
    ax, beside = figure.axes
    mean, other = ax.lines
    assert np.asarray(mean.get_xydata()).tolist() == [[1, 25], [2, 9]] and mean.get_label() == "a, 2 seeds"
    band = ax.collections[0].get_paths()[0].get_extents()
    assert (band.y0, band.y1) == (8, 30) and other.get_label() == "b"
    assert np.asarray(beside.lines[0].get_ydata()).tolist() == [5, 3] and beside.texts[0].get_text() == "4.00"
    assert len(beside.texts) == 1  # the other run has no test error yet


@pytest.mark.parametrize("unfinished", ([], [{"split": "test", "error_percent": 1.0}]))
def test_runs_without_an_epoch_leave_room(unfinished: list[Row]) -> None:
    epochs, values = by_epoch([rows(3.0), unfinished])
    assert epochs == [] and values.shape == (2, 0)
