"""Tables of a velocity that is affine on each simplex: per simplex, in boxes, its map and that of one Runge-Kutta step.

Positions are in boxes: p = (x + 1) n / 2 on an axis of n boxes. The velocity v = A p + b of a simplex is a row of d (d + 1)
numbers, those of (A | b) row by row. Within the simplex a step of length h is p' = p + R (p, 1), R = F(hA) h (A | b),
F(z) = 1 + z/2 + z^2/6 + z^3/24.
"""

from __future__ import annotations

from stn.ops.cpu.compiling import loop


@loop
def fill_tables(nodes, cells, orders, h, velocity, step, margins, power):
    """Fill the tables from the velocities of one image at the nodes, flat. power: memory of 3 d d + 4 d numbers."""
    d, codes = len(cells), len(orders)
    for s in range(len(velocity)):
        fill_velocity(nodes, cells, orders[s % codes], s // codes, velocity[s])
        powers(velocity[s], d, h, power)
        for i in range(d):
            for k in range(d + 1):
                total = velocity[s, i * (d + 1) + k] * h
                for j in range(d):
                    total += h * factor(power, d, i, j) * velocity[s, j * (d + 1) + k]
                step[s, i * (d + 1) + k] = total
        margins[s] = margin(velocity[s], cells, orders[s % codes], s // codes, h, power)


@loop
def fill_velocity(nodes, cells, order, box, row):
    """(A | b) of a simplex. The column of an axis is the difference along the simplex's edge."""
    d = len(cells)
    first = lowest_node(cells, box)
    node = first
    for k in range(d):
        ahead = node + pitch_of(cells, order[k])
        for i in range(d):
            row[i * (d + 1) + order[k]] = (nodes[ahead * d + i] - nodes[node * d + i]) * (cells[i] / 2)
        node = ahead
    for i in range(d):
        rest = nodes[first * d + i] * (cells[i] / 2)
        for j in range(d):
            rest -= row[i * (d + 1) + j] * coordinate(cells, box, j)
        row[i * (d + 1) + d] = rest


@loop
def coordinate(cells, box, axis):
    """Return the coordinate of the lowest corner of a box."""
    for i in range(axis):
        box //= cells[i]
    return box % cells[axis]


@loop
def pitch_of(cells, axis):
    """Return the distance in the table from a node to the next one along an axis."""
    pitch = 1
    for i in range(axis):
        pitch *= cells[i] + 1
    return pitch


@loop
def lowest_node(cells, box):
    node = 0
    for axis in range(len(cells)):
        node += coordinate(cells, box, axis) * pitch_of(cells, axis)
    return node


@loop
def powers(row, d, h, power):
    """Compute z, z^2 and z^3 of z = h A: (3, d, d), flat."""
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
    """Return an entry of F(z) - 1."""
    n = d * d
    return power[i * d + j] / 2 + power[n + i * d + j] / 6 + power[2 * n + i * d + j] / 24


@loop
def margin(row, cells, order, box, h, power):
    """Return the distance from the faces of a simplex, in boxes, at which both ends of a step keep its four stages inside.

    The stages are p, p + h v / 3, p + 2 h v / 3 + h^2 A v / 3, and p + h v + h^2 A v / 3 + h^3 A^2 v / 3. None is further
    from the segment between the ends than h^2 |A v| / 6 + h^3 |A^2 v| / 6 + h^4 |A^3 v| / 24, along the normal of a face.
    That is largest at a corner.
    """
    d = len(cells)
    n = d * d
    at, off = 3 * n, 3 * n + d  # of the corner, and of the bound along each axis
    for i in range(d):
        power[at + i] = coordinate(cells, box, i)
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
                for k, share in ((0, 6.0), (1, 6.0), (2, 24.0)):
                    other = power[off + k * d + j] if j >= 0 else 0.0
                    bound += abs(power[off + k * d + i] - other) / share
                most = bound if bound > most else most
    return most


@loop
def pull_tables(cells, orders, h, velocity, sums, step_sums, power, found):
    """Add to `found` the gradient in the nodes of one image: from those in its tables."""
    d, codes = len(cells), len(orders)
    for s in range(len(velocity)):
        powers(velocity[s], d, h, power)
        pull_step(velocity[s], step_sums[s], d, h, power, sums[s])
        pull_velocity(sums[s], cells, orders[s % codes], s // codes, found)


@loop
def pull_velocity(grad, cells, order, box, found):
    d = len(cells)
    first = lowest_node(cells, box)
    node = first
    for i in range(d):
        found[first * d + i] += grad[i * (d + 1) + d] * (cells[i] / 2)
    for k in range(d):
        ahead = node + pitch_of(cells, order[k])
        for i in range(d):
            share = grad[i * (d + 1) + order[k]] - grad[i * (d + 1) + d] * coordinate(cells, box, order[k])
            found[ahead * d + i] += share * (cells[i] / 2)
            found[node * d + i] -= share * (cells[i] / 2)
        node = ahead


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
