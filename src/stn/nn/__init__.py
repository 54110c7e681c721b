"""Layers: localization networks, the spatial transformer, and losses."""

from stn.nn.base import AbstractSpatialTransformer, ParamGroup, param_groups
from stn.nn.diagnostics import identity_loss, look_diagnostics
from stn.nn.localization import DenseLocalization, DigitLocalization, PhotoLocalization, SignalLocalization, localization_for
from stn.nn.losses import off_image_loss
from stn.nn.recurrent import InverseCompositionalTransformer
from stn.nn.regression import ThetaRegression
from stn.nn.transformer import SpatialTransformer
from stn.nn.trunk import SharedTrunkTransformer

__all__ = [
    "AbstractSpatialTransformer",
    "DenseLocalization",
    "DigitLocalization",
    "InverseCompositionalTransformer",
    "ParamGroup",
    "PhotoLocalization",
    "SharedTrunkTransformer",
    "SignalLocalization",
    "SpatialTransformer",
    "ThetaRegression",
    "identity_loss",
    "localization_for",
    "look_diagnostics",
    "off_image_loss",
    "param_groups",
]
