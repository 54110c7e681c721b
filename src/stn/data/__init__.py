"""Readers and distortions. `load(name, root)` gives a data set by the name that the command line uses."""

from pathlib import Path

from stn import _check
from stn.data.cub import load_cub
from stn.data.digits import load_digits
from stn.data.distort import DISTORTIONS, Distortion
from stn.data.mnist import load_mnist
from stn.data.scenes import SCENES, Scene
from stn.data.splits import Labelled, Splits, as_float
from stn.data.svhn import load_svhn, load_svhn_cropped

COPIES = {"digits": 10, "mnist": 1}  # distorted copies of each training image in one epoch


def load(name: str, root: Path | str | None = None, *, download: bool = False) -> Splits:
    """The data set "digits" (bundled with scikit-learn) or "mnist" (its files in `root`)."""
    _check.choice("data", name, COPIES)
    if name == "digits":
        return load_digits()
    if root is None:
        _check.fail("root must name the folder of MNIST's files for data='mnist'; got None")
    return load_mnist(root, download=download)


__all__ = [
    "COPIES",
    "DISTORTIONS",
    "Distortion",
    "Labelled",
    "SCENES",
    "Scene",
    "Splits",
    "as_float",
    "load",
    "load_cub",
    "load_digits",
    "load_mnist",
    "load_svhn",
    "load_svhn_cropped",
]
