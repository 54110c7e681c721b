"""Registration: the warp under which one image looks like another, found by gradient descent from coarse to fine."""

from stn.registration.fit import Registration, register
from stn.registration.losses import LOSSES

__all__ = ["LOSSES", "Registration", "register"]
