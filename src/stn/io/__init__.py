"""Conversion of arrays, PIL images and image files to tensors and back, and safe writing of files."""

from stn.io.arrays import to_images
from stn.io.images import read_picture, write_picture

__all__ = ["read_picture", "to_images", "write_picture"]
