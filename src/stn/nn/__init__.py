"""Layers: localisation networks and the spatial transformer."""

from stn.nn.localization import DenseLocalization, DigitLocalization, PhotoLocalization, localization_for
from stn.nn.transformer import SpatialTransformer, param_groups

__all__ = [
    "DenseLocalization",
    "DigitLocalization",
    "PhotoLocalization",
    "SpatialTransformer",
    "localization_for",
    "param_groups",
]
