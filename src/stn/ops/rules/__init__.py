"""Coordinate rules: for each pixel of the output, where in the image to look.

A new one is a file here, and an entry of RULES. The oracle serves it then, and each device's kernels once they know its
numbers.
"""

from stn.ops.rules.base import Rule
from stn.ops.rules.field import Field
from stn.ops.rules.matrix import Matrix
from stn.ops.rules.spline import Spline

RULES: tuple[type[Rule], ...] = (Matrix, Spline, Field)

__all__ = ["RULES", "Field", "Matrix", "Rule", "Spline"]
