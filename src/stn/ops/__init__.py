"""Operators: tensors in, tensors out. They know coordinate rules (matrix, basis, field), not transform families."""

from stn.ops import library as library  # registers the operators with torch
from stn.ops.attention import multi_scale_deformable_attention
from stn.ops.flows import library as _flow_library  # noqa: F401  # likewise
from stn.ops.interpolation import Kernel
from stn.ops.points import sample_points
from stn.ops.pyramid import Pyramid
from stn.ops.sample import affine_sample, grid_sample, projective_sample, spatial_transformer_network, thin_plate_sample

__all__ = [
    "Kernel",
    "Pyramid",
    "affine_sample",
    "grid_sample",
    "multi_scale_deformable_attention",
    "projective_sample",
    "sample_points",
    "spatial_transformer_network",
    "thin_plate_sample",
]
