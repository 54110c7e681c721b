"""Tables of a velocity that is affine on each simplex: per simplex, in boxes, its map and that of one Runge-Kutta step.

Positions are in boxes: p = (x + 1) n / 2 on an axis of n boxes. The velocity v = A p + b of a simplex is a row of d (d + 1)
numbers, those of (A | b) row by row. Within the simplex a step of length h is p' = p + R (p, 1), R = F(hA) h (A | b),
F(z) = 1 + z/2 + z^2/6 + z^3/24.
"""

from __future__ import annotations

from stn.ops.cpu.compiling import loop


@loop
def fill_tables(maps, cells, orders, h, velocity, step, need, power):
    """From the normalized maps of one image, (S, d (d+1)). power: memory of 3 d d + d numbers."""
    d = len(cells)
    codes = len(orders)
    for s in range(len(maps)):
        in_boxes(maps[s], cells, velocity[s])
        powers(velocity[s], d, h, power)
        for i in range(d):
            for k in range(d + 1):
                total = velocity[s, i * (d + 1) + k] * h
                for j in range(d):
                    total += h * factor(power, d, i, j) * velocity[s, j * (d + 1) + k]
                step[s, i * (d + 1) + k] = total
        need[s] = margin(velocity[s], cells, orders[s % codes], s // codes, h, power)


@loop
def in_boxes(row, cells, found):
    d = len(cells)
    for i in range(d):
        rest = row[i * (d + 1) + d]
        for j in range(d):
            rest -= row[i * (d + 1) + j]
            found[i * (d + 1) + j] = row[i * (d + 1) + j] * (cells[i] / cells[j])
        found[i * (d + 1) + d] = rest * (cells[i] / 2)


@loop
def powers(row, d, h, power):
    """z, z^2, z^3 of z = h A: (3, d, d), flat."""
    for i in range(d):
        for j in range(d):
            power[i * d + j] = h * row[i * (d + 1) + j]
    for k in range(1, 3):
        for i in range(d):
            for j in range(d):
                total = 0.0
                for e in range(d):
                    total += power[(k - 1) * d * d + i * d + e] * power[e * d + j]
                power[k * d * d + i * d + j] = total


@loop
def factor(power, d, i, j):
    """Of F(z) - 1."""
    n = d * d
    return power[i * d + j] / 2 + power[n + i * d + j] / 6 + power[2 * n + i * d + j] / 24


@loop
def margin(row, cells, order, box, h, power):
    """How far inside a simplex both ends of a step must lie, in boxes, so that its four stages lie there too.

    The stages are p, p + h v / 2, p + h v / 2 + h^2 A v / 4, and p + h v + h^2 A v / 2 + h^3 A^2 v / 4. None is further from
    the segment between the ends than h^2 |A v| / 4 + h^3 |A^2 v| / 12 + h^4 |A^3 v| / 24, along the normal of a face. That
    is largest at a corner.
    """
    d = len(cells)
    n = d * d
    at, off = 3 * n, 3 * n + d  # of the corner, and of the bound along each axis
    for i in range(d):
        power[at + i] = box % cells[i]
        box //= cells[i]
    most = 0.0
    for corner in range(d + 1):
        if corner > 0:
            power[at + order[corner - 1]] += 1.0
        for k in range(3):
            for i in range(d):
                total = 0.0
                for j in range(d):
                    v = row[j * (d + 1) + d]
                    for e in range(d):
                        v += row[j * (d + 1) + e] * power[at + e]
                    total += power[k * n + i * d + j] * v
                power[off + k * d + i] = h * total
        for i in range(d):
            for j in range(-1, i):
                bound = 0.0
                for k, share in ((0, 4.0), (1, 12.0), (2, 24.0)):
                    other = power[off + k * d + j] if j >= 0 else 0.0
                    bound += abs(power[off + k * d + i] - other) / share
                most = bound if bound > most else most
    return most


@loop
def pull_tables(cells, h, velocity, sums, step_sums, power, found):
    """Add to `found`, (S, d (d+1)), the gradient in the normalized maps: from those in the tables of one image."""
    d = len(cells)
    for s in range(len(velocity)):
        powers(velocity[s], d, h, power)
        pull_step(velocity[s], step_sums[s], d, h, power, sums[s])
        for i in range(d):
            rest = sums[s, i * (d + 1) + d] * (cells[i] / 2)
            found[s, i * (d + 1) + d] += rest
            for j in range(d):
                found[s, i * (d + 1) + j] += sums[s, i * (d + 1) + j] * (cells[i] / cells[j]) - rest


@loop
def pull_step(row, grad, d, h, power, sums):
    """From the gradient G in R = F(z) h (A | b): h F^T G in (A | b), and by P = h G (A | b)^T, the gradient in F, in A

    h (P/2 + (P z^T + z^T P)/6 + (P z^2T + z^T P z^T + z^2T P)/24).
    """
    n = d * d
    first = 3 * n  # memory of P
    for i in range(d):
        for j in range(d):
            total = 0.0
            for k in range(d + 1):
                total += grad[i * (d + 1) + k] * row[j * (d + 1) + k]
            power[first + i * d + j] = h * total
    for i in range(d):
        for k in range(d + 1):
            total = grad[i * (d + 1) + k]
            for j in range(d):
                total += factor(power, d, j, i) * grad[j * (d + 1) + k]
            sums[i * (d + 1) + k] += h * total
    for i in range(d):
        for j in range(d):
            total = power[first + i * d + j] / 2
            for k in range(d):
                total += power[first + i * d + k] * (power[j * d + k] / 6 + power[n + j * d + k] / 24)
                total += (power[k * d + i] / 6 + power[n + k * d + i] / 24) * power[first + k * d + j]
                for e in range(d):
                    total += power[k * d + i] * power[first + k * d + e] * power[j * d + e] / 24
            sums[i * (d + 1) + j] += h * total
