"""Coordinate rules: the sampling point in the image for each pixel of the output.

A new rule is a file here and an entry of RULES. The reference, the registry of torch and anti-aliasing then support it. The
kernels of a device support it after they implement its numbers and its `kernels` lists the device.
"""

from stn.ops.rules.base import Rule
from stn.ops.rules.field import PIXELS, Field, stored
from stn.ops.rules.lattice import Lattice
from stn.ops.rules.matrix import Matrix
from stn.ops.rules.spline import Spline

RULES: tuple[type[Rule], ...] = (Matrix, Spline, Field, Lattice)

__all__ = ["PIXELS", "RULES", "Field", "Lattice", "Matrix", "Rule", "Spline", "stored"]
