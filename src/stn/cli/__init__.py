"""The command line: parse and call. One small module a subcommand, loaded when it is typed; `ending` says how they end."""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from collections.abc import Callable
from functools import cache

import torch
import tyro

from stn.cli.ending import prepare_output, well_ended

COMMANDS = ("train", "evaluate", "figures", "report", "export", "warp", "register", "bench", "reproduce", "demo")
DESCRIPTION = """Spatial transformers for PyTorch: layers that learn where to look.

Examples:
  stn demo                                                a CNN without and with the layer, in two minutes
  stn train --distortion r --epochs 6 --out runs/r        train a network; killed, it goes on with --resume
  stn report runs/r --out r.html                          one page: results, diagnosis, curves, looks
  stn warp photo.jpg out.png --rotate 45 --scale 0.8
  stn register moved.jpg photo.jpg out.png --transform affine
  stn reproduce table1 --root data --download --cells st-cnn-affine/* --budget quick

stn COMMAND -h tells of a command's options, stn --version of the versions. Completion of commands and options for bash, zsh
or tcsh: stn --tyro-write-completion bash ~/.local/share/bash-completion/completions/stn"""


CONFIG = (tyro.conf.FlagCreatePairsOff,)


def flowing(text: str) -> str:
    """A docstring with each paragraph and each argument on one line: help breaks lines where the terminal ends."""
    paragraphs = re.sub(r"(?<=\S)\n(?=\S)", " ", inspect.cleandoc(text))
    return re.sub(r"(?<=\S)\n {8,}", " ", paragraphs)


@cache
def loaded(command: str) -> Callable[..., None]:
    """The function of a command, from the module of its name: `stn warp` loads nothing of the laboratory."""
    function: Callable[..., None] = getattr(importlib.import_module(f"stn.cli.{command}"), command)
    function.__doc__ = flowing(function.__doc__ or "")
    return function


def main() -> None:
    """The command line that this process was started with."""
    prepare_output()
    words = sys.argv[1:]
    command = next((word for word in words if word in COMMANDS), "stn")
    with well_ended(command, names_of(command)):
        if words == ["--version"]:
            _print_versions()
        elif words[:1] == [command]:
            tyro.cli(loaded(command), prog=f"stn {command}", args=words[1:], config=CONFIG)
        else:  # help, completion, or no command
            app = tyro.extras.SubcommandApp()
            for name in COMMANDS:
                app.command(loaded(name))
            app.cli(prog="stn", description=DESCRIPTION, config=CONFIG)


def _print_versions() -> None:
    from stn.lab.experiments.checkpoint import stn_version

    print(f"stn {stn_version()}, torch {torch.__version__}")


def names_of(command: str) -> dict[str, str]:
    """Arguments of a command -> what the command line calls them."""
    if command not in COMMANDS:
        return {}
    given = inspect.signature(loaded(command)).parameters
    names = {name: "--" + name.replace("_", "-") for name in given}
    names |= {name: name.upper() for name in ("image", "moving", "fixed", "table", "run") if name in given}
    if command in ("warp", "register", "export"):
        names["out"] = "OUT"
    if command == "train":
        from stn.lab.experiments.runs import Run

        names |= {name: "--" + name.replace("_", "-") for name in Run.__dataclass_fields__} | {"accelerator": "--device"}
    return names
