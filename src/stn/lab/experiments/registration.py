"""Train a network to register pairs of hippocampi without labels: correlation within windows, and bending of the warp.

Each step draws a pair of training cases and compares both directions. Every `SAVED` steps the state is on disk, and an
interrupted training continues from there.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from stn import _check
from stn.io.files import read_tensors, write_tensors
from stn.lab.data.hippocampus import Hippocampus
from stn.lab.experiments.machine import has_bfloat16
from stn.lab.experiments.rows import Row, read_rows, write_rows
from stn.lab.networks.registration import RegistrationNetwork
from stn.ops import Pyramid
from stn.registration import LocalCorrelation, register
from stn.registration.problem import bent
from stn.transforms import MatrixWarp, Warp

FRAME = (40, 56, 40)  # voxels of 1 mm
ROUNDS = 2  # of registrations with the mean
SAVED = 100  # steps between states on disk, and rows
STATE, ROWS = "state.pt", "rows.jsonl"


@dataclass(frozen=True)
class Learning:
    """The settings of a training."""

    steps: int = 4000
    lr: float = 1e-3  # of Adam, after the first steps; falls to 0 along a half cosine
    warm: int = 100  # steps in which it rises
    window: int = 5  # voxels, of the correlation, at full and at half resolution
    bending: float = 5e-3
    seed: int = 0

    def rate(self, step: int) -> float:
        rising = min(1.0, (step + 1) / self.warm)
        return self.lr * rising * (1 + math.cos(math.pi * step / self.steps)) / 2


class Placed(NamedTuple):
    """A case in the frame of the template: its image and its place there, (1, 1, *FRAME) each, and the affine map to it."""

    image: Tensor
    inside: Tensor  # 1 where the volume is, 0 outside
    warp: MatrixWarp


@torch.no_grad()
def placed(case: Hippocampus, template: Tensor) -> Placed:
    """Register a case with the template, at half of the resolution: in a fifth of the time, near enough for the network."""
    moving, fixed = (Pyramid(image)[1] for image in (case.image, template))
    found = register(moving, fixed, "affine", start=case.centered(FRAME)).warp
    assert isinstance(found, MatrixWarp)
    return Placed(*found.sample(case.image, FRAME, padding_mode="border", return_mask=True), found)


@torch.no_grad()
def template_of(cases: Sequence[Hippocampus]) -> Tensor:  # (1, 1, *FRAME)
    """Return the mean of all cases, centered, and then twice that of all cases registered with the mean before."""
    images = [case.centered(FRAME).sample(case.image, FRAME, padding_mode="border") for case in cases]
    for _ in range(ROUNDS):
        mean = torch.cat(images).mean(dim=0, keepdim=True)
        images = [placed(case, mean).image for case in cases]
    return torch.cat(images).mean(dim=0, keepdim=True)


def train_registration(cases: Sequence[Hippocampus], folder: Path, learning: Learning) -> tuple[RegistrationNetwork, Row]:
    """Train, or continue, in a folder. Returns the network, ready to register, and the last row.

    Raises: InputError if the folder holds another training.
    """
    network = _network(learning)
    optimizer = torch.optim.Adam(network.parameters(), lr=learning.lr)
    draws = torch.Generator().manual_seed(learning.seed)
    done, seconds = _continued(folder, learning, network, optimizer, draws)
    rows, losses, start = [row for row in read_rows(folder / ROWS) if row["step"] <= done], [], time.perf_counter()
    if not done:
        network.template.copy_(template_of(cases))
    ready = [placed(case, network.template) for case in cases]
    for step in range(done, learning.steps):
        first, second = torch.randperm(len(cases), generator=draws)[:2].tolist()
        for group in optimizer.param_groups:
            group["lr"] = learning.rate(step)
        loss = _loss(network, ready[first], ready[second], learning)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
        if (step + 1) % SAVED == 0 or step + 1 == learning.steps:
            taken = seconds + time.perf_counter() - start
            rows.append({"step": step + 1, "loss": round(sum(losses) / len(losses), 5), "seconds": round(taken, 1)})
            losses = []
            _save(folder, learning, network, optimizer, draws, rows)
    return network.eval(), rows[-1]


def trained_registration(folder: Path) -> tuple[RegistrationNetwork, Row]:
    """Read the network of a training, complete or not, and its last row.

    Raises: InputError if there is none.
    """
    state = _read(folder / STATE)
    network = _network(Learning(**state["learning"]))
    network.load_state_dict(state["network"])
    return network.eval(), state["row"]


def _network(learning: Learning) -> RegistrationNetwork:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(learning.seed)
        return RegistrationNetwork(FRAME)


def _loss(network: RegistrationNetwork, moving: Placed, fixed: Placed, learning: Learning) -> Tensor:
    """Return the mean loss of both directions: the inverse warp takes the fixed volume to the moving one."""
    with torch.autocast("cpu", torch.bfloat16, enabled=has_bfloat16("cpu")):
        warped, warp = network(moving.image, fixed.image)
    back = warp.inverse()
    again = back.sample(fixed.image, FRAME, padding_mode="border")
    ahead = _unlike(warped, warp, moving.inside, fixed, learning.window)
    return (ahead + _unlike(again, back, fixed.inside, moving, learning.window)) / 2 + learning.bending * bent(warp).mean()


def _unlike(warped: Tensor, warp: Warp, inside: Tensor, fixed: Placed, window: int) -> Tensor:
    """Return 1 - correlation where both volumes are, at full and at half resolution, equally weighted."""
    with torch.no_grad():  # a gradient would move the volumes apart until they hardly overlap
        weight = warp.sample(inside, FRAME) * fixed.inside
    loss, full = LocalCorrelation(window), (warped.float(), fixed.image, weight)
    half = [F.avg_pool3d(part, 2) for part in full]
    return (loss(*full) + loss(half[0], half[1], half[2])).mean() / 2


def _continued(folder: Path, learning: Learning, network: Any, optimizer: Any, draws: torch.Generator) -> tuple[int, float]:
    path = folder / STATE
    if not path.exists():
        return 0, 0.0
    state = _read(path)
    if state["learning"] != dataclasses.asdict(learning):
        _check.fail(f"runs must be a folder without another training; {folder} has one with {state['learning']}")
    network.load_state_dict(state["network"])
    optimizer.load_state_dict(state["optimizer"])
    draws.set_state(state["draws"])
    return state["row"]["step"], state["row"]["seconds"]


def _save(
    folder: Path, learning: Learning, network: Any, optimizer: Any, draws: torch.Generator, rows: Sequence[Row]
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    parts = {"network": network.state_dict(), "optimizer": optimizer.state_dict(), "draws": draws.get_state()}
    write_tensors(folder / STATE, {"learning": dataclasses.asdict(learning), "row": rows[-1], **parts})
    write_rows(folder / ROWS, rows)


def _read(path: Path) -> Any:
    try:
        return read_tensors(path)
    except Exception as error:  # damaged bytes can raise anything
        _check.fail(f"{path} must hold the state of a training; reading it raised {type(error).__name__}. Delete it")
