"""Two processes give the results of one. If one process is killed, the job ends with a clear message and can be resumed."""

import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from stn.lab.experiments import RunFolder
from stn.lab.experiments.parallel import process_lost, processes
from stn.lab.experiments.train import train

STN = ["-m", "stn", "train", "--distortion", "r", "--draws", "1", "--accelerator", "cpu"]
TORCHRUN = ["-m", "torch.distributed.run", "--nproc-per-node", "2"]
SCRIPT = """
import sys, torch.distributed, stn.cli
stn.cli.main()
sys.exit("the process group is left to the interpreter's exit" if torch.distributed.is_initialized() else 0)
"""


def python(*words: object) -> list[str]:
    return [sys.executable, *map(str, words)]


@pytest.mark.parametrize("model, launch", [("st-fcn", "torchrun"), ("st-cnn", "devices")])
def test_two_processes_give_the_loss_curve_of_one(model: str, launch: str, tmp_path: Path) -> None:
    """Ten steps with the same global batch; batch norm takes its statistics over both processes. Both processes then end."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    flags = [script, *STN[2:], "--model", model, "--epochs", 2, "--batch-size", 2520, "--averaging", 0.5]
    flags += ["--off-image-weight", 0.1]
    flags += ["--lr", 3e-4, "--localization-lr", 3e-4]  # at ten times these rates, ten steps turn a rounding error into 1e-4
    both = {"torchrun": python(*TORCHRUN, *flags), "devices": python(*flags, "--devices", 2)}[launch]
    one, two = RunFolder(tmp_path / "one"), RunFolder(tmp_path / "two")
    for command, folder in ((python(*flags), one), (both, two)):
        subprocess.run([*command, "--out", str(folder.path)], check=True, stdout=subprocess.DEVNULL, timeout=300)
    assert len(one.rows()) == 3
    for ours, theirs in zip(two.rows(), one.rows(), strict=True):
        assert ours["step"] == theirs["step"]
        for key in {"loss", "train_loss", "mean_scale"} & set(theirs):
            assert ours[key] == pytest.approx(theirs[key], rel=1e-4), key
        if "theta_gradient" in theirs:
            assert ours["theta_gradient"] == pytest.approx(theirs["theta_gradient"], rel=1e-3)
        assert ours["error_percent"] == pytest.approx(theirs["error_percent"], abs=0.3)  # one image of 397


@pytest.mark.parametrize("victim", (0, 1))
def test_a_killed_process_ends_the_job_with_a_message_and_the_run_resumes(victim: int, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    flags = [*STN, "--model", "fcn", "--epochs", 5, "--batch-size", 630, "--devices", 2, "--out", folder.path]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    job = subprocess.Popen(python(*flags), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, env=environment, text=True)
    try:
        deadline = time.monotonic() + 120
        while not folder.rows() and time.monotonic() < deadline and job.poll() is None:
            time.sleep(0.01)
        children = Path(f"/proc/{job.pid}/task/{job.pid}/children").read_text().split()
        os.kill(job.pid if victim == 0 else int(children[0]), signal.SIGKILL)
        _, said = job.communicate(timeout=60)  # the pipe closes after the last process has ended
    finally:
        job.kill()
    assert job.returncode != 0
    assert (
        f"stn: process {1 - victim} of 2 lost contact with another one and exits" in said
        and "with --resume continues" in said
    )
    assert 0 < len(folder.rows()) < 5
    if victim == 0:
        train(dataclasses.replace(folder.run(), devices=1), folder, resume=True, quiet=True)  # with fewer processes
    else:
        subprocess.run(python(*flags, "--resume"), env=environment, stdout=subprocess.DEVNULL, timeout=300, check=True)
    assert [row["epoch"] for row in folder.rows()] == [*range(1, 6), 5]


def test_torchrun_says_how_many_processes_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    assert processes(3) == (3, 1)
    for key, value in {"TORCHELASTIC_RUN_ID": "x", "LOCAL_WORLD_SIZE": "4", "WORLD_SIZE": "8"}.items():
        monkeypatch.setenv(key, value)
    assert processes(1) == (4, 2)


def test_other_errors_are_not_taken_for_a_lost_process() -> None:
    assert process_lost(torch.distributed.DistBackendError("x")) and process_lost(RuntimeError("[gloo/pair.cc] reset"))
    assert not process_lost(RuntimeError("shapes do not fit"))
