"""Pictures of lines of digits for tests, drawn by the distance to strokes: no data set and no code of the library."""

import math

import torch
from torch import Tensor

Points = list[tuple[float, float]]


def ring(x: float, y: float, rx: float, ry: float, first: float = 0, last: float = 360) -> Points:
    """Return points of an ellipse around (x, y), clockwise from the angle `first` to `last` in degrees."""
    angles = (math.radians(first + (last - first) * k / 24) for k in range(25))
    return [(x + rx * math.cos(angle), y + ry * math.sin(angle)) for angle in angles]


# Strokes in a box of 12x20, y down.
STROKES: dict[str, list[Points]] = {
    "0": [ring(6, 10, 5, 9)],
    "1": [[(6, 1), (6, 19)]],
    "2": [[*ring(6, 6, 5, 5, 190, 400), (1, 19), (11, 19)]],
    "3": [[*ring(6, 5.5, 4.5, 4.5, 200, 450), *ring(6, 14.5, 5, 4.5, 270, 510)]],
    "4": [[(8, 19), (8, 1), (1, 13), (11, 13)]],
    "5": [[(10, 1), (2, 1), (2, 9), *ring(5.5, 13, 5, 6, 230, 500)]],
    "6": [[(9, 1), *ring(6, 13.5, 4.5, 5.5, 220, 100), *ring(6, 13.5, 4.5, 5.5, 100, -140)]],
    "7": [[(1, 1), (11, 1), (4, 19)]],
    "8": [ring(6, 5.5, 4, 4.5), ring(6, 14.5, 4.5, 4.5)],
    "9": [[*ring(6, 6, 4.5, 5, 0, 360), (9, 19)]],
}


def line_picture(text: str, bend: float = 0.0, *, scale: float = 2.0, dark: bool = False, slope: float = 0.0) -> Tensor:
    """Draw digits along an arc that turns by `bend` radians (positive: its middle is highest), (3, H, W) in [0, 1].

    scale: of the strokes' units in pixels. slope: of the whole line, in radians.
    """
    pitch = 17.0
    length = pitch * len(text)
    strokes = []
    for k, character in enumerate(text):
        for stroke in STROKES[character]:
            points = torch.tensor(stroke) + torch.tensor([pitch * (k + 0.5) - 6 - length / 2, -10])
            strokes.append(_bent(points, bend / length, slope) * scale)
    everything = torch.cat(strokes)
    low, high = everything.amin(dim=0) - 15 * scale, everything.amax(dim=0) + 9 * scale  # margins that differ
    width, height = (high - low).ceil().int().tolist()
    at = torch.stack(torch.meshgrid(torch.arange(width) + 0.5, torch.arange(height) + 0.5, indexing="xy"), dim=-1) + low
    distance = torch.full((height, width), torch.inf)
    for points in strokes:
        for a, b in zip(points, points[1:], strict=False):
            along = (((at - a) @ (b - a)) / (b - a).square().sum().clamp_min(1e-9)).clamp(0, 1)
            distance = torch.minimum(distance, (at - a - along[..., None] * (b - a)).norm(dim=-1))
    ink = (1.4 * scale - distance + 0.5).clamp(0, 1)
    return (0.9 - 0.7 * ink if dark else 0.1 + 0.6 * ink).expand(3, height, width)


def _bent(points: Tensor, curvature: float, slope: float) -> Tensor:  # (P, 2)
    x, y = points.unbind(dim=-1)
    if curvature:
        radius = 1 / curvature
        x, y = (radius - y) * (x / radius).sin(), radius - (radius - y) * (x / radius).cos()
    c, s = math.cos(slope), math.sin(slope)
    return torch.stack([c * x - s * y, s * x + c * y], dim=-1)
