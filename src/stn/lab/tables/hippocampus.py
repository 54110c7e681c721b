"""The table of hippocampi: its cells as data, and its rows as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import mean, median
from typing import Any

from stn.lab.experiments.rows import Row
from stn.lab.tables.markdown import line
from stn.registration import LocalCorrelation
from stn.transforms import Family, Velocity

PAIRS = 100
STEPS_AFTER = 8  # of descent, after the network
# Chosen on 16 pairs of training cases: mean Dice 0.759 without folds. 9x11x9 control points with a bending of 0.003 had
# 0.749; 15x19x15 with 0.01 had 0.763, and folds in 8 pairs.
SHAPE, RESOLUTION, SQUARINGS, WINDOW, BENDING, STEPS = (12, 15, 12), 32, 4, 5, 1e-2, 20
# The flow of the result is computed on a finer lattice than during the search or the training. With 32 points its inverse
# missed voxels of these pairs by 0.098 on average, and that of the network by 0.072.
FLOW_RESOLUTION, FLOW_SQUARINGS = 64, 6


def velocity() -> dict[str, Any]:
    """Return the arguments of `stn.register` for one pair."""
    family = Velocity(3, shape=SHAPE, resolution=RESOLUTION, squarings=SQUARINGS)
    losses = ["ncc", velocity_loss()]
    return {"transform": ["affine", family], "loss": losses, "bending": BENDING, "steps": STEPS}


def finer(family: Family) -> Family:
    """Return the family with the finer flow, if it has one. Theta stays the same."""
    return replace(family, resolution=FLOW_RESOLUTION, squarings=FLOW_SQUARINGS) if isinstance(family, Velocity) else family


def velocity_loss() -> LocalCorrelation:
    return LocalCorrelation(WINDOW)


@dataclass(frozen=True)
class Cell:
    """A method: its heading, the package that it needs, and its settings."""

    heading: str
    module: str = "stn"
    settings: Mapping[str, Any] = field(default_factory=dict)


_FLOW = {"flow resolution": FLOW_RESOLUTION, "flow squarings": FLOW_SQUARINGS}
_VELOCITY: dict[str, Any] = {"shape": list(SHAPE), "resolution": RESOLUTION, "squarings": SQUARINGS}
_VELOCITY |= {"window": WINDOW, "bending": BENDING, "steps": STEPS} | _FLOW
_DEMONS = {"affine metric": "mutual information", "Gaussian": 0.7, "steps": [100, 100]}
_SYN = {"transform": "SyNRA", "metric": "mutual information"}
CELLS = {
    "centers": Cell("before: centers aligned"),
    "affine": Cell("`stn.register`, affine"),
    "velocity": Cell("`stn.register`, affine and velocity", settings=_VELOCITY),
    "learned": Cell("network with a velocity layer", settings=_FLOW),
    "learned-steps": Cell(f"the same, then {STEPS_AFTER} steps", settings=_VELOCITY | {"steps": STEPS_AFTER}),
    "SimpleITK": Cell("SimpleITK, affine and diffeomorphic demons", "SimpleITK", _DEMONS),
    "greedy": Cell("greedy, affine and diffeomorphic", "picsl_greedy"),
    "ANTs": Cell("ANTs, rigid, affine and SyN", "ants", _SYN | {"steps": [40, 20, 0]}),
    "ANTs-full": Cell("the same, SyN at full resolution too", "ants", _SYN | {"steps": [40, 40, 20]}),
}
KEYS = ("cell", "seed", "budget", "moving", "fixed", "settings", "threads", "machine", "torch")


def is_row(row: object) -> bool:
    """Whether it has all values that the document prints of a row."""
    if not isinstance(row, dict) or any(key not in row for key in KEYS) or not isinstance(row["settings"], dict):
        return False
    numbers = all(isinstance(row.get(key), int | float) for key in ("seconds", "cpu_seconds", "fold_share"))
    return (numbers and isinstance(row.get("dice"), list)) or isinstance(row.get("exception"), str)


HEAD = """# Hippocampi: Dice of two labels after the registration of pairs

`stn reproduce hippocampus --root DIR --seeds {seeds}{trial}`. {pairs} random pairs of held-out cases of the 260 MR
volumes of the Medical Segmentation Decathlon, about 35x51x35 voxels of 1 mm each. Of the cases in the order of their names
every fifth is held out (52); the other 208 served to train the network, without their labels, and to choose settings. Dice
is the mean of that of the anterior and of the posterior part, by the label of the nearest voxel.
"""
HEADINGS = (
    *("method", "pairs", "Dice", "anterior", "posterior", "worst pair", "pairs with folds"),
    *("inverse, voxels: mean", "largest", "seconds", "CPU seconds", "failures"),
)
LEGEND = """A method with fewer pairs was measured on the first of them. Folds: a voxel at which the determinant of central
differences of the map is not positive. Inverse: the distance by which the map and then its inverse miss a voxel, over all
voxels and pairs, for methods that have an inverse. Seconds and CPU seconds (of all threads) are medians over pairs, without
the first call and without reading; where other work shares the processor, only CPU seconds compare."""


def markdown(rows: Sequence[Row]) -> str:
    """Return the whole document."""
    pairs = len({(row["moving"], row["fixed"]) for row in rows})
    trial = " --budget quick" if any(row["budget"] == "quick" for row in rows) else ""
    seeds = len({row["seed"] for row in rows})
    lines = [HEAD.format(pairs=pairs, trial=trial, seeds=seeds), line(HEADINGS)]
    lines.append(line(["---"] + ["---:"] * (len(HEADINGS) - 1)))
    for name, cell in CELLS.items():
        mine = [row for row in rows if row["cell"] == name]
        for seed in sorted({row["seed"] for row in mine}):
            own = [row for row in mine if row["seed"] == seed]
            several = len({row["seed"] for row in mine}) > 1
            lines.append(line([cell.heading + (f", seed {seed}" if several else ""), *_summary(own)]))
    missing = [name for name in CELLS if not any(row["cell"] == name for row in rows)]
    lines += ["", LEGEND, "", f"- Not run yet: {', '.join(missing) or 'none'}.", *_notes(rows), ""]
    machines = dict.fromkeys(f"{row['machine']}, torch {row['torch']}, threads: {row['threads']}" for row in rows)
    return "\n".join([*lines, f"Measured on {'; '.join(machines) or 'no machine yet'}.", ""])


def _summary(rows: Sequence[Row]) -> list[str]:
    good = [row for row in rows if "dice" in row]
    if not good:
        return ["0", *[""] * (len(HEADINGS) - 3), str(len(rows))]
    parts = [mean(row["dice"][i] for row in good) for i in (0, 1)]
    worst = min(mean(row["dice"]) for row in good)
    folded = sum(row["fold_share"] > 0 for row in good)
    back = [row["inverse_voxels"] for row in good if "inverse_voxels" in row]
    inverse = [f"{mean(one[0] for one in back):.4f}", f"{max(one[1] for one in back):.3f}"] if back else ["", ""]
    times = [f"{median(row[key] for row in good):.2f}" for key in ("seconds", "cpu_seconds")]
    dice = [f"**{mean(parts):.3f}**", *(f"{part:.3f}" for part in parts), f"{worst:.2f}"]
    return [str(len(good)), *dice, str(folded), *inverse, *times, str(len(rows) - len(good))]


def _notes(rows: Sequence[Row]) -> list[str]:
    """Say what was trained, and with which settings."""
    notes = []
    for name in CELLS:
        own = [row for row in rows if row["cell"] == name and row["settings"]]
        if own:
            notes.append(
                f"- {CELLS[name].heading}: " + ", ".join(f"{k} {_short(v)}" for k, v in own[0]["settings"].items()) + "."
            )
    trained = {row["seed"]: row["training_seconds"] / 60 for row in rows if "training_seconds" in row}
    if trained:
        minutes = ", ".join(f"{one:.0f}" for one in trained.values())
        notes.append(f"- Minutes of training: {minutes}.")
    return notes


def _short(value: Any) -> str:
    return "x".join(map(str, value)) if isinstance(value, list) else str(value)
