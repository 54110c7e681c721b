"""The look that a layer learns on photographs of birds from labels of classes alone, against the boxes of the birds.

    python -m stn.lab.studies.birds --root data [--attempts] [--seeds 3] [--out results/birds]

The data are ten species of CUB-200-2011: 300 training and 243 test photographs, the middle square of each at 64x64 pixels.
One classifier of 32x32 pixels reads the whole photograph, a center crop, or an upright look that it learns to place. All
networks are trained from random weights, with the same views. IoU is the area that the look and the box of the bird share,
divided by the area that they cover together; parts outside the photograph do not count. No box is used in training.
`--attempts` trains the recipes that were compared: on two thirds of the training photographs of each class, with errors and
IoU of the last third. An interrupted call continues.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import stn
from stn.io.files import beside, write_text
from stn.lab.data.cub import load_cub
from stn.lab.experiments.machine import machine
from stn.lab.experiments.rows import Row, read_rows, write_rows
from stn.lab.networks.birds import SIDE, BirdNetwork

FOLDS = 3
SCALES = tuple(round(0.5 + 0.05 * i, 2) for i in range(11))  # of center crops
SMOOTHING, DECAY, BATCH = 0.1, 0.05, 30


@dataclass(frozen=True)
class Recipe:
    """A network, and how it is trained."""

    localizer: str = "shared"
    scale: float = 0.8  # of the center crop, or of the first look
    family: str = "attention"
    padding: str = "border"
    evidence: float = 0.5  # weight of the loss of the classes that the map of evidence tells
    shift: float = 0.15  # of the random views, in half sides of the photograph
    localizer_lr: float = 1.0  # relative to that of the classifier
    lr: float = 3e-3
    epochs: int = 40


class Photos(NamedTuple):
    images: Tensor  # (N, 3, SIDE, SIDE) bytes
    labels: Tensor  # (N,)
    boxes: Tensor  # (N, 4): left, top, right, bottom of the part of the bird in the photograph, normalized

    def take(self, which: Tensor) -> Photos:
        return Photos(*(part[which] for part in self))


def photographs(root: Path) -> tuple[Photos, Photos]:
    """Return the training and the test photographs: the middle square of each."""
    parts, _ = load_cub(root, short_side=SIDE, size=SIDE)
    found = []
    for birds in parts:
        images = torch.stack([birds[i][0] for i in range(len(birds))])
        boxes = birds.in_view(birds.boxes.view(-1, 2, 2)).flatten(1).clamp(-1, 1)
        found.append(Photos(images, birds.labels, boxes))
    train, valid, test = found
    return Photos(*(torch.cat(pair) for pair in zip(train, valid, strict=True))), test


def held_out(labels: Tensor, fold: int) -> Tensor:  # (N,) bool
    """Choose every third photograph of each class."""
    place = torch.zeros_like(labels)
    for label in labels.unique():
        place[labels == label] = torch.arange(int((labels == label).sum()))
    return place % FOLDS == fold


def random_views(x: Tensor, shift: float, generator: torch.Generator) -> Tensor:
    """Turn by up to 11 degrees, zoom by up to 1.2, flip, move by up to `shift`, and change light and colors."""

    def uniform(most: float, *shape: int) -> Tensor:
        return most * (2 * torch.rand(len(x), *shape, generator=generator) - 1)

    turn, zoom = uniform(0.2), uniform(math.log(1.2)).exp()
    flip = uniform(1.0).sign()
    columns = [flip * zoom * turn.cos(), -zoom * turn.sin(), flip * zoom * turn.sin(), zoom * turn.cos()]
    theta = torch.cat([torch.stack(columns, dim=1).unflatten(1, (2, 2)), uniform(shift, 2, 1)], dim=2)
    seen = stn.affine_sample(x, theta, padding_mode="border")
    gray = seen.mean(dim=(1, 2, 3), keepdim=True)
    contrast = (1 + uniform(0.3, 1, 1, 1)) * (1 + uniform(0.1, 3, 1, 1))
    return ((seen - gray) * contrast + gray * (1 + uniform(0.2, 1, 1, 1))).clamp(0, 1)


def trained(recipe: Recipe, photos: Photos, seed: int) -> BirdNetwork:
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    options = {"family": recipe.family, "scale": recipe.scale, "padding_mode": recipe.padding}
    network = BirdNetwork(int(photos.labels.max()) + 1, recipe.localizer, **options)  # type: ignore[arg-type]  # of the right types
    groups = stn.param_groups(network, recipe.lr, recipe.lr * recipe.localizer_lr)
    optimizer = torch.optim.AdamW(groups, weight_decay=DECAY)
    rates = [group["lr"] for group in optimizer.param_groups]
    batch = min(BATCH, len(photos.labels))
    steps = recipe.epochs * (len(photos.labels) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rates, steps, pct_start=0.2)
    images = as_float(photos.images)
    for _ in range(recipe.epochs):
        order = torch.randperm(len(images), generator=generator)
        for which in order[: len(order) // batch * batch].split(batch):
            seen = network(random_views(images[which], recipe.shift, generator))
            loss = F.cross_entropy(seen.logits, photos.labels[which], label_smoothing=SMOOTHING)
            if seen.evidence is not None:
                own = F.cross_entropy(seen.evidence, photos.labels[which], label_smoothing=SMOOTHING)
                loss = loss + recipe.evidence * own
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            schedule.step()
    return network.eval()


def as_float(images: Tensor) -> Tensor:
    return images.float().div(255).contiguous(memory_format=torch.channels_last)


def ends(warp: stn.Warp) -> Tensor:  # (N, 4)
    """Return left, top, right and bottom of an upright look."""
    return warp.points(torch.tensor([[-1.0, -1.0], [1.0, 1.0]])).flatten(1)


def overlap(looks: Tensor, boxes: Tensor) -> Tensor:  # (N, 4), (N, 4) -> (N,)
    """Return the intersection over union of boxes with the parts of looks inside the photograph."""
    looks = looks.clamp(-1, 1)
    low, high = torch.maximum(looks[:, :2], boxes[:, :2]), torch.minimum(looks[:, 2:], boxes[:, 2:])
    both = (high - low).clamp_min(0).prod(dim=1)
    areas = sum((part[:, 2:] - part[:, :2]).clamp_min(0).prod(dim=1) for part in (looks, boxes))
    return both / (areas - both)


def best_center_crop(boxes: Tensor) -> float:
    """Return the scale of the center crop with the largest mean IoU."""
    crops = {scale: torch.tensor([-scale, -scale, scale, scale]).expand(len(boxes), 4) for scale in SCALES}
    return max(SCALES, key=lambda scale: overlap(crops[scale], boxes).mean().item())


def bounds(boxes: Tensor, best: float) -> list[Row]:
    """Return the IoU of looks that read the boxes: what a square look can reach at most."""
    center = boxes.unflatten(1, (2, 2)).mean(dim=1)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1, keepdim=True).sqrt().expand(-1, 2) / 2
    known = {
        "center crop of the best size": (torch.zeros_like(center), torch.full_like(area, best)),
        "true center, size of the center crop": (center, torch.full_like(area, best)),
        "center of the photograph, true area": (torch.zeros_like(center), area),
        "true center and area": (center, area),
    }
    return [
        {
            "cell": name,
            "split": "boxes",
            "side": SIDE,
            "iou": overlap(torch.cat([at - half, at + half], 1), boxes).mean().item(),
        }
        for name, (at, half) in known.items()
    ]


@torch.inference_mode()
def measured(network: BirdNetwork, photos: Photos) -> Row:
    seen: tuple[Tensor, Tensor | None, stn.Warp] = network(as_float(photos.images))
    looks = ends(seen[2])
    iou, centers, halves = overlap(looks, photos.boxes), looks.unflatten(1, (2, 2)).mean(dim=1), looks[:, 2:] - looks[:, :2]
    return {
        "error_percent": 100 * (seen[0].argmax(dim=1) != photos.labels).double().mean().item(),
        "iou": iou.mean().item(),
        "found_percent": 100 * (iou > 0.5).double().mean().item(),
        "scale": halves.mean().item() / 2,
        "center_spread": centers.std(dim=0).mean().item(),
    }


WHOLE, CENTER, LOOK = "whole photograph", "center crop", "learned look"
CHOSEN = Recipe()
ATTEMPTS: dict[str, Recipe] = {
    "center crop": Recipe("none", 0.75),
    "center crop, large shifts": Recipe("none", 0.75, shift=0.4),
    "map on shared features": Recipe(),
    "map on shared features, large shifts": Recipe(shift=0.4),
    "map on shared features, looks of any aspect": Recipe(family="anisotropic_scale"),
    "map on shared features, identity start": Recipe(scale=1.0),
    "map on its own features": Recipe("own", evidence=1.0),
    "map on its own features, no loss of its own": Recipe("own", evidence=0.0),
    "dense localization": Recipe("dense", localizer_lr=0.1),
    "dense localization, identity start, zeros": Recipe("dense", 1.0, padding="zeros", localizer_lr=0.1),
}


def recipes(best: float) -> dict[str, Recipe]:
    """Return the networks that are compared on the test photographs."""
    crop = dataclasses.replace(CHOSEN, localizer="none")
    return {WHOLE: dataclasses.replace(crop, scale=1.0), CENTER: dataclasses.replace(crop, scale=best), LOOK: CHOSEN}


def key_of(name: str, split: str, recipe: Recipe, seed: int) -> Row:
    return {"cell": name, "split": split, "seed": seed, "side": SIDE, "recipe": dataclasses.asdict(recipe)}


def row_of(name: str, split: str, recipe: Recipe, seed: int, fit: Photos, judged: Photos) -> Row:
    start, cpu = time.perf_counter(), time.process_time()
    network = trained(recipe, fit, seed)
    row = key_of(name, split, recipe, seed) | measured(network, judged)
    row |= {"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - cpu}
    parameters = sum(p.numel() for p in network.parameters())
    return row | {"parameters": parameters, "machine": machine(), "threads": torch.get_num_threads()}


def markdown(rows: Sequence[Row]) -> str:
    """Return the page."""
    test, held = ([row for row in rows if row["split"] == split] for split in ("test", "held out"))
    lines = ["# Looks at photographs of birds, learned from labels of classes", "", *(__doc__ or "").splitlines()[2:], ""]
    lines += ["| the classifier reads | seeds | test error % | mean IoU | IoU above 0.5, % | scale | parameters |"]
    lines += ["|---|---:|---:|---:|---:|---:|---:|"]
    for name in (name for name in (WHOLE, CENTER, LOOK) if any(row["cell"] == name for row in test)):
        own = [row for row in test if row["cell"] == name]
        shown = [spread([row[key] for row in own], digits) for key, digits in COLUMNS.items()]
        lines.append(f"| {name} | {len(own)} | {' | '.join(shown)} | {own[0]['parameters']:,} |")
    note = "± is the standard deviation over seeds. The scale is the side of the look in sides of the photograph."
    lines += ["", f"{note} {verdict(test)}", ""]
    limits = [row for row in rows if row["split"] == "boxes"]
    lines += ["Square looks that read the boxes of the test photographs would have this mean IoU:", ""] if limits else []
    lines += [*(f"- {row['cell']}: {row['iou']:.3f}" for row in limits), ""]
    lines += ["## Recipes that were compared", ""]
    lines += ["Trained on two thirds of the training photographs, measured on the other third, with one seed."]
    lines += ["", "| recipe | seed | error % | mean IoU | IoU above 0.5, % | scale | spread of centers |"]
    lines += ["|---|---:|---:|---:|---:|---:|---:|"]
    for row in held:
        found = (f"{row[key]:.{digits}f}" for key, digits in {**COLUMNS, "center_spread": 2}.items())
        lines.append(f"| {row['cell']} | {row['seed']} | {' | '.join(found)} |")
    machines = dict.fromkeys(f"{row['machine']}, threads: {row['threads']}" for row in (*held, *test))
    minutes = sum(row["cpu_seconds"] for row in (*held, *test)) / 60
    lines += ["", f"Recipe of the learned look: {stated(CHOSEN)}.", ""]
    return "\n".join([*lines, f"Measured on {'; '.join(machines)}; {minutes:.0f} minutes of processor time.", ""])


def verdict(test: Sequence[Row]) -> str:
    """Say in how many seeds the learned look is better than the center crop."""
    by = {(row["cell"], row["seed"]): row for row in test}
    seeds = sorted({seed for _, seed in by if {(CENTER, seed), (LOOK, seed)} <= by.keys()})
    nearer = sum(by[LOOK, seed]["iou"] > by[CENTER, seed]["iou"] for seed in seeds)
    fewer = sum(by[LOOK, seed]["error_percent"] < by[CENTER, seed]["error_percent"] for seed in seeds)
    found = (
        f"overlaps the boxes better than the center crop in {nearer} of {len(seeds)} seeds, and has fewer errors in {fewer}"
    )
    return f"The learned look {found}."


COLUMNS = {"error_percent": 1, "iou": 3, "found_percent": 0, "scale": 2}  # digits after the point


def stated(recipe: Recipe) -> str:
    return ", ".join(f"{name} {value}" for name, value in dataclasses.asdict(recipe).items())


def spread(values: Sequence[float], digits: int) -> str:
    return f"{mean(values):.{digits}f}" + (f" ± {stdev(values):.{digits}f}" if len(values) > 1 else "")


def main(root: Path, out: Path, seeds: int, attempts: bool) -> None:
    train, test = photographs(root)
    rows = read_rows(beside(out, ".jsonl"))
    held = held_out(train.labels, 0)
    fit, judged = train.take(~held), train.take(held)
    planned = [(name, "held out", recipe, 0, fit, judged) for name, recipe in ATTEMPTS.items() if attempts]
    best = best_center_crop(train.boxes)
    rows = [row for row in rows if row["split"] != "boxes"] + bounds(test.boxes, best)
    cells = recipes(best)
    planned += [(name, "test", recipe, seed, train, test) for seed in range(seeds) for name, recipe in cells.items()]
    for name, split, recipe, seed, *photos in planned:
        if any(key_of(name, split, recipe, seed).items() <= row.items() for row in rows):
            continue
        rows.append(row_of(name, split, recipe, seed, *photos))
        write_rows(beside(out, ".jsonl"), rows)
        write_text(beside(out, ".md"), markdown(rows))
        print(
            f"{name}, {split}, seed {seed}: error {rows[-1]['error_percent']:.1f} %, IoU {rows[-1]['iou']:.3f}", flush=True
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="folder of CUB_200_2011, whole or a part of its classes")
    parser.add_argument("--out", type=Path, default=Path("results/birds"), help="without its suffix")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--attempts", action="store_true", help="train the compared recipes too")
    given = parser.parse_args()
    main(given.root, given.out, given.seeds, given.attempts)
