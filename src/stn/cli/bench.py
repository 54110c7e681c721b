"""`stn bench`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

from stn.cli.options import Device, one_of
from stn.lab.bench.cases import SUITES


def bench(
    out: Annotated[
        Path | None, tyro.conf.arg(metavar="NAME", help_behavior_hint="(default: runs/bench/ and the device)")
    ] = None,
    suites: Annotated[
        tuple[str, ...], tyro.conf.arg(metavar=f"[{one_of([*SUITES, 'costs'])} ..]", help_behavior_hint="(default: all)")
    ] = (),
    threads: Annotated[tuple[int, ...], tyro.conf.arg(metavar="INT [INT ..]")] = (1, 2),
    device: Device = "cpu",
    rounds: int = 11,
    trial: Annotated[bool, tyro.conf.arg(help_behavior_hint="")] = False,
    resume: Annotated[bool, tyro.conf.arg(help_behavior_hint="")] = False,
) -> None:
    """Measure the operators beside torch, torch.compile, kornia and OpenCV (about half an hour; nothing else should run).

    Args:
        out: Where to write the rows (.json) and the table (.md), without the suffix. Older ones of that name are kept aside.
        suites: What to measure.
        threads: Numbers of threads to measure with, on the CPU.
        device: Where to compute; on cuda for the time between events beside a copy on the device (no opencv, no costs).
        rounds: How often every contender is measured, in turns.
        trial: Small images, to try the machinery.
        resume: Keep the rows that --out has, and measure the rest.
    """
    from stn.io.files import beside
    from stn.lab.bench.run import bench as measure

    out = out or Path("runs/bench") / device.replace(":", "")
    measure(out, suites=suites, threads=threads, device=device, rounds=rounds, trial=trial, resume=resume)
    print(beside(out, ".md"))
