"""Each symptom is described in words, and the worst one comes first."""

import math

import pytest

from stn.lab.experiments import Run
from stn.lab.experiments.folder import Row
from stn.lab.page.diagnosis import findings
from stn.lab.page.page import settings

WELL: Row = {
    "split": "valid", "epoch": 2, "error_percent": 2.0, "train_error_percent": 1.5, "off_image_share": 0.1,
    "mean_scale": 0.9, "fold_share": 0.0, "theta_gradient": 0.1,
}  # fmt: skip
TEST: Row = {"split": "test", "error_percent": 2.0}


def first(*rows: Row) -> tuple[str, str]:
    """Return the level of the worst finding, and its text."""
    worst = findings(Run(epochs=2), rows)[0]
    return worst.level, " ".join(worst[1:])


def test_a_run_that_is_well_is_left_in_peace() -> None:
    found = findings(Run(epochs=2), [WELL, TEST])
    assert {finding.level for finding in found} == {"good"} and len(found) == 3
    assert not any(finding.remedy for finding in found)


@pytest.mark.parametrize(
    "change, level, words",
    [
        ({"off_image_share": 0.9}, "bad", "90 % of the sampling points lie outside the image. The layer has collapsed"),
        ({"off_image_share": 0.5}, "watch", "50 % of the sampling points"),
        ({"mean_scale": 0.01}, "bad", "collapsed to a point"),
        ({"mean_scale": math.nan}, "bad", "collapsed to a point"),
        ({"mean_scale": 9.0}, "bad", "reduced to a few pixels"),
        ({"fold_share": 0.6}, "bad", "60.0 % of the sampling points are folded. There the warp reverses"),
        ({"fold_share": 0.05}, "watch", "a family that cannot fold: velocity"),
        ({"theta_gradient": 0.0}, "bad", "theta gets no gradient"),
        ({"error_percent": 6.0}, "watch", "is 4.5 percentage points above the training error. The network overfits"),
    ],
)
def test_each_sign_has_a_meaning_and_a_remedy(change: Row, level: str, words: str) -> None:
    found = first(WELL | change, TEST)
    assert found[0] == level and words in found[1]
    assert findings(Run(epochs=2), [WELL | change, TEST])[0].remedy


def test_the_worst_comes_first() -> None:
    found = findings(Run(epochs=2), [WELL | {"fold_share": 0.05, "mean_scale": 9.0}, TEST])
    assert [finding.level for finding in found] == ["bad", "watch", "good"]


def test_the_course_of_a_training() -> None:
    assert "No epoch is complete" in first()[1]
    assert "2 of 5 epochs are complete" in findings(Run(epochs=5), [WELL])[0].seen
    better = WELL | {"epoch": 1, "error_percent": 0.5}
    assert "Epoch 1 was better than the last one: 0.50 %, now 2.00 %" in first(better, WELL, TEST)[1]
    plain = {key: WELL[key] for key in ("split", "epoch", "error_percent", "train_error_percent")}
    level, words = first(plain, TEST)
    assert level == "good" and words.startswith("This network has no spatial transformer.")


@pytest.mark.parametrize(
    "error, level", ((99.92, "bad"), (80.1, "bad"), (math.nan, "bad"), (60.0, "watch"), (40.1, "watch"), (39.9, "good"))
)
def test_a_network_that_has_learned_nothing_is_not_well(error: float, level: str) -> None:
    """The diagnosis uses the test error if there is one, else the error on the held-out images."""
    assert first(WELL, TEST | {"error_percent": error})[0] == level
    assert first(WELL | {"error_percent": error, "train_error_percent": error}, TEST)[0] == "good"
    alone = findings(Run(epochs=2), [WELL | {"error_percent": error, "train_error_percent": error}])
    assert any("held-out images are misread" in finding.seen for finding in alone) == (level != "good")


def test_a_run_is_named_after_the_family_that_runs() -> None:
    curved = Run(distortion="curved", model="st-crnn")
    assert curved.family == "tps" and curved.label == "digits-curved-st-crnn-tps-seed0"
    assert ("transform", ["tps"], False) in settings([curved])
    assert Run(distortion="pairs", model="2xlook").label == "digits-pairs-2xlook-attention-seed0"
    assert Run(transform="rigid").family == "rigid" and Run(model="cnn").label == "digits-rts-cnn-seed0"
