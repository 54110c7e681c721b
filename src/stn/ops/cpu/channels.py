"""The channels of one pixel as vectors: they lie side by side, if channels come last."""

from __future__ import annotations

from typing import Any

from numba import types
from numba.extending import intrinsic

from stn.ops.cpu.lanes import INT64, LANES, Code, Lanes, blend, blend_known, slope


def blend_channel_lanes(ndim: int) -> Any:
    """out[to + c] = image[at + c], c < count, blended with its right, lower (`down`) and deep taps by fractions x, y, z."""

    @intrinsic
    def blend_channels(typing, image, at, right, down, deep, x, y, z, out, to, count):
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            code = Code(context, builder, signature, arguments)
            _, at, right, down, deep, x, y, z, _, to, count = arguments
            x, y, z = code.broadcast(x), code.broadcast(y), code.broadcast(z)
            planes = code.corners(at, right, down, deep)

            def blended(load: Any) -> Lanes:
                taps = [[load(0, corner) for corner in plane] for plane in planes[: ndim - 1]]
                return blend_known(x, y, z, code.one, taps)

            # A masked store is slow on half of the CPUs.
            with builder.if_else(builder.icmp_signed(">=", count, INT64(LANES))) as (whole, part):
                with whole:
                    code.store(blended(code.load), 8, to)
                with part:
                    mask = code.mask(count)
                    code.masked_store(blended(lambda k, at: code.masked_load(k, at, mask)), 8, to, mask)
            return context.get_dummy_value()

        return types.void(image, at, right, down, deep, x, y, z, out, to, count), generate

    return blend_channels


FEW = 4  # channels at most of an image whose pixels are blended by vectors of four


def blend_few_lanes(ndim: int) -> Any:
    """Do the same for n <= FEW channels. Unless the pixel is the last, the numbers behind it in `out` may be overwritten."""

    @intrinsic
    def blend_few(typing, image, at, right, down, deep, x, y, z, out, to, n, is_last):
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            code = Code(context, builder, signature, arguments)
            _, at, right, down, deep, x, y, z, _, to, n, is_last = arguments
            x, y, z, one = (code.broadcast(number, FEW) for number in (x, y, z, code.real(1.0)))
            mask, planes = code.mask(n, FEW), code.corners(at, right, down, deep)
            taps = [[code.masked_load(0, corner, mask) for corner in plane] for plane in planes[: ndim - 1]]
            value = blend_known(x, y, z, one, taps)
            # A masked store is slow on half of the CPUs.
            with builder.if_else(is_last) as (masked, plain):
                with masked:
                    code.masked_store(value, 8, to, mask)
                with plain:
                    code.store(value, 8, to)
            return context.get_dummy_value()

        return types.void(image, at, right, down, deep, x, y, z, out, to, n, is_last), generate

    return blend_few


def slope_channel_lanes(ndim: int) -> Any:
    """The sum over c < count of grad[to + c] times the derivatives of the same, in x, y, z."""

    @intrinsic
    def slope_channels(typing, image, at, right, down, deep, x, y, z, grad, to, count):
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            code = Code(context, builder, signature, arguments)
            _, at, right, down, deep, x, y, z, _, to, count = arguments
            x, y, z, one = code.broadcast(x), code.broadcast(y), code.broadcast(z), code.one

            def terms(c: Any, mask: Any) -> list[Lanes]:
                g = code.masked_load(8, builder.add(to, c), mask)
                planes = code.corners(builder.add(at, c), right, down, deep)
                near, *far = ([code.masked_load(0, corner, mask) for corner in plane] for plane in planes[: ndim - 1])
                derivatives = slope(x, y, one, *near)
                if far:
                    pairs = zip(derivatives, slope(x, y, one, *far[0]), strict=True)
                    across = blend(x, y, one, *far[0]) - blend(x, y, one, *near)
                    derivatives = *((one - z) * a + z * b for a, b in pairs), across
                return [g * derivative for derivative in derivatives]

            return context.make_tuple(builder, signature.return_type, code.sums(count, terms))

        real = types.UniTuple(image.dtype, 3)
        return real(image, at, right, down, deep, x, y, z, grad, to, count), generate

    return slope_channels


blend_channels_plane, blend_channels_volume = blend_channel_lanes(2), blend_channel_lanes(3)
blend_few_plane, blend_few_volume = blend_few_lanes(2), blend_few_lanes(3)
slope_channels_plane, slope_channels_volume = slope_channel_lanes(2), slope_channel_lanes(3)


@intrinsic
def add_channels(typing, target, at, weight, grad, to):
    """numbers[at + c] += weight grad[to + c], c < LANES."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        code = Code(context, builder, signature, arguments)
        _, at, weight, _, to = arguments
        code.store(code.load(0, at) + code.broadcast(weight) * code.load(3, to), 0, at)
        return context.get_dummy_value()

    return types.void(target, at, weight, grad, to), generate
