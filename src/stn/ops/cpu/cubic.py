"""Cubic kernels, of four taps an axis: forward, and both gradients."""

from __future__ import annotations

from stn.ops.cpu.compiling import merged
from stn.ops.cpu.cubic_pixels import blend_tile_pixels, scatter_tile_pixels, slope_tile_pixels
from stn.ops.cpu.cubic_planes import blend_tile_planes, scatter_tile_planes, slope_tile_planes
from stn.ops.cpu.tapped import tapped_coordinates, tapped_forward, tapped_image

# ---- the bodies of kernels, see `kernels.py` ----


@merged
def cubic_forward_planes(call, memory, chunk):
    tapped_forward(blend_tile_planes, call.cubic, memory.taps, call, memory, chunk)


@merged
def cubic_forward_pixels(call, memory, chunk):
    tapped_forward(blend_tile_pixels, call.cubic, memory.taps, call, memory, chunk)


@merged
def cubic_coordinates_planes(call, memory, chunk):
    tapped_coordinates(slope_tile_planes, call.cubic, memory.taps, call, memory, chunk)


@merged
def cubic_coordinates_pixels(call, memory, chunk):
    tapped_coordinates(slope_tile_pixels, call.cubic, memory.taps, call, memory, chunk)


@merged
def cubic_image_planes(call, memory, chunk):
    tapped_image(scatter_tile_planes, call.cubic, memory.taps, call, memory, chunk)


@merged
def cubic_image_pixels(call, memory, chunk):
    tapped_image(scatter_tile_pixels, call.cubic, memory.taps, call, memory, chunk)
