"""Registration: find the warp that aligns one image with another, by gradient descent from coarse to fine."""

from stn.registration.fit import Registration, register
from stn.registration.losses import LOSSES

__all__ = ["LOSSES", "Registration", "register"]
