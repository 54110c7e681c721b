"""Registration: find the warp that aligns one image with another, from coarse to fine."""

from stn.registration.fit import register
from stn.registration.losses import LOSSES, LocalCorrelation
from stn.registration.result import Registration, Stage

__all__ = ["LOSSES", "LocalCorrelation", "Registration", "Stage", "register"]
