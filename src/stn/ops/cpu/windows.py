"""Kernels with a table, of any number of taps: forward, and both gradients."""

from __future__ import annotations

from stn.ops.cpu.compiling import merged
from stn.ops.cpu.tapped import tapped_coordinates, tapped_forward, tapped_image
from stn.ops.cpu.window_pixels import blend_window_pixels, scatter_window_pixels, slope_window_pixels
from stn.ops.cpu.window_planes import blend_window_planes, scatter_window_planes, slope_window_planes

# ---- the bodies of kernels, see `kernels.py` ----


@merged
def window_forward_planes(call, memory, chunk):
    tapped_forward(blend_window_planes, call.curve, memory.windows, call, memory, chunk)


@merged
def window_forward_pixels(call, memory, chunk):
    tapped_forward(blend_window_pixels, call.curve, memory.windows, call, memory, chunk)


@merged
def window_coordinates_planes(call, memory, chunk):
    tapped_coordinates(slope_window_planes, call.curve, memory.windows, call, memory, chunk)


@merged
def window_coordinates_pixels(call, memory, chunk):
    tapped_coordinates(slope_window_pixels, call.curve, memory.windows, call, memory, chunk)


@merged
def window_image_planes(call, memory, chunk):
    tapped_image(scatter_window_planes, call.curve, memory.windows, call, memory, chunk)


@merged
def window_image_pixels(call, memory, chunk):
    tapped_image(scatter_window_pixels, call.curve, memory.windows, call, memory, chunk)
