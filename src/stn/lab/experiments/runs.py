"""Runs as data: everything that decides the outcome of a training, frozen."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from tyro.conf import arg

from stn import _check
from stn.lab import _check as lab_check
from stn.lab.data import COPIES
from stn.lab.experiments.tasks import TASKS, cross_entropy
from stn.transforms import FAMILIES

OPTIMIZER = Literal["adamw", "muon"]
PRECISIONS = Literal["auto", "32-true", "bf16-mixed", "16-mixed"]
ACCELERATORS = Literal["auto", "cpu", "cuda", "mps"]
MOVABLE = ("root", "download", "accelerator", "devices")  # settings that may differ when a run is resumed


_MODELS = dict.fromkeys(model for task in TASKS.values() for model in task.models)


def _one_of(names: Iterable[str]) -> str:
    """How the command line's help lists what a setting may be."""
    return "{" + ",".join(names) + "}"


_DISTORTION = arg(
    metavar=_one_of(TASKS),
    help="What is made of digits: r (rotated), rts (rotated, scaled, translated in 42x42), p (projective), e "
    "(elastic), tc (cluttered 60x60), moved and moved_cluttered (a little), addition, pairs, strings, extruded "
    "(to volumes of 60^3), perturbed_56 (and what is around it), curved (strings on an arc, in perspective). "
    "Of photographs: numbers (svhn as it is), birds (random views of cub).",
)
_MODEL = arg(
    metavar=_one_of(_MODELS),
    help="fcn, cnn, st-fcn or st-cnn: the paper's networks, with and without a spatial transformer. Addition: also "
    "2xst-fcn; pairs: look, 2xlook; strings: cnn, st-cnn-single, st-cnn-multi; perturbed: cnn, st-cnn, "
    "ic-stn-1, -2, -4; curved: crnn, st-crnn; numbers: as strings; birds: cnn, 2xst-cnn, 4xst-cnn.",
)
_HELD_OUT = arg(
    help="Training images that are kept for the validation error, at most: as many as the data set holds out, or "
    "fewer. With few, a recipe that is chosen learns from nearly all.",
)
_PRECISION = arg(
    help="Of the arithmetic; theta and all coordinates keep 32 bits or more. auto: products in bfloat16 where the "
    "device has them, or else all in float32.",
)
_DEVICE = arg(name="device", aliases=("--accelerator",), metavar=_one_of(get_args(ACCELERATORS)))


@dataclass(frozen=True)
class Run:
    """One training, from its data to its seed. Two equal runs on the same machine give the same rows."""

    data: Annotated[str, arg(metavar=_one_of(COPIES))] = "digits"
    """digits (bundled with scikit-learn), or files in --root: mnist, svhn (house numbers), cub (birds)."""
    root: Annotated[Path | None, arg(metavar="DIR", help_behavior_hint="")] = None
    """Folder of the data files."""
    download: Annotated[bool, arg(help_behavior_hint="")] = False
    """Fetch data files that are missing from --root."""
    distortion: Annotated[str, _DISTORTION] = "rts"
    model: Annotated[str, _MODEL] = "st-cnn"
    transform: Annotated[str, arg(metavar=_one_of(FAMILIES))] = "affine"
    """What the layer learns. (curved: always tps; pairs and birds: always attention.)"""
    held_out: Annotated[int, _HELD_OUT] = 5000
    epochs: int = 6
    """Passes over the training images, each one distorted anew (digits: ten times a pass)."""
    batch_size: int = 128
    """Images a step, over all devices."""
    optimizer: OPTIMIZER = "adamw"
    """adamw; or muon for the weights of hidden layers, and adamw for the rest."""
    lr: float = 3e-3
    """Peak learning rate (one cycle)."""
    localization_lr: float = 1e-3
    """Peak learning rate of the localization network and its regression."""
    weight_decay: float = 1e-2
    """Of all weights but the regression to theta."""
    label_smoothing: float = 0.0
    """Share of the target that is spread over all classes."""
    dropout: float = 0.0
    """Share of the units of hidden dense layers that each step leaves out."""
    clip_norm: float = 0.0
    """Norm to which the gradient of all weights together is clipped; 0: not at all."""
    averaging: float = 0.0
    """The weights that are evaluated and kept are a running mean, of which each step keeps this share; 0: the last ones."""
    identity_weight: float = 0.0
    """Weight in the loss of how far a look moves points from where it starts (`stn.nn.identity_loss`)."""
    off_image_weight: float = 0.0
    """Weight in the loss of how far a look reaches beyond the image (`stn.off_image_loss`)."""
    seed: int = 0
    """Of the initial weights, the order of the images and their distortions."""
    draws: int = 3
    """Independent distortions of the test set, for its mean error and spread."""
    precision: Annotated[PRECISIONS, _PRECISION] = "32-true"
    accelerator: Annotated[str, _DEVICE] = "auto"
    """Where to compute."""
    devices: int = 1
    """How many of them (data-parallel)."""

    def __post_init__(self) -> None:
        _check.choice("data", self.data, COPIES)
        _check.choice("distortion", self.distortion, TASKS)
        _check.choice("data", self.data, TASKS[self.distortion].data)
        _check.choice("model", self.model, TASKS[self.distortion].models)
        _check.choice("transform", self.transform, FAMILIES)
        _check.choice("optimizer", self.optimizer, get_args(OPTIMIZER))
        _check.choice("precision", self.precision, get_args(PRECISIONS))
        _check.choice("accelerator", self.accelerator, get_args(ACCELERATORS))
        lab_check.seed("seed", self.seed)
        for name in ("held_out", "epochs", "batch_size", "draws", "devices"):
            _check.at_least(name, getattr(self, name), 1)
        for name in ("lr", "localization_lr"):
            _check.positive(name, getattr(self, name))
            _check.finite_number(name, getattr(self, name))
        for name in ("weight_decay", "clip_norm", "identity_weight", "off_image_weight"):
            _check.not_negative(name, getattr(self, name))
            _check.finite_number(name, getattr(self, name))
        for name in ("averaging", "dropout", "label_smoothing"):
            _check.share(name, getattr(self, name), 1)
        lab_check.divisible("batch_size", self.batch_size, self.devices)
        if self.label_smoothing and TASKS[self.distortion].loss is not cross_entropy:
            _check.fail(f"label_smoothing must be 0 where letters have no fixed place, as in {self.distortion!r}")

    @property
    def name(self) -> str:
        transform = f"-{self.transform}" if "st" in self.model else ""
        return f"{self.data}-{self.distortion}-{self.model}{transform}-seed{self.seed}"

    @property
    def family(self) -> str:
        """What the layer learns: as the run says, or what its task has fixed."""
        return TASKS[self.distortion].family or self.transform

    @property
    def label(self) -> str:
        """The name for people: with the family that runs. (`name` is that of folders, which keep theirs.)"""
        transform = f"-{self.family}" if "st" in self.model or "look" in self.model else ""
        return f"{self.data}-{self.distortion}-{self.model}{transform}-seed{self.seed}"

    def to_json(self) -> dict[str, Any]:
        values = dataclasses.asdict(self)
        return values | {"root": None if self.root is None else str(self.root)}

    @staticmethod
    def from_json(values: dict[str, Any]) -> Run:
        """Raises: InputError for a key that is no setting of a run."""
        _check.unknown("settings of a run", values, (field.name for field in dataclasses.fields(Run)))
        for field in dataclasses.fields(Run):
            if field.name in values and field.name != "root":
                lab_check.kind(field.name, values[field.name], field.default)
        root = values.get("root")
        if root is not None:
            lab_check.kind("root", root, "")
        return Run(**values | {"root": None if root is None else Path(root)})

    def differences(self, other: Run) -> dict[str, tuple[object, object]]:
        """Settings in which the outcomes of two runs differ: name -> (here, there). Data and devices may move."""
        names = [field.name for field in dataclasses.fields(self) if field.name not in MOVABLE]
        pairs = {name: (getattr(self, name), getattr(other, name)) for name in names}
        return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
