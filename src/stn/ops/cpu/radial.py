"""The radial functions of a thin-plate spline over one tile, which all looks of a batch share.

U(r) = r^2 log r in 2-D and r in 3-D, of which a kernel needs one a knot and pixel, and no more often. The logarithm is
written out, because Numba's is a call for each number: 8 ns against 1.
"""

from __future__ import annotations

import numpy as np

from stn.ops.cpu.compiling import NDIM, loop, loop_fused, loop_new

LOG_2 = 0.6931471805599453
ROOT_HALF = 0x3FE6A09E667F3BCD  # the bits of sqrt(1/2)
LEAST = 1e-300  # U(0) = 0


@loop_new
def fill_table(knots, step, u0, u1, u2, width, height, columns, table):
    """table[t, r columns + j] = U(|x - knot_t|) at pixel (j, r) of a tile whose corner is the centered pixel u."""
    if NDIM == 3:
        fill_distances(knots, step, u0, u1, u2, width, height, columns, table)
        return
    squares, exponents, mantissas = np.empty(columns), np.empty(columns), np.empty(columns, np.int64)
    bits, fractions = squares.view(np.int64), mantissas.view(np.float64)
    for t in range(knots.shape[0]):
        for r in range(height):
            down = step[1] * (u1 + r) - knots[t, 1]
            squared_distances(u0, step[0], knots[t, 0], down * down, width, squares)
            decompose(bits, width, exponents, mantissas)
            radial(squares, exponents, fractions, width, t, r * columns, table)


@loop
def fill_distances(knots, step, u0, u1, u2, width, height, columns, table):
    for t in range(knots.shape[0]):
        deep = step[2] * u2 - knots[t, 2]
        for r in range(height):
            down = step[1] * (u1 + r) - knots[t, 1]
            rest, first = down * down + deep * deep, np.uint64(r * columns)
            for j in range(np.uint64(width)):
                across = step[0] * (u0 + np.float64(np.int64(j))) - knots[t, 0]
                table[t, first + j] = np.sqrt(across * across + rest)


@loop
def squared_distances(u, step, x, down, width, squares):
    for j in range(np.uint64(width)):
        across = step * (u + np.float64(np.int64(j))) - x
        squares[j] = across * across + (down if down > LEAST else LEAST)


@loop
def decompose(bits, width, exponents, mantissas):
    """Numbers as m 2^e with m between sqrt(1/2) and sqrt(2), from the bits of their IEEE form."""
    for j in range(np.uint64(width)):
        e = (bits[j] - ROOT_HALF) >> 52
        exponents[j] = e
        mantissas[j] = bits[j] - (e << 52)


@loop_fused
def radial(squares, exponents, mantissas, width, t, first, table):
    """1/2 q log q, with log m = 2 artanh s = 2 (s + s^3 / 3 + ..), s = (m - 1) / (m + 1). |s| < 0.172: s^21 / 21 < 1e-17."""
    for j in range(np.uint64(width)):
        m = mantissas[j]
        s = (m - 1.0) / (m + 1.0)
        q = s * s
        series = 1 / 15 + q * (1 / 17 + q * (1 / 19))
        series = 1 / 9 + q * (1 / 11 + q * (1 / 13 + q * series))
        series = 1 / 3 + q * (1 / 5 + q * (1 / 7 + q * series))
        logarithm = exponents[j] * LOG_2 + 2.0 * (s + s * q * series)
        table[t, np.uint64(first) + j] = 0.5 * squares[j] * logarithm
