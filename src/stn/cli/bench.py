"""`stn bench`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

from stn.cli.options import Device, one_of
from stn.lab.bench.cases import NAMES


def bench(
    out: Annotated[
        Path | None, tyro.conf.arg(metavar="NAME", help_behavior_hint="(default: runs/bench/ and the device)")
    ] = None,
    suites: Annotated[
        tuple[str, ...], tyro.conf.arg(metavar=f"[{one_of((*NAMES, 'all'))} ..]", help_behavior_hint="(default: all)")
    ] = (),
    threads: Annotated[tuple[int, ...], tyro.conf.arg(metavar="INT [INT ..]")] = (1, 2),
    device: Device = "cpu",
    rounds: int = 11,
    trial: Annotated[bool, tyro.conf.arg(help_behavior_hint="")] = False,
    resume: Annotated[bool, tyro.conf.arg(help_behavior_hint="")] = False,
    minutes: float = 8.0,
) -> None:
    """Compare the speed of the operators with torch, torch.compile, kornia and OpenCV.

    This takes about an hour, and nothing else should run on the machine.

    Args:
        out: Output path of the rows (.json) and the tables (.md), without the suffix. Existing files are renamed and kept.
        suites: Suites to measure. `all` on cuda runs each suite in its own process, records errors as rows, and gives a
            verdict for each bar.
        threads: Numbers of CPU threads to measure with.
        device: Device to measure on. On cuda, times are measured between events; opencv, costs and first_use are not
            available.
        rounds: Number of rounds. In each round every library is measured once.
        trial: Use small images, to test the setup.
        resume: Keep the rows in --out, and measure the missing ones.
        minutes: Most minutes that `--device cuda --suites all` takes.
    """
    from stn.io.files import beside
    from stn.lab.bench.run import bench as measure
    from stn.lab.bench.run import bench_everything

    out, everything = out or Path("runs/bench") / device.replace(":", ""), suites == ("all",)
    if everything and device.partition(":")[0] == "cuda":
        bench_everything(out, device, minutes=minutes, rounds=rounds, trial=trial)
        print(beside(out, ".md"))
        return
    suites = () if everything else suites
    measure(out, suites=suites, threads=threads, device=device, rounds=rounds, trial=trial, resume=resume)
    print(beside(out, ".md"))
