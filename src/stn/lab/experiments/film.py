"""A film of a training: the looks at the same held-out images, from before the first step on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from stn import _check
from stn.grid import normalized_to_pixel
from stn.lab.experiments.folder import RunFolder
from stn.lab.experiments.tasks import TASKS
from stn.lab.experiments.watch import Watch
from stn.nn import AbstractSpatialTransformer
from stn.transforms import Warp

SAMPLES = 6  # images
FIRST_EPOCH, WHOLE = 12, 36  # frames: looks change most in the first epoch
ZOOM, BORDER = 3, 256  # of the small picture: pixels a pixel, and points along an edge of a look


class Film:
    """Record theta for `images`, frame by frame; nothing if the network has no 2-D transformer.

    Its state is part of the checkpoint, so a resumed run has each frame exactly once.
    """

    def __init__(self, network: nn.Module, watch: Watch, images: Tensor) -> None:  # (N, C, H, W)
        self.layer = first_layer(network)
        self.watch, self.images = watch, images[:SAMPLES]
        self.frames: list[tuple[int, Tensor]] = []  # step, theta (S, N, K P)

    def shoot(self, step: int, *, steps: int, epochs: int) -> None:
        """Add a frame if one is due after this step of all."""
        if self.layer is None or not is_due(step, steps, epochs):
            return
        mode = self.layer.training
        self.layer.eval()
        with torch.inference_mode():
            self.layer(self.images)
        self.layer.train(mode)
        self.frames.append((step, self.watch.thetas(self.layer).cpu()))

    def state_dict(self) -> dict[str, Any]:
        return {"images": self.images.cpu(), "frames": self.frames} if self.layer else {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.frames = list(state.get("frames", ()))

    def picture(self) -> Tensor | None:
        """Return the last frame for a log: (3, h, w) in [0, 1], the images with the edges of the looks, above the looks."""
        if self.layer is None or not self.frames:
            return None
        *_, (_, warp, outputs) = scenes(self.layer, self.images.cpu(), self.frames[-1:])
        return strip(self.images.cpu(), warp, outputs)


def is_due(step: int, steps: int, epochs: int) -> bool:
    """Return True if frame floor(step * frames / steps) of an epoch is new; the start and every end are."""
    parts = FIRST_EPOCH if step <= steps else max(1, WHOLE // epochs)
    return step == 0 or step * parts // steps > (step - 1) * parts // steps


def first_layer(network: nn.Module) -> AbstractSpatialTransformer | None:
    """Return the transformer of the image, if it is 2-D."""
    layers = (module for module in network.modules() if isinstance(module, AbstractSpatialTransformer))
    layer = next(layers, None)
    return layer if layer is not None and layer.family.ndim == 2 else None


class Scene(NamedTuple):
    """One recorded frame."""

    step: int
    warp: Warp  # (N, K) looks
    outputs: Tensor  # (N, K, C, h, w)


def scenes(layer: AbstractSpatialTransformer, images: Tensor, frames: list[tuple[int, Tensor]]) -> Iterator[Scene]:
    for step, theta in frames:
        warp = layer.composed(list(theta))
        yield Scene(step, warp, warp.sample(images, layer.size, **layer.options))


def developed(folder: RunFolder) -> tuple[AbstractSpatialTransformer, Tensor, list[Scene]] | None:
    """A run's layer (untrained), the images of its film and all frames; None if it has none.

    Raises: InputError if the folder is not that of a run.
    """
    run, state = folder.run(), folder.load()
    film: dict[str, Any] = state.get("film", {}) if state else {}
    layer = first_layer(TASKS[run.distortion].build(run.model, run.transform)) if film else None
    if layer is None:
        return None
    try:
        with torch.inference_mode():
            return layer, film["images"], list(scenes(layer, film["images"], film["frames"]))
    except Exception as error:  # a film of another form can raise anything
        _check.fail(f"{folder.checkpoint} must hold the film of its run; drawing it raised {type(error).__name__}")


# ---- a small picture without a plotting library ----


def border(count: int) -> Tensor:
    """The four edges of the output, normalized: (4, count, 2)."""
    along, side = torch.linspace(-1, 1, count), torch.ones(count)
    edges = [(along, -side), (side, along), (along, side), (-side, along)]
    return torch.stack([torch.stack(edge, dim=-1) for edge in edges])


def strip(images: Tensor, warp: Warp, outputs: Tensor) -> Tensor:  # (N, C, H, W), (N, K, C, h, w) -> (3, h', w')
    """Images side by side, enlarged, with the looks' edges drawn in; below them the looks, brought to the same width."""
    above = enlarged(images.amax(dim=1, keepdim=True), images.shape[2] * ZOOM, images.shape[3] * ZOOM)
    above = above.expand(-1, 3, -1, -1).clone()
    n, _, height, width = above.shape
    edges = normalized_to_pixel(warp.points(border(BORDER).flatten(0, 1)), (height, width)).round().long().flatten(1, 2)
    inside = ((edges >= 0) & (edges < edges.new_tensor([width, height]))).all(dim=-1)
    image, point = inside.nonzero(as_tuple=True)
    x, y = edges[image, point].unbind(dim=-1)
    above[image, :, y, x] = torch.tensor([0.9, 0.62, 0.0])
    looks = outputs.amax(dim=2).flatten(0, 1).unsqueeze(1)
    below = enlarged(looks, width * looks.shape[2] // looks.shape[3], width).unflatten(0, outputs.shape[:2])
    column = torch.cat([above, *below.expand(-1, -1, 3, -1, -1).unbind(dim=1)], dim=2)
    return torch.cat(column.unbind(), dim=2).clamp(0, 1)


def enlarged(images: Tensor, height: int, width: int) -> Tensor:
    return nn.functional.interpolate(images, (height, width))
