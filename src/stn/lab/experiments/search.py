"""Co-localization (Jaderberg et al. 2015, appendix A.2): find the digit that 100 images share, without labels.

The paper gives its loss, but neither the training of the features nor the first looks. Here the features come from a CNN
trained on slightly displaced digits, minus the features of an empty crop. Looks start with half the side of the image and
shrink to the size of the object.
"""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Generator, Tensor, nn

from stn.lab.data import SCENES, Labeled, as_float, load
from stn.lab.data.draw import Example, integers
from stn.lab.experiments.batches import generator
from stn.lab.experiments.evaluate import trained_network
from stn.lab.experiments.folder import Row, RunFolder
from stn.lab.experiments.machine import has_bfloat16, machine
from stn.lab.experiments.runs import Run
from stn.lab.experiments.train import train
from stn.lab.networks import Codes, box_iou, boxes_of, build_colocalizer, random_places, similarity_triplet_loss
from stn.lab.networks.colocalization import CROP
from stn.models.blocks import channels_last
from stn.nn import SpatialTransformer
from stn.ops import affine_sample
from stn.transforms import Attention, Family, MatrixWarp, bounded

_CNN = Run(model="cnn", precision="auto", averaging=0.99, draws=1)
FEATURES = {  # scene -> training task of the CNN for the features
    "translated_84": dataclasses.replace(_CNN, distortion="moved", epochs=4),
    "cluttered_84": dataclasses.replace(_CNN, distortion="moved_cluttered", epochs=6),
}
EXAMPLES = 500  # number of digits for the scale of the codes
SCENE, RANDOM = 8, 9  # streams of random numbers, beyond those of `experiments.batches`


@dataclass(frozen=True)
class Search:
    """One search: for one class of digits in one scene."""

    scene: str
    digit: int
    seed: int = 0
    images: int = 100
    steps: int = 1000
    lr: float = 1e-2
    """Peak of one cycle (Adam)."""
    margin: float = 0.5
    shift: int = 10
    """Largest translation of each image in a step, in pixels. Without it the localization network overfits the 100 images:
    37 to 92 % found among clutter, by digit, instead of 86 to 97."""
    randoms: int = 2
    """Random crops of each image that its look is compared with in a step."""
    start: float = 0.5
    """Share of the image's side that the first look takes."""
    shrinking: float = 0.5
    """Share of the steps after which the look has the object's size."""

    @property
    def name(self) -> str:
        return f"{self.scene.removesuffix('_84')}/{self.digit}"

    def settings(self) -> Row:
        return dataclasses.asdict(self)

    @staticmethod
    def again(row: Row) -> Search:
        """Return the search with the steps and learning rates of this version."""
        return Search(row["scene"], row["digit"], row["seed"])


class Found(NamedTuple):
    """The result of a search."""

    row: Row
    example: Example  # the images
    boxes: Tensor  # (N, 4): the looks, as example.boxes


def codes(scene: str, *, data: str, root: Path | None, runs: Path, download: bool = False) -> Codes:
    """Return the features to compare, from a run, which is trained first if necessary."""
    run = dataclasses.replace(FEATURES[scene], data=data, root=root, download=download)
    folder = RunFolder(runs / run.name)
    train(run, folder, resume=True)
    network = trained_network(folder)
    assert isinstance(network, nn.Sequential)
    examples = as_float(load(data, root).train.images[:EXAMPLES])
    return Codes(channels_last(network[:-1]), examples)


def find(search: Search, images: Labeled, encoder: Codes) -> Found:
    """Search for the object in the first images of the class, each placed in the scene once."""
    start = time.perf_counter()
    scene = SCENES[search.scene]
    chosen = (images.labels == search.digit).nonzero()[: search.images, 0]
    digits = as_float(images.images[chosen]), images.labels[chosen]
    example = scene.draw(*digits, generator(search.seed, SCENE, search.digit))
    torch.manual_seed(search.seed)
    layer = build_colocalizer(example.x.shape[-1], _look(search.start), antialias=True)
    loss = _train(search, layer, example.x, encoder)
    with torch.no_grad():
        _, warp = layer(example.x, return_warp=True)
    assert isinstance(warp, MatrixWarp)
    boxes = boxes_of(warp)
    assert example.boxes is not None
    iou = box_iou(boxes, example.boxes[:, 0])
    measured = {"found_percent": 100 * (iou > 0.5).float().mean().item(), "iou": iou.mean().item(), "loss": loss}
    where = {"seconds": round(time.perf_counter() - start, 1), "threads": torch.get_num_threads(), "machine": machine()}
    return Found({"cell": search.name, "search": search.settings()} | measured | where, example, boxes)


def _look(scale: float) -> Family[MatrixWarp]:
    """Draw looks of this size anywhere inside the image."""
    return bounded(Attention(scale=scale), translation=(scale - 1, 1 - scale))


def _train(search: Search, layer: SpatialTransformer, images: Tensor, encoder: Codes) -> float:
    """Train the layer on these images, all in each step. Returns the last loss."""
    optimizer = torch.optim.Adam(layer.parameters(), lr=search.lr)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, search.lr, total_steps=search.steps, pct_start=0.1)
    draws = generator(search.seed, RANDOM, search.digit)
    target = CROP / images.shape[-1]
    layer.train()
    for step in range(search.steps):
        scale = search.start * (target / search.start) ** min(1.0, step / (search.shrinking * search.steps))
        layer.family = _look(scale)
        x = _shifted(images, search.shift, draws)
        crops = _encoded(encoder, layer(x))
        places = random_places(len(x), search.randoms, scale, draws)
        with torch.no_grad():
            random = _encoded(encoder, Attention(scale=scale)(places).sample(x, (CROP, CROP), antialias=True).flatten(0, 1))
        loss = similarity_triplet_loss(crops, random.unflatten(0, places.shape[:2]), margin=search.margin)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(layer.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    layer.eval()
    return loss.item()


def _shifted(images: Tensor, most: int, draws: Generator) -> Tensor:
    """Translate each image by whole pixels, filled with zeros."""
    height, width = images.shape[2:]
    theta = torch.eye(2, 3).repeat(len(images), 1, 1)
    theta[:, :, 2] = integers(images, -most, most, draws, 2) * torch.tensor([2 / width, 2 / height])
    return affine_sample(images, theta, mode="nearest")


def _encoded(encoder: Codes, crops: Tensor) -> Tensor:
    with torch.autocast(crops.device.type, torch.bfloat16, enabled=has_bfloat16(crops.device.type)):
        codes: Tensor = encoder(crops.to(memory_format=torch.channels_last))
    return codes
