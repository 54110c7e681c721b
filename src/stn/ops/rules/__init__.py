"""Coordinate rules: for each pixel of the output, where in the image to look.

A new one is a file here, and an entry of RULES: the oracle, torch's registry and anti-aliasing have it then. A device's
kernels do once they know its numbers, and its `kernels` names them.
"""

from stn.ops.rules.base import Rule
from stn.ops.rules.field import PIXELS, Field, stored
from stn.ops.rules.matrix import Matrix
from stn.ops.rules.spline import Spline

RULES: tuple[type[Rule], ...] = (Matrix, Spline, Field)

__all__ = ["PIXELS", "RULES", "Field", "Matrix", "Rule", "Spline", "stored"]
