"""Spatial transformers for PyTorch: layers that learn which region of an image to sample."""

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

from stn import export
from stn._check import InputError
from stn.nn import (
    InverseCompositionalTransformer,
    SharedTrunkTransformer,
    SpatialTransformer,
    off_image_loss,
    param_groups,
)
from stn.ops import (
    Kernel,
    Pyramid,
    affine_sample,
    grid_sample,
    multi_scale_deformable_attention,
    projective_sample,
    sample_points,
    spatial_transformer_network,
    thin_plate_sample,
)
from stn.registration import Registration, register
from stn.space import Space, Volume, read_itk, read_nifti, write_itk, write_nifti
from stn.transforms import (
    CPAB,
    Affine,
    AnisotropicScale,
    Applied,
    Attention,
    Bounded,
    BSpline,
    Displacement,
    ExponentialAffine,
    Family,
    Fixed,
    InverseWarp,
    MatrixWarp,
    MovedCorners,
    Projective,
    Rigid,
    Similarity,
    ThinPlateSpline,
    Translation,
    Velocity,
    Warp,
    bounded,
    fixed,
    from_boxes,
    from_corners,
    from_pixel_matrix,
    load_warp,
    splat,
    text_edges,
)

if TYPE_CHECKING:
    from stn import models

__version__ = "0.1.0"
__all__ = [
    "Affine",
    "AnisotropicScale",
    "Applied",
    "Attention",
    "BSpline",
    "Bounded",
    "CPAB",
    "Displacement",
    "ExponentialAffine",
    "Family",
    "Fixed",
    "InputError",
    "InverseCompositionalTransformer",
    "InverseWarp",
    "Kernel",
    "MatrixWarp",
    "MovedCorners",
    "Projective",
    "Pyramid",
    "Registration",
    "Rigid",
    "SharedTrunkTransformer",
    "Similarity",
    "Space",
    "SpatialTransformer",
    "ThinPlateSpline",
    "Translation",
    "Velocity",
    "Volume",
    "Warp",
    "affine_sample",
    "bounded",
    "export",
    "fixed",
    "from_boxes",
    "from_corners",
    "from_pixel_matrix",
    "grid_sample",
    "load_warp",
    "models",
    "multi_scale_deformable_attention",
    "off_image_loss",
    "param_groups",
    "projective_sample",
    "read_itk",
    "read_nifti",
    "register",
    "sample_points",
    "spatial_transformer_network",
    "splat",
    "text_edges",
    "thin_plate_sample",
    "write_itk",
    "write_nifti",
]


def __getattr__(name: str) -> ModuleType:
    """Load `stn.models` on first use."""
    if name != "models":
        raise AttributeError(f"module 'stn' has no attribute {name!r}")
    return importlib.import_module("stn.models")
