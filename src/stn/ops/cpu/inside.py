"""Blocks inside the image as vectors: each pixel has two neighbors along each axis, and a fraction between them."""

from __future__ import annotations

from typing import Any

from numba import types
from numba.extending import intrinsic

from stn.ops.cpu.lanes import INT64, Code, Lanes, blend, blend_known, slope

# ---- intrinsics: i counts the pixels of a tile, whose fractions follow each other axis by axis, `area` apart ----


def blend_lanes(ndim: int) -> Any:
    """out[to + k] = image at offset[i + k] from `at` on, k < count, blended with its right, lower (`down`) and deep taps.

    The same for `planes` channels, which are `apart` in the image and `spread` in the output."""

    @intrinsic
    def blend_pixels(typing, image, at, down, deep, offset, fraction, i, area, out, to, count, planes, apart, spread):
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            code = Code(context, builder, signature, arguments)
            _, at, down, deep, _, _, i, area, _, to, count, planes, apart, spread = arguments
            (x, y, z), offsets, mask = code.axes(ndim, 5, i, area), code.offsets(4, i), code.mask(count)
            with code.each_plane(planes, apart, spread) as (ahead, behind):
                start = builder.add(at, ahead)
                starts = [start, builder.add(start, deep)][: ndim - 1]
                taps = [code.plane_taps(0, start, down, offsets) for start in starts]
                code.masked_store(blend_known(x, y, z, code.one, taps), 8, builder.add(to, behind), mask)
            return context.get_dummy_value()

        given = image, at, down, deep, offset, fraction, i, area, out, to, count, planes, apart, spread
        return types.void(*given), generate

    return blend_pixels


def slope_lanes(ndim: int) -> Any:
    """Add grad[first + k] times the derivatives of the same to gradient[i + k], axis by axis, over all planes."""

    @intrinsic
    def slope_pixels(
        typing, image, at, down, deep, offset, fraction, i, area, grad, first, count, gradient, planes, apart, spread
    ):
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            code = Code(context, builder, signature, arguments)
            _, at, down, deep, _, _, i, area, _, first, count, _, planes, apart, spread = arguments
            (x, y, z), offsets, mask = code.axes(ndim, 5, i, area), code.offsets(4, i), code.mask(count)
            grids = [builder.add(i, builder.mul(area, INT64(axis))) for axis in range(ndim)]
            with code.added(11, grids, mask) as sums, code.each_plane(planes, apart, spread) as (ahead, behind):
                start, g = builder.add(at, ahead), code.masked_load(8, builder.add(first, behind), mask)
                near, one = code.plane_taps(0, start, down, offsets), code.one
                derivatives = slope(x, y, one, *near)
                if ndim == 3:
                    far = code.plane_taps(0, builder.add(start, deep), down, offsets)
                    pairs = zip(derivatives, slope(x, y, one, *far), strict=True)
                    across = blend(x, y, one, *far) - blend(x, y, one, *near)
                    derivatives = *((one - z) * a + z * b for a, b in pairs), across
                for total, derivative in zip(sums, derivatives, strict=True):
                    builder.store((Lanes(builder, builder.load(total)) + g * derivative).value, total)
            return context.get_dummy_value()

        given = image, at, down, deep, offset, fraction, i, area, grad, first, count, gradient, planes, apart, spread
        return types.void(*given), generate

    return slope_pixels


blend_plane, blend_volume = blend_lanes(2), blend_lanes(3)
slope_plane, slope_volume = slope_lanes(2), slope_lanes(3)
