"""Transform families. `family(name)` makes one by the name that the command line and the layers use."""

from collections.abc import Callable
from typing import Literal, overload

from stn import _check
from stn.transforms.along import Applied
from stn.transforms.aspect import Aspect
from stn.transforms.base import Family, W
from stn.transforms.bounded import Bounded, bounded
from stn.transforms.boxes import from_boxes, from_corners
from stn.transforms.bspline import BSpline
from stn.transforms.cpab import CPAB
from stn.transforms.field import Displacement
from stn.transforms.fixed import Fixed, fixed
from stn.transforms.homographies import MovedCorners, Projective
from stn.transforms.linear import (
    Affine,
    AnisotropicScale,
    Attention,
    ExponentialAffine,
    Translation,
)
from stn.transforms.load import load_warp
from stn.transforms.matrix import MatrixWarp, from_pixel_matrix
from stn.transforms.splat import splat
from stn.transforms.spline import ThinPlateSpline, text_edges
from stn.transforms.turned import Rigid, Similarity
from stn.transforms.velocity import Velocity
from stn.transforms.warp import InverseWarp, Warp

FAMILIES: dict[str, Callable[[int], Family]] = {  # name -> family of that many dimensions
    "translation": Translation,
    "rigid": Rigid,
    "similarity": Similarity,
    "attention": Attention,
    "anisotropic_scale": AnisotropicScale,
    "affine": Affine,
    "exponential_affine": ExponentialAffine,
    "projective": Projective,
    "corners": MovedCorners,
    "tps": ThinPlateSpline,
    "bspline": BSpline,
    "displacement": Displacement,
    "velocity": Velocity,
    "cpab": CPAB,
}


MatrixName = Literal[
    "translation",
    "rigid",
    "similarity",
    "attention",
    "anisotropic_scale",
    "affine",
    "exponential_affine",
    "projective",
    "corners",
]  # of the families whose warps are matrices, for type checkers


@overload
def family(name: MatrixName, ndim: int = 2, *, aspect: Aspect | None = None) -> Family[MatrixWarp]: ...
@overload
def family(name: Family[W], ndim: int = 2, *, aspect: Aspect | None = None) -> Family[W]: ...
@overload
def family(name: str | Family, ndim: int = 2, *, aspect: Aspect | None = None) -> Family: ...
def family(name: str | Family, ndim: int = 2, *, aspect: Aspect | None = None) -> Family:
    """Make a family by its name, with its default settings.

    Args:
        name: A key of `stn.transforms.FAMILIES`, such as "affine" or "tps". A family is returned as it is.
        ndim: 2, 3 for volumes, or 1 for signals. Ignored if `name` is a family.
        aspect: Shape of the image for families that turn, as in `stn.Rigid`. A family that has one keeps it.

    Returns:
        The family.

    Raises:
        InputError: There is no such name, or the family does not exist in so many dimensions.

    Example:
        >>> stn.transforms.family("affine", ndim=3).num_params
        12
    """
    if not isinstance(name, Family):
        _check.no_class("transform", name)
        _check.choice("transform", name, FAMILIES)
        name = FAMILIES[name](ndim)
    if aspect is None:
        return name
    _check.aspect("aspect", aspect, name.ndim)
    return name.fitted(aspect)


__all__ = [
    "Affine",
    "AnisotropicScale",
    "Applied",
    "Attention",
    "BSpline",
    "Bounded",
    "CPAB",
    "Displacement",
    "ExponentialAffine",
    "FAMILIES",
    "Family",
    "Fixed",
    "InverseWarp",
    "MatrixWarp",
    "MovedCorners",
    "Projective",
    "Rigid",
    "Similarity",
    "ThinPlateSpline",
    "Translation",
    "Velocity",
    "Warp",
    "bounded",
    "family",
    "fixed",
    "from_boxes",
    "from_corners",
    "from_pixel_matrix",
    "load_warp",
    "splat",
    "text_edges",
]
