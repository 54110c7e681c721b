"""Operators: tensors in, tensors out. They know coordinate rules (matrix, field), not transform families."""

from stn.ops.sample import affine_sample, grid_sample, projective_sample, spatial_transformer_network

__all__ = ["affine_sample", "grid_sample", "projective_sample", "spatial_transformer_network"]
