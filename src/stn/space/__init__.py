"""Physical space: the place of an image in millimeters, and files of transforms and volumes that keep it."""

from stn.space.geometry import Space
from stn.space.itk import read_itk, write_itk
from stn.space.nifti import Volume, read_nifti, write_nifti

__all__ = ["Space", "Volume", "read_itk", "read_nifti", "write_itk", "write_nifti"]
