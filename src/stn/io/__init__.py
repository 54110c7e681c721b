"""Images from outside as tensors, and back: arrays and PIL images, the modes of pictures, image files, and safe writing."""

from stn.io.arrays import to_images
from stn.io.images import read_picture, write_picture

__all__ = ["read_picture", "to_images", "write_picture"]
