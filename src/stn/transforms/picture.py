"""What Jupyter shows for warps and families: grids as SVG, in HTML. It needs no other package and no network."""

from __future__ import annotations

import html
import itertools
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from stn.transforms.views import Mapped

LINES, STEPS = 9, 33  # lines of a grid along each axis, points of a line
SHOWN = 8  # panels at most
STEP = 0.25  # by which a panel of a family changes one number
SIDE, REACH = 150, 1.5  # pixels of a panel, and the largest coordinate in it
SLANT = (0.35, -0.3)  # a unit of z, in units of x and y


def of_warp(warp: Mapped) -> str:
    """Return HTML with the sampling grid of each sample and look, up to 8."""
    places = list(itertools.product(*map(range, warp.batch)))
    labels = [f"warp[{', '.join(map(str, place))}]" for place in places[:SHOWN]]
    return page(repr(warp), warp, labels, hidden=max(0, len(places) - SHOWN))


def of_family(family: Callable[[Tensor], Mapped], parameters: Mapping[str, Sequence[int]], identity: Tensor) -> str:
    """Return HTML with one panel for each parameter, up to 8: the grid if this number is 0.25 above the identity's.

    Of more parameters those in the middle are shown. The first ones of a lattice act beyond its border.
    """
    names = [(name, place) for name, places in parameters.items() for place in places]
    first = max(0, len(names) - SHOWN) // 2
    shown = names[first : first + SHOWN]
    theta = identity.detach().repeat(len(shown), 1)
    for row, (_, place) in enumerate(shown):
        theta[row, place] += STEP
    labels = [f"{name}, theta[{place}] + {STEP}" for name, place in shown]
    return page(repr(family), family(theta), labels, hidden=len(names) - len(shown))


def page(title: str, warp: Mapped, labels: Sequence[str], hidden: int) -> str:
    style = "display: inline-block; margin: 2px 6px; text-align: center; font-size: 11px"
    drawn = zip(drawings(warp), labels, strict=True) if labels else ()
    panels = [f'<div style="{style}">{drawing}<br>{html.escape(label)}</div>' for drawing, label in drawn]
    more = [f"<div>and {hidden} more</div>"] if hidden else []
    return "".join([f"<pre>{html.escape(title)}</pre>", *panels, *more])


def drawings(warp: Mapped) -> list[str]:
    """Return an SVG for each sample and look, up to 8: the image as a frame, and the lines of the sampling grid."""
    lines = grid_lines(warp.ndim).to(warp.device, torch.promote_types(warp.dtype, torch.float32))  # (L, STEPS, d)
    with torch.no_grad():
        mapped = warp.points(lines.flatten(0, 1)).flatten(0, len(warp.batch) - 1)[:SHOWN]  # (M, L * STEPS, d)
    if warp.ndim == 1:  # the graph of the map
        mapped = torch.cat([lines.flatten(0, 1).expand_as(mapped), mapped], dim=-1)
    frames = flat(grid_lines(warp.ndim, edges=True)) if warp.ndim > 1 else flat(grid_lines(2, edges=True))
    return [svg(flat(one.cpu().unflatten(0, lines.shape[:2])), frames) for one in mapped]


def grid_lines(ndim: int, *, edges: bool = False) -> Tensor:  # (L, STEPS, d)
    """Return lines along each axis. edges: only the outer ones."""
    along = torch.linspace(-1, 1, STEPS)
    at = torch.linspace(-1, 1, 2 if edges else LINES if ndim == 2 else 3)
    others = torch.cartesian_prod(*[at] * (ndim - 1)).reshape(-1, ndim - 1) if ndim > 1 else torch.zeros(1, 0)
    found = []
    for axis in range(ndim):
        lines = others[:, None, :].expand(-1, STEPS, -1)
        moving = along[None, :, None].expand(len(others), -1, -1)
        found.append(torch.cat([lines[..., :axis], moving, lines[..., axis:]], dim=-1))
    return torch.cat(found)


def flat(points: Tensor) -> Tensor:  # (.., 2 or 3) -> (.., 2)
    """Return points of a panel: of a volume its slanted view."""
    if points.shape[-1] == 2:
        return points
    return (points[..., :2] + points[..., 2:] * points.new_tensor(SLANT)) * 0.75


def svg(lines: Tensor, frame: Tensor) -> str:
    half = SIDE / (2 * REACH)
    size = f'width="{SIDE}" height="{SIDE}" viewBox="{-SIDE / 2:g} {-SIDE / 2:g} {SIDE} {SIDE}"'
    shapes = [f'<polyline points="{numbers(half * line)}" stroke="#888" stroke-dasharray="3 2"/>' for line in frame]
    shapes += [f'<polyline points="{numbers(half * line)}" stroke="#0072b2"/>' for line in lines]
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} fill="none" stroke-width="0.8">{"".join(shapes)}</svg>'


def numbers(line: Tensor) -> str:  # (STEPS, 2)
    """Return the points of a line as SVG takes them. Points that are not finite, or far outside, are left out."""
    near = line[line.abs().amax(dim=-1) < 10 * SIDE]
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in near.tolist())
