"""Diagnosis of a run from its rows, in words: an observation, its meaning, and a remedy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from stn.lab.experiments.folder import Row
from stn.lab.experiments.runs import Run
from stn.lab.experiments.watch import MOST_FOLDS, MOST_OFF_IMAGE, SCALES


class Finding(NamedTuple):
    level: str  # "good", "watch" or "bad"
    seen: str
    means: str
    remedy: str = ""


SOME_OFF_IMAGE, SOME_FOLDS = MOST_OFF_IMAGE / 2, 0.01  # thresholds of a warning
MOST_ERRORS, SOME_ERRORS = 80.0, 40.0  # percent; guessing among ten classes has 90
APART, WORSE = 3.0, 1.0  # percentage points: of the validation error above the training error, and above the best epoch


def findings(run: Run, rows: Sequence[Row]) -> list[Finding]:
    """Return the findings, the worst first."""
    valid = [row for row in rows if row["split"] == "valid"]
    if not valid:
        return [Finding("watch", "No epoch is complete yet.", "There are no results yet.", "Continue the training.")]
    found = [*_progress(run, rows, valid), *_errors(rows, valid), *_looks(valid[-1]), *_learning(valid)]
    return sorted(found, key=lambda finding: ("bad", "watch", "good").index(finding.level))


def _progress(run: Run, rows: Sequence[Row], valid: Sequence[Row]) -> Iterator[Finding]:
    if not any(row["split"] == "test" for row in rows):
        yield Finding(
            "watch",
            f"{valid[-1]['epoch']} of {run.epochs} epochs are complete; the test has not run yet.",
            "The error may still decrease, because the learning rate decreases until the end.",
            "The same command with --resume continues.",
        )


def _errors(rows: Sequence[Row], valid: Sequence[Row]) -> Iterator[Finding]:
    """Judge the test error if there is one, otherwise the validation error."""
    test = [row["error_percent"] for row in rows if row["split"] == "test"]
    error = sum(test) / len(test) if test else valid[-1]["error_percent"]
    seen = f"{error:.2f} % of {'test' if test else 'held-out'} images are misread."
    remedy = "Train for more epochs, try another lr or localization_lr, or an easier distortion first."
    if not error <= MOST_ERRORS:
        yield Finding("bad", seen, "The network has learned little or nothing.", remedy)
    elif error > SOME_ERRORS:
        yield Finding("watch", seen, "The network has learned some of the task.", remedy)


def _looks(row: Row) -> Iterator[Finding]:
    if "mean_scale" not in row:
        yield Finding("good", "This network has no spatial transformer.", "It is a baseline for networks with one.")
        return
    yield _off_image(row["off_image_share"])
    yield _scale(row["mean_scale"])
    yield _folds(row["fold_share"])
    if row.get("theta_gradient", 1) == 0:
        yield Finding(
            "bad",
            "theta gets no gradient.",
            "The layer cannot learn: all of its looks lie outside the image, or on constant pixels.",
            "Lower localization_lr, set off_image_weight, and train again.",
        )


def _off_image(share: float) -> Finding:
    seen = f"{100 * share:.0f} % of the sampling points lie outside the image."
    if not share <= MOST_OFF_IMAGE:
        remedy = "Set off_image_weight (first try 0.1), lower localization_lr, or clip gradients with clip_norm."
        return Finding("bad", seen, "The layer has collapsed: it samples padding instead of the image.", remedy)
    if share > SOME_OFF_IMAGE:
        remedy = "If the error is too high, try off_image_weight=0.1, or a family without translation."
        return Finding("watch", seen, "Looks are wider than the image, or partly outside, so they contain padding.", remedy)
    return Finding("good", seen, "The looks lie on the image. A margin is normal if they rotate or zoom out.")


def _scale(scale: float) -> Finding:
    seen = f"The mean scale is {scale:.2f}: the side of a look divided by the side of the image."
    if not scale >= SCALES[0]:
        remedy = "Lower localization_lr, set identity_weight, or bound the scale with stn.bounded."
        return Finding("bad", seen, "The layer has collapsed to a point: every output has a single color.", remedy)
    if scale > SCALES[1]:
        remedy = "Lower localization_lr, set identity_weight, or bound the scale with stn.bounded."
        return Finding("bad", seen, "The image is reduced to a few pixels, so its content is lost.", remedy)
    if scale < 0.95:
        return Finding("good", seen, f"The layer zooms in by {1 / scale:.1f}x.")
    return Finding("good", seen, "The layer samples the whole image." if scale < 1.05 else "The layer zooms out.")


def _folds(share: float) -> Finding:
    seen = f"{100 * share:.1f} % of the sampling points are folded." if share else "No sampling point is folded."
    means = "There the warp reverses orientation: it folds, or the look is a mirror image."
    remedy = "Set identity_weight, lower localization_lr, or choose a family that cannot fold: velocity, cpab, similarity."
    if not share <= SOME_FOLDS:
        return Finding("bad" if not share <= MOST_FOLDS else "watch", seen, means, remedy)
    return Finding("good", seen, "The warp folds at a few points only." if share else "The warp does not fold.")


def _learning(valid: Sequence[Row]) -> Iterator[Finding]:
    last, best = valid[-1], min(valid, key=lambda row: row["error_percent"])
    gap = last["error_percent"] - last["train_error_percent"]
    if gap > APART:
        yield Finding(
            "watch",
            f"The validation error is {gap:.1f} percentage points above the training error.",
            "The network overfits its training images.",
            "Use more data or distortion, more weight_decay, label_smoothing, or a smaller network.",
        )
    if last["error_percent"] - best["error_percent"] > WORSE:
        yield Finding(
            "watch",
            f"Epoch {best['epoch']} was better than the last one: {best['error_percent']:.2f} %, "
            f"now {last['error_percent']:.2f} %.",
            "The training is unstable, or overfits.",
            "Lower lr, average the weights (averaging=0.998), or train for fewer epochs.",
        )
