"""Patches written into a canvas where the looks of a warp lie: the opposite direction of sampling them from it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from stn import _check
from stn.grid import lattice, normalized_to_pixel
from stn.ops.context import observed
from stn.ops.options import CallOptions
from stn.ops.sample import Sampled, grid_sample
from stn.transforms.views import Mapped

LEAST = 16  # points along each axis at which a warp is tested for folds
EDGES = SOFT, HARD = "soft", "hard"
LOST = 1.0  # pixels from its target at which a point counts as without a solution; flows in 3-D are exact to 0.5


def write(
    warp: Mapped,
    patches: Tensor,  # (N, C, *patch), or (N, K, C, *patch)
    size: int | Sequence[int] | None,
    onto: Tensor | None,  # (N, C, *size)
    alpha: Tensor | None,  # as patches, C = 1
    reduce: str | None,
    edge: str,
    return_mask: bool,
    options: CallOptions,
) -> Sampled:
    """Carry out `Warp.write`."""
    _check.choice("reduce", reduce, ("over", "sum", None))
    _check.choice("edge", edge, EDGES)
    _check.alone("write", {name: name in options for name in ("padding_mode", "fill_value", "pyramid")})  # zeros, always
    batch = _check.patches("patches", patches, warp.batch, warp.ndim)
    canvas = _check.canvas(size, onto, patches, batch, warp.ndim)
    if alpha is not None:
        _check.opacity("alpha", alpha, patches, warp.ndim)
    looks = len(batch) == 2
    covers = return_mask or (reduce != "sum" and (onto is not None or looks))  # whether the opacity is used
    flat, opacity = warp._broadcast(batch).flatten(), alpha if alpha is None else _flat(alpha, looks)
    layers, cover = _layers(flat, _flat(patches, looks), opacity, canvas, covers, edge == HARD, options)
    found, mask = _reduced(layers.unflatten(0, batch), cover.unflatten(0, batch), onto, reduce, looks)
    return (found, mask) if return_mask else found


def sample_each(
    warp: Mapped, image: Tensor, size: int | Sequence[int] | None, return_mask: bool, options: CallOptions
) -> Sampled:
    """Sample an image (N, K, C, *in) for each of K looks."""
    batch = _check.each_look("image", image, warp.batch)
    found = warp._broadcast(batch).flatten().sample(image.flatten(0, 1), size, return_mask=return_mask, **options)
    if isinstance(found, tuple):
        return found[0].unflatten(0, batch), found[1].unflatten(0, batch)
    return found.unflatten(0, batch)


def _flat(patches: Tensor, looks: bool) -> Tensor:
    return patches.flatten(0, 1) if looks else patches


def _layers(
    warp: Mapped,
    patches: Tensor,
    alpha: Tensor | None,
    size: tuple[int, ...],
    covers: bool,
    hard: bool,
    options: CallOptions,
) -> tuple[Tensor, Tensor]:  # (M, C, *size), (M, 1, *size)
    """Return each patch on a canvas of its own, times its opacity, and the opacity: 0 where the patch is not."""
    if alpha is not None:  # one more channel, and padding makes it 0 outside
        found = _placed(warp, torch.cat([alpha * patches, alpha], dim=1), size, False, hard, options)
        assert isinstance(found, Tensor)
        return found[:, :-1], found[:, -1:]
    found = _placed(warp, patches, size, covers, hard, options)
    return (found, torch.zeros_like(found[:, :1])) if isinstance(found, Tensor) else (found[0], found[1].to(found[0].dtype))


def _placed(warp: Mapped, patches: Tensor, size: tuple[int, ...], mask: bool, hard: bool, options: CallOptions) -> Sampled:
    """Sample patches on the canvas. hard: a pixel whose center a patch contains shows it alone, other pixels do not."""
    inverse = warp.inverse()
    align_corners = bool(options.get("align_corners", False))
    if hard:
        options = {**options, "padding_mode": "border"}
    elif not inverse._bends:
        return inverse.sample(patches, size, return_mask=mask, **options)
    grid = inverse.grid(size, align_corners=align_corners)
    shown = (grid.abs() <= 1).all(dim=-1).unsqueeze(1) if hard else None
    if not inverse._bends:
        found: Sampled = inverse.sample(patches, size, return_mask=mask, **options)
    else:
        folds = warp.fold_share([max(n, LEAST) for n in patches.shape[2:]]) > 0
        if not observed(folds):
            _check.unfolded(folds)
        solved = found_at(warp, grid.flatten(1, -2), size, align_corners).view(len(grid), 1, *size)
        shown = solved if shown is None else shown & solved
        found = grid_sample(patches, grid, return_mask=mask, **options)  # type: ignore[call-overload]  # one of two literals
    assert shown is not None
    if isinstance(found, tuple):
        return torch.where(shown, found[0], 0), torch.where(shown, 1 if hard else found[1], 0)
    return torch.where(shown, found, 0)


def found_at(warp: Mapped, points: Tensor, size: tuple[int, ...], align_corners: bool) -> Tensor:  # (N, P, d) -> (N, P)
    """Return whether the warp takes each point to the pixel of an image in the same place of a list."""
    with torch.no_grad():
        wanted = lattice(size, align_corners=align_corners, dtype=points.dtype, device=points.device).flatten(0, -2)
        off = [normalized_to_pixel(p, size, align_corners=align_corners) for p in (warp.points(points), wanted)]
        return (off[0] - off[1]).norm(dim=-1) <= LOST


def _reduced(
    layers: Tensor,  # (N[, K], C, *size)
    cover: Tensor,  # (N[, K], 1, *size)
    onto: Tensor | None,  # (N, C, *size)
    reduce: str | None,
    looks: bool,
) -> tuple[Tensor, Tensor]:
    """Join the layers of K looks, the last on top, and the canvas below them."""
    if reduce is None or not looks:
        below = onto if onto is None or not looks else onto.unsqueeze(1)
        return _over(layers, cover, below) if reduce != "sum" else _plus(layers, onto), cover
    if reduce == "sum":
        return _plus(layers.sum(dim=1), onto), cover.sum(dim=1)
    found, clear = onto, torch.ones_like(cover[:, 0])
    for layer, opacity in zip(layers.unbind(dim=1), cover.unbind(dim=1), strict=True):
        found, clear = _over(layer, opacity, found), clear * (1 - opacity)
    return found if found is not None else layers.sum(dim=1), 1 - clear


def _over(layer: Tensor, opacity: Tensor, below: Tensor | None) -> Tensor:
    return layer if below is None else layer + (1 - opacity) * below


def _plus(layer: Tensor, below: Tensor | None) -> Tensor:
    return layer if below is None else layer + below
