"""Readers and distortions. `load(name, root)` gives a data set by the name that the command line uses."""

import warnings
from collections.abc import Callable
from pathlib import Path

from stn import _check
from stn.lab.data.cub import load_cub, square_pictures
from stn.lab.data.digits import load_digits
from stn.lab.data.distort import DISTORTIONS, Distortion
from stn.lab.data.files import Repairs, describe
from stn.lab.data.gtsrb import download_gtsrb, load_gtsrb, sign_splits
from stn.lab.data.mnist import load_mnist
from stn.lab.data.scenes import SCENES, Scene
from stn.lab.data.splits import Labeled, Splits, as_float
from stn.lab.data.svhn import load_svhn, load_svhn_cropped

COPIES = {"digits": 10, "mnist": 1, "svhn": 1, "cub": 1, "gtsrb": 1}  # distorted copies of each training image in one epoch


def _house_numbers(root: Path | str) -> tuple[Splits, Repairs]:
    return load_svhn(root, extra=(Path(root) / "extra").is_dir())


REPAIRED: dict[str, Callable[[Path | str], tuple[Splits, Repairs]]] = {
    "svhn": _house_numbers,
    "cub": square_pictures,
    "gtsrb": sign_splits,
}


class RepairWarning(UserWarning):
    """A warning: a data set had defects; the message lists the repairs and omissions."""


def load(name: str, root: Path | str | None = None, *, download: bool = False) -> Splits:
    """Load a data set into memory: "digits" (bundled with scikit-learn), or from its files in the folder `root` "mnist",
    "svhn" (numbers, 64x64 crops; extra/ too if it is there), "cub" (birds, 256x256) or "gtsrb" (traffic signs, 32x32).
    Repairs cause a RepairWarning.

    Raises: InputError for a name that is none of these, a missing root, missing or damaged files.
    """
    _check.choice("data", name, COPIES)
    if name == "digits":
        return load_digits()
    if root is None:
        _check.fail(f"root must name the folder of the files of data={name!r}; got None")
    if name == "mnist":
        return load_mnist(root, download=download)
    if download and name == "gtsrb":
        download_gtsrb(root)
    elif download:
        _check.fail(f"download must be False for data={name!r}, whose files cannot be downloaded automatically; got True")
    splits, repairs = REPAIRED[name](root)
    if any(repairs.values()):
        warnings.warn(f"{root}: {describe(repairs)}", RepairWarning, stacklevel=2)
    return splits


__all__ = [
    "COPIES",
    "DISTORTIONS",
    "Distortion",
    "Labeled",
    "RepairWarning",
    "SCENES",
    "Scene",
    "Splits",
    "as_float",
    "download_gtsrb",
    "load",
    "load_cub",
    "load_gtsrb",
    "load_digits",
    "load_mnist",
    "load_svhn",
    "load_svhn_cropped",
]
