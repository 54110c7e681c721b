"""Transform families. `family(name)` makes one by the name that the command line and the layers use."""

from collections.abc import Callable

from stn import _check
from stn.transforms.base import Family
from stn.transforms.linear import Affine, Attention, Projective, Rigid, Similarity, Translation
from stn.transforms.spline import ThinPlateSpline
from stn.transforms.warp import Warp

FAMILIES: dict[str, Callable[[int], Family]] = {  # name -> family of that many dimensions
    "translation": Translation,
    "rigid": Rigid,
    "similarity": Similarity,
    "attention": Attention,
    "affine": Affine,
    "projective": Projective,
    "tps": ThinPlateSpline,
}


def family(name: str | Family, ndim: int = 2) -> Family:
    """The family of this name with its default settings; a family is handed through."""
    if isinstance(name, Family):
        return name
    _check.choice("transform", name, FAMILIES)
    return FAMILIES[name](ndim)


__all__ = [
    "FAMILIES",
    "Affine",
    "Attention",
    "Family",
    "Projective",
    "Rigid",
    "Similarity",
    "ThinPlateSpline",
    "Translation",
    "Warp",
    "family",
]
