"""Runs as data: everything that decides the outcome of a training, frozen, and the tables that are made of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from stn import _check
from stn.data import COPIES
from stn.experiments.tasks import TASKS, cross_entropy
from stn.transforms import FAMILIES

PRECISIONS = Literal["32-true", "bf16-mixed", "16-mixed"]


@dataclass(frozen=True)
class Run:
    """One training, from its data to its seed. Two equal runs on the same machine give the same rows."""

    data: str = "digits"
    """digits (bundled with scikit-learn) or mnist (its files in --root)."""
    root: Path | None = None
    """Folder of the data files."""
    download: bool = False
    """Fetch data files that are missing from --root."""
    distortion: str = "rts"
    """What is made of digits: none, r (rotated), rts (rotated, scaled, translated in 42x42), p (projective), e (elastic),
    tc (cluttered 60x60), addition, pairs, strings, extruded (to volumes of 60^3), extruded_32, perturbed, perturbed_42,
    curved (strings on an arc, in perspective)."""
    model: str = "st-cnn"
    """fcn, cnn, st-fcn or st-cnn: the paper's networks, with and without a spatial transformer. Addition: also 2xst-fcn;
    pairs: look, 2xlook; strings: cnn, st-cnn-single, st-cnn-multi; perturbed: cnn, st-cnn, ic-stn-2, ic-stn-4;
    curved: crnn, st-crnn."""
    transform: str = "affine"
    """What the layer learns: translation, rigid, similarity, attention, anisotropic_scale, affine, exponential_affine,
    projective, corners, tps, bspline, displacement, velocity or cpab."""
    epochs: int = 6
    """Passes over the training images, each one distorted anew (digits: ten times a pass)."""
    batch_size: int = 128
    """Images a step, over all devices."""
    lr: float = 3e-3
    """Peak learning rate (AdamW, one cycle)."""
    localization_lr: float = 1e-3
    """Peak learning rate of the localisation network and its regression."""
    weight_decay: float = 1e-2
    """Of all weights but the regression to theta."""
    label_smoothing: float = 0.0
    """Share of the target that is spread over all classes."""
    clip_norm: float = 0.0
    """Norm to which the gradient of all weights together is clipped; 0: not at all."""
    averaging: float = 0.0
    """The weights that are evaluated and kept are a running mean, of which each step keeps this share; 0: the last ones."""
    identity_weight: float = 0.0
    """Weight in the loss of how far a look moves points (`stn.nn.identity_loss`)."""
    off_image_weight: float = 0.0
    """Weight in the loss of how far a look reaches beyond the image (`stn.off_image_loss`)."""
    seed: int = 0
    """Of the initial weights, the order of the images and their distortions."""
    draws: int = 3
    """Independent distortions of the test set, for its mean error and spread."""
    precision: PRECISIONS = "32-true"
    """Of the arithmetic; theta and all coordinates keep 32 bits or more."""
    accelerator: str = "auto"
    """auto, cpu, cuda or mps."""
    devices: int = 1
    """How many of them (data-parallel)."""

    def __post_init__(self) -> None:
        _check.choice("data", self.data, COPIES)
        _check.choice("distortion", self.distortion, TASKS)
        _check.choice("model", self.model, TASKS[self.distortion].models)
        _check.choice("transform", self.transform, FAMILIES)
        _check.choice("precision", self.precision, get_args(PRECISIONS))
        for name in ("epochs", "batch_size", "draws", "devices"):
            _check.at_least(name, getattr(self, name), 1)
        for name in ("lr", "localization_lr"):
            _check.positive(name, getattr(self, name))
        for name in ("weight_decay", "clip_norm", "identity_weight", "off_image_weight"):
            _check.not_negative(name, getattr(self, name))
        for name in ("averaging", "label_smoothing"):
            _check.share(name, getattr(self, name), 1)
        _check.divisible("batch_size", self.batch_size, self.devices)
        if self.label_smoothing and TASKS[self.distortion].loss is not cross_entropy:
            _check.fail(f"label_smoothing must be 0 where letters have no fixed place, as in {self.distortion!r}")

    @property
    def name(self) -> str:
        transform = f"-{self.transform}" if "st" in self.model else ""
        return f"{self.data}-{self.distortion}-{self.model}{transform}-seed{self.seed}"

    def to_json(self) -> dict[str, Any]:
        values = dataclasses.asdict(self)
        return values | {"root": None if self.root is None else str(self.root)}

    @staticmethod
    def from_json(values: dict[str, Any]) -> Run:
        """Raises: InputError for a key that is no setting of a run."""
        _check.unknown("settings of a run", values, (field.name for field in dataclasses.fields(Run)))
        root = values.get("root")
        return Run(**values | {"root": None if root is None else Path(root)})

    def differences(self, other: Run) -> dict[str, tuple[object, object]]:
        """Settings in which two runs differ: name -> (here, there)."""
        pairs = {f.name: (getattr(self, f.name), getattr(other, f.name)) for f in dataclasses.fields(self)}
        return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


@dataclass(frozen=True)
class Cell:
    """One number of a paper's table: what to run for it, and what the paper has."""

    row: str
    column: str
    run: Run
    paper: float
    """Error in percent."""
    baseline: str = ""
    """Name of the cell that has the same classifier without a transformer."""

    @property
    def name(self) -> str:
        """Such as st-cnn-affine/rts."""
        return f"{self.row}/{self.column}".lower().replace(" ", "-")


@dataclass(frozen=True)
class Table:
    """A table of a paper."""

    title: str
    cells: tuple[Cell, ...]
    recipe: str
    """How the networks are trained, in words."""
    quick: int
    """By how much the quick budget divides the epochs."""


# Jaderberg et al. 2015, table 1: test error in percent. The last column is from the text of its section 4.1.
_COLUMNS = ("r", "rts", "p", "e", "tc")
_PAPER = {
    ("fcn", ""): (2.1, 5.2, 3.1, 3.2, 13.2),
    ("cnn", ""): (1.2, 0.8, 1.5, 1.4, 3.5),
    ("st-fcn", "affine"): (1.2, 0.8, 1.5, 2.7, 2.0),
    ("st-fcn", "projective"): (1.3, 0.9, 1.4, 2.6),
    ("st-fcn", "tps"): (1.1, 0.8, 1.4, 2.4),
    ("st-cnn", "affine"): (0.7, 0.5, 0.8, 1.2, 1.7),
    ("st-cnn", "projective"): (0.8, 0.6, 0.8, 1.3),
    ("st-cnn", "tps"): (0.7, 0.5, 0.8, 1.1),
}
# Chosen on held-out training images. A network without convolutions is cheap, and learns from more passes.
_RECIPE = Run(
    data="mnist", precision="bf16-mixed", averaging=0.998, clip_norm=1.0, localization_lr=3e-3, label_smoothing=0.1
)
_RECIPES = {
    ("cnn", ""): dataclasses.replace(_RECIPE, epochs=36, batch_size=256),
    ("cnn", "tc"): dataclasses.replace(_RECIPE, epochs=18, batch_size=256),  # four times the pixels
    ("fcn", ""): dataclasses.replace(_RECIPE, epochs=140, batch_size=512),
}


def _table1() -> Iterator[Cell]:
    for (model, transform), errors in _PAPER.items():
        for column, error in zip(_COLUMNS, errors, strict=False):
            classifier = model.removeprefix("st-")
            recipe = _RECIPES.get((classifier, column), _RECIPES[classifier, ""])
            run = dataclasses.replace(recipe, model=model, distortion=column, transform=transform or recipe.transform)
            row = model.upper() + (f" {transform}" if transform else "")
            yield Cell(row, column.upper(), run, error, f"{classifier}/{column}" if transform else "")


_TABLE1 = Table(
    "Jaderberg et al. 2015, table 1: distorted MNIST, test error in %",
    tuple(_table1()),
    recipe="The paper's networks, at most 400,000 parameters each, with batch norm after convolutions and hidden layers "
    "(but in the fully connected localisation). AdamW, one cycle of the learning rate, gradients clipped to a norm of 1, "
    "labels smoothed by 0.1, a running mean of the weights, products in bfloat16; no dropout, no ensemble. The paper took "
    "150,000 steps of SGD.",
    quick=6,
)
TABLES = {"table1": _TABLE1}
