"""Spatial transformers for PyTorch: layers that learn where to look."""

from stn._check import InputError
from stn.nn import SpatialTransformer, param_groups
from stn.ops import affine_sample, grid_sample, projective_sample, spatial_transformer_network, thin_plate_sample
from stn.transforms import (
    Affine,
    Attention,
    Family,
    Projective,
    Rigid,
    Similarity,
    ThinPlateSpline,
    Translation,
    Warp,
)

__version__ = "0.1.0"
__all__ = [
    "Affine",
    "Attention",
    "Family",
    "InputError",
    "Projective",
    "Rigid",
    "Similarity",
    "SpatialTransformer",
    "ThinPlateSpline",
    "Translation",
    "Warp",
    "affine_sample",
    "grid_sample",
    "param_groups",
    "projective_sample",
    "spatial_transformer_network",
    "thin_plate_sample",
]
