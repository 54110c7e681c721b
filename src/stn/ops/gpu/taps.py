"""The sampling rule in Triton: the pixels that a kernel reaches, their weights, and the derivatives of the weights.

Results per axis are tuples over the taps of that axis. The taps of a pixel are numbered with x varying fastest.
"""

from __future__ import annotations

import triton
import triton.language as tl

from stn.ops import padding, reference

FAR = tl.constexpr(reference.FAR)
ZEROS, REFLECTION, WRAP = (tl.constexpr(code) for code in (padding.ZEROS, padding.REFLECTION, padding.WRAP))


@triton.jit
def fractions(x, REAL: tl.constexpr, HOW: tl.constexpr):
    """Return floor(x) as int32 (round(x) for one tap), the rest, and 1, or 0 if x was clamped. The last two keep NaN."""
    known = tl.minimum(tl.maximum(tl.where(x == x, x, 0.0), -FAR), FAR)
    base = tl.floor(known)
    if HOW.taps == 1:  # halves round to the even pixel
        rest = known - base
        odd = (base.to(tl.int32) & 1) == 1
        base = tl.where((rest > 0.5) | ((rest == 0.5) & odd), base + 1.0, base)
    moves = tl.where(tl.abs(x) <= FAR, 1.0, 0.0)
    rest = tl.where(x == x, known - base, x)
    return base.to(tl.int32), rest.to(REAL), tl.where(x == x, moves, x).to(REAL)


@triton.jit
def remainder(i, n):
    """Return i modulo n in 0 .. n-1. Triton's % has the sign of i."""
    rest = i % n
    return tl.where(rest < 0, rest + n, rest)


@triton.jit
def padded(i, n, HOW: tl.constexpr):
    """Return the pixel of the image that replaces pixel i of the plane."""
    if HOW.padding == REFLECTION:
        if HOW.align_corners:
            period = tl.maximum(2 * n - 2, 1)
            i = remainder(i, period)
            return tl.minimum(i, period - i)
        else:
            i = remainder(i, 2 * n)
            return tl.minimum(i, 2 * n - 1 - i)
    elif HOW.padding == WRAP:
        return remainder(i, n)
    else:
        return tl.minimum(tl.maximum(i, 0), n - 1)


@triton.jit
def axis_tap(first, k, n, HOW: tl.constexpr):
    """Return the pixel of tap k after padding, and whether the tap was inside."""
    i = first + k
    if HOW.taps == 4:
        i -= 1
    return padded(i, n, HOW), (i >= 0) & (i < n) if HOW.padding == ZEROS else i == i


@triton.jit
def near(s, a: tl.constexpr):  # |s| <= 1
    return ((a + 2) * s - (a + 3)) * s * s + 1


@triton.jit
def far(s, a: tl.constexpr):  # 1 <= |s| <= 2
    return ((a * s - 5 * a) * s + 8 * a) * s - 4 * a


@triton.jit
def near_slope(s, a: tl.constexpr):
    return (3 * (a + 2) * s - 2 * (a + 3)) * s


@triton.jit
def far_slope(s, a: tl.constexpr):
    return (3 * a * s - 10 * a) * s + 8 * a


@triton.jit
def weights_of(t, HOW: tl.constexpr):
    """Return the weights of the taps along one axis. For four taps: Keys 1981, eq. 4."""
    if HOW.taps == 1:
        return (1.0 + 0.0 * t,)
    elif HOW.taps == 2:
        return 1.0 - t, t
    else:
        a: tl.constexpr = HOW.sharpness
        return far(t + 1.0, a), near(t, a), near(1.0 - t, a), far(2.0 - t, a)


@triton.jit
def slopes_of(t, moves, HOW: tl.constexpr):
    """Return the derivatives of the weights in the coordinate."""
    if HOW.taps == 2:
        return -moves, moves
    else:
        a: tl.constexpr = HOW.sharpness
        left = moves * far_slope(t + 1.0, a), moves * near_slope(t, a)
        return left + (-moves * near_slope(1.0 - t, a), -moves * far_slope(2.0 - t, a))


@triton.jit
def find_taps(pixels, size, strides, HOW: tl.constexpr):
    """For each axis of the first pixels, int32 (P,), return the offsets of the taps and whether they are inside, (P, 1)."""
    offsets, insides = (), ()
    for i in tl.static_range(HOW.ndim):
        steps, inside = (), ()
        for k in tl.static_range(HOW.taps):
            there, known = axis_tap(pixels[i][:, None], k, size[i], HOW)
            if HOW.wide:
                there = there.to(tl.int64)
            steps, inside = steps + (there * strides[2 - i],), inside + (known,)
        offsets, insides = offsets + (steps,), insides + (inside,)
    return offsets, insides


@triton.jit
def columns(rows, HOW: tl.constexpr):
    """Return (P, 1) for each (P,)."""
    found = ()
    for i in tl.static_range(HOW.ndim):
        found += (rows[i][:, None],)
    return found


@triton.jit
def place_of(offset, read, BLOCK: tl.constexpr):
    """Return the offset of a tap, or -1 where it is not read, which needs one register less than a mask.

    A block of several channels keeps the offset, because loads of 16 bytes need its alignment.
    """
    return tl.where(read, offset, -1) if BLOCK.channels == 1 else offset


@triton.jit
def is_read(place, read, wanted, BLOCK: tl.constexpr):
    """Return the mask of a tap, (P, 1), or (P, C) if some channels do not exist."""
    if BLOCK.channels == 1:
        return place >= 0
    else:
        return read if BLOCK.even else read & wanted


@triton.jit
def places(offsets, insides, wanted, HOW: tl.constexpr, BLOCK: tl.constexpr):
    """Return the place of each tap, and whether it is inside."""
    found, reads = (), ()
    for number in tl.static_range(HOW.taps**HOW.ndim):
        read = wanted & tap_inside(insides, number, HOW)
        found, reads = found + (place_of(tap_offset(offsets, number, HOW), read, BLOCK),), reads + (read,)
    return found, reads


@triton.jit
def blends(offsets, insides, weights, wanted, HOW: tl.constexpr, BLOCK: tl.constexpr):
    """Return place, mask and weight of each tap, and the sum of the weights that fall on padding by a value.

    A tap of weight 0 is not read, because the image may hold NaN or infinity there.
    """
    found, reads, by, rest = (), (), (), tl.zeros_like(weights[0][0])
    for number in tl.static_range(HOW.taps**HOW.ndim):
        weight, inside = tap_weight(weights, number, HOW), tap_inside(insides, number, HOW)
        read = wanted & inside & (weight != 0.0)
        found, reads = found + (place_of(tap_offset(offsets, number, HOW), read, BLOCK),), reads + (read,)
        by += (weight,)
        if HOW.padding == ZEROS:
            rest += tl.where(inside, 0.0, weight)
    return found, reads, by, rest


@triton.jit
def weights_along(rests, HOW: tl.constexpr):
    """Return `weights_of` for each axis."""
    weights = ()
    for i in tl.static_range(HOW.ndim):
        weights += (weights_of(rests[i], HOW),)
    return weights


@triton.jit
def tap_offset(offsets, number: tl.constexpr, HOW: tl.constexpr):
    T: tl.constexpr = HOW.taps
    at = offsets[0][number % T] + offsets[1][number // T % T]
    if HOW.ndim == 3:
        at += offsets[2][number // (T * T)]
    return at


@triton.jit
def tap_inside(insides, number: tl.constexpr, HOW: tl.constexpr):
    T: tl.constexpr = HOW.taps
    inside = insides[0][number % T] & insides[1][number // T % T]
    if HOW.ndim == 3:
        inside &= insides[2][number // (T * T)]
    return inside


@triton.jit
def tap_weight(weights, number: tl.constexpr, HOW: tl.constexpr):
    T: tl.constexpr = HOW.taps
    weight = weights[0][number % T] * weights[1][number // T % T]
    if HOW.ndim == 3:
        weight = weight * weights[2][number // (T * T)]
    return weight
