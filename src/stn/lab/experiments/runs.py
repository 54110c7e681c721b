"""Runs as frozen data: all settings that determine the result of a training."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from tyro.conf import arg

from stn import _check
from stn.lab import _check as lab_check
from stn.lab.experiments.tasks import TASKS, cross_entropy
from stn.transforms import FAMILIES

OPTIMIZER = Literal["adamw", "muon"]
PRECISIONS = Literal["auto", "32-true", "bf16-mixed", "16-mixed"]
ACCELERATORS = Literal["auto", "cpu", "cuda", "mps"]
MOVABLE = ("root", "download", "accelerator", "devices")  # settings that may differ when a run is resumed


_DATA = dict.fromkeys(data for task in TASKS.values() for data in task.data)
_MODELS = dict.fromkeys(model for task in TASKS.values() for model in task.models)


def _one_of(names: Iterable[str]) -> str:
    """Format the choices of a setting for the help of the command line."""
    return "{" + ",".join(names) + "}"


_DISTORTION = arg(
    metavar=_one_of(TASKS),
    help="Task made from digits: none (undistorted), r (rotated), rts (rotated, scaled, translated in 42x42), p "
    "(projective), e (elastic), tc (translated in clutter, 60x60), moved and moved_cluttered (slightly translated), "
    "addition, pairs, strings, extruded (volumes of 60x60x60), extruded_32 (32x32x32), perturbed (projective, 28x28), "
    "perturbed_56 (the same with its surroundings, 56x56), curved (strings on an arc, in perspective). Made from "
    "photographs: numbers (svhn, unchanged), birds (random crops of cub), signs (gtsrb, in random views; evaluated "
    "unchanged).",
)
_MODEL = arg(
    metavar=_one_of(_MODELS),
    help="Network. fcn, cnn, st-fcn and st-cnn are those of the paper, without and with a spatial transformer. For "
    "addition also 2xst-fcn; for pairs look, 2xlook; for strings, numbers and signs cnn, st-cnn-single, st-cnn-multi; for "
    "perturbed cnn, st-cnn, ic-stn-1, -2, -4; for curved crnn, st-crnn; for birds cnn, 2xst-cnn, 4xst-cnn.",
)
_HELD_OUT = arg(
    help="Largest number of training images held out for the validation error. The data set sets an upper limit. A small "
    "number leaves nearly all images for training.",
)
_PRECISION = arg(
    help="Precision of the arithmetic; theta and all coordinates have at least 32 bits. auto: matrix products in "
    "bfloat16 if the device supports it, otherwise float32.",
)
_DEVICE = arg(name="device", aliases=("--accelerator",), metavar=_one_of(get_args(ACCELERATORS)))


@dataclass(frozen=True)
class Run:
    """One training, from its data to its seed. Two equal runs on the same machine give the same rows."""

    data: Annotated[str, arg(metavar=_one_of(_DATA))] = "digits"
    """digits (bundled with scikit-learn), or files in --root: mnist, svhn (numbers), cub (birds), gtsrb (traffic signs)."""
    root: Annotated[Path | None, arg(metavar="DIR", help_behavior_hint="")] = None
    """Folder of the data files."""
    download: Annotated[bool, arg(help_behavior_hint="")] = False
    """Download data files that are missing in --root."""
    distortion: Annotated[str, _DISTORTION] = "rts"
    model: Annotated[str, _MODEL] = "st-cnn"
    transform: Annotated[str, arg(metavar=_one_of(FAMILIES))] = "affine"
    """Transform family of the layer. (curved: always tps; pairs and birds: always attention.)"""
    held_out: Annotated[int, _HELD_OUT] = 5000
    epochs: int = 6
    """Passes over the training images, with new distortions each time (digits: ten times per pass)."""
    batch_size: int = 128
    """Images per step, over all devices."""
    optimizer: OPTIMIZER = "adamw"
    """adamw, or muon for the weights of hidden layers and adamw for the rest."""
    lr: float = 3e-3
    """Peak learning rate (one cycle)."""
    localization_lr: float = 1e-3
    """Peak learning rate of the localization network and its regression."""
    weight_decay: float = 1e-2
    """Weight decay of all weights except the regression to theta."""
    label_smoothing: float = 0.0
    """Share of the target probability that is spread over all classes."""
    dropout: float = 0.0
    """Dropout probability in hidden dense layers."""
    clip_norm: float = 0.0
    """Largest norm of the gradient of all weights together; 0: no clipping."""
    averaging: float = 0.0
    """Decay of the running mean of the weights, which is evaluated and saved; 0: use the last weights."""
    identity_weight: float = 0.0
    """Weight of `stn.nn.identity_loss`: the distance between a look and the first look."""
    off_image_weight: float = 0.0
    """Weight of `stn.off_image_loss`: the distance by which a look leaves the image."""
    seed: int = 0
    """Seed of the initial weights, the order of the images and their distortions."""
    draws: int = 3
    """Independent distortions of the test set, for the mean and the spread of the test error."""
    precision: Annotated[PRECISIONS, _PRECISION] = "32-true"
    accelerator: Annotated[str, _DEVICE] = "auto"
    """Device to compute on."""
    devices: int = 1
    """Number of devices (data-parallel)."""

    def __post_init__(self) -> None:
        _check.choice("data", self.data, _DATA)
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
            got = f"{self.label_smoothing!r}"
            _check.fail(f"label_smoothing must be 0 for the loss of distortion={self.distortion!r}; got {got}")

    @property
    def name(self) -> str:
        transform = f"-{self.transform}" if "st" in self.model else ""
        return f"{self.data}-{self.distortion}-{self.model}{transform}-seed{self.seed}"

    @property
    def family(self) -> str:
        """The transform family: fixed by the task, or `transform`."""
        return TASKS[self.distortion].family or self.transform

    @property
    def label(self) -> str:
        """The name for output, with the family that is used. (`name` is for folders, whose names do not change.)"""
        transform = f"-{self.family}" if "st" in self.model or "look" in self.model else ""
        return f"{self.data}-{self.distortion}-{self.model}{transform}-seed{self.seed}"

    def to_json(self) -> dict[str, Any]:
        values = dataclasses.asdict(self)
        return values | {"root": None if self.root is None else str(self.root)}

    @staticmethod
    def from_json(values: dict[str, Any]) -> Run:
        """Build a run from its settings. Raises: InputError for an unknown setting."""
        _check.unknown("settings of a run", values, (field.name for field in dataclasses.fields(Run)))
        for field in dataclasses.fields(Run):
            if field.name in values and field.name != "root":
                lab_check.kind(field.name, values[field.name], field.default)
        root = values.get("root")
        if root is not None:
            lab_check.kind("root", root, "")
        return Run(**values | {"root": None if root is None else Path(root)})

    def differences(self, other: Run) -> dict[str, tuple[object, object]]:
        """Return the settings that change the result and differ: name -> (here, there). Paths and devices may differ."""
        names = [field.name for field in dataclasses.fields(self) if field.name not in MOVABLE]
        pairs = {name: (getattr(self, name), getattr(other, name)) for name in names}
        return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
