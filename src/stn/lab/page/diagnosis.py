"""What the rows of a run say about its looks, in words: what is seen, what it means, what to do."""

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


SOME_OFF_IMAGE, SOME_FOLDS = MOST_OFF_IMAGE / 2, 0.01  # where it is worth a thought
MOST_ERRORS, SOME_ERRORS = 80.0, 40.0  # percent; of ten classes, guessing errs by 90
APART, WORSE = 3.0, 1.0  # percentage points: validation above training error, and above the best epoch


def findings(run: Run, rows: Sequence[Row]) -> list[Finding]:
    """The worst first."""
    valid = [row for row in rows if row["split"] == "valid"]
    if not valid:
        return [Finding("watch", "No epoch is complete yet.", "There is nothing to judge.", "Let the training go on.")]
    found = [*_progress(run, rows, valid), *_errors(rows, valid), *_looks(valid[-1]), *_learning(valid)]
    return sorted(found, key=lambda finding: ("bad", "watch", "good").index(finding.level))


def _progress(run: Run, rows: Sequence[Row], valid: Sequence[Row]) -> Iterator[Finding]:
    if not any(row["split"] == "test" for row in rows):
        yield Finding(
            "watch",
            f"{valid[-1]['epoch']} of {run.epochs} epochs are done, and the test is still to come.",
            "Errors may still fall: the learning rate is lowered to the very end.",
            "The same command with --resume goes on.",
        )


def _errors(rows: Sequence[Row], valid: Sequence[Row]) -> Iterator[Finding]:
    """By the test where there was one."""
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
        yield Finding("good", "This network has no spatial transformer.", "It is what one with a transformer has to beat.")
        return
    yield _off_image(row["off_image_share"])
    yield _scale(row["mean_scale"])
    yield _folds(row["fold_share"])
    if row.get("theta_gradient", 1) == 0:
        yield Finding(
            "bad",
            "theta gets no gradient.",
            "The layer cannot learn any more: all of its looks lie off the image, or on constant pixels.",
            "Lower localization_lr, set off_image_weight, and start again.",
        )


def _off_image(share: float) -> Finding:
    seen = f"{100 * share:.0f} % of what the looks sample lies off the image."
    if not share <= MOST_OFF_IMAGE:
        remedy = "Set off_image_weight (0.1 to begin with), lower localization_lr, or clip gradients with clip_norm."
        return Finding("bad", seen, "The layer has collapsed: it looks past the image and hands on padding.", remedy)
    if share > SOME_OFF_IMAGE:
        remedy = "If the error is too high, try off_image_weight=0.1, or a family without translation."
        return Finding("watch", seen, "Looks are wider than the image, or leave it; pixels are spent on padding.", remedy)
    return Finding("good", seen, "The looks are on the image. A margin is normal where they turn or zoom out.")


def _scale(scale: float) -> Finding:
    seen = f"A piece of a look covers {scale:.2f} times its own length of the image."
    if not scale >= SCALES[0]:
        remedy = "Lower localization_lr, set identity_weight, or bound the scale with stn.bounded."
        return Finding("bad", seen, "The layer has collapsed to a point: every output is one flat color.", remedy)
    if scale > SCALES[1]:
        remedy = "Lower localization_lr, set identity_weight, or bound the scale with stn.bounded."
        return Finding("bad", seen, "The image is shrunk to a few pixels: what it shows is lost.", remedy)
    if scale < 0.95:
        return Finding("good", seen, "The layer zooms in on a part.")
    return Finding("good", seen, "The layer looks at the whole." if scale < 1.05 else "The layer shrinks what it looks at.")


def _folds(share: float) -> Finding:
    seen = f"{100 * share:.1f} % of the looks' points are folded." if share else "No point of the looks is folded."
    means = "There the warp turns over: neighbors change places, or the look is a mirror image."
    remedy = "Set identity_weight, lower localization_lr, or take a family that cannot fold: velocity, cpab, similarity."
    if not share <= SOME_FOLDS:
        return Finding("bad" if not share <= MOST_FOLDS else "watch", seen, means, remedy)
    return Finding("good", seen, "Neighbors change places at a few points only." if share else "Neighbors stay neighbors.")


def _learning(valid: Sequence[Row]) -> Iterator[Finding]:
    last, best = valid[-1], min(valid, key=lambda row: row["error_percent"])
    gap = last["error_percent"] - last["train_error_percent"]
    if gap > APART:
        yield Finding(
            "watch",
            f"Held-out images are read worse than training images, by {gap:.1f} points.",
            "The network learns its training images by heart.",
            "More data or distortion, more weight_decay, label_smoothing, or a smaller network.",
        )
    if last["error_percent"] - best["error_percent"] > WORSE:
        yield Finding(
            "watch",
            f"Epoch {best['epoch']} was better than the last one: {best['error_percent']:.2f} %, "
            f"now {last['error_percent']:.2f} %.",
            "The training is unsteady, or past its best.",
            "Lower lr, average the weights (averaging=0.998), or train for fewer epochs.",
        )
