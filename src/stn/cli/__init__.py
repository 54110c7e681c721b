"""The command line: parse and call. Each subcommand has a small module, loaded on use; `ending` ends a command."""

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

COMMANDS = (
    "train",
    "evaluate",
    "figures",
    "report",
    "export",
    "read",
    "warp",
    "register",
    "bench",
    "reproduce",
    "demo",
    "warm-up",
)
DESCRIPTION = """Spatial transformers for PyTorch: layers that learn which region of an image to sample.

Examples:
  stn demo                                                a CNN without and with the layer, in two minutes
  stn train --distortion r --epochs 6 --out runs/r        train a network; --resume continues after a kill
  stn report runs/r --out r.html                          one page: results, diagnosis, curves, pictures
  stn warp photo.jpg out.png --rotate 45 --scale 0.8
  stn register moved.jpg photo.jpg out.png --transform affine
  stn reproduce table1 --root data --download --cells st-cnn-affine/* --budget quick

stn COMMAND -h describes the options of a command. stn --version prints the versions. To complete commands and options in
bash, zsh or tcsh: stn --tyro-write-completion bash ~/.local/share/bash-completion/completions/stn"""


CONFIG = (tyro.conf.FlagCreatePairsOff,)


def flowing(text: str) -> str:
    """Join each paragraph and each argument of a docstring to one line; the help wraps lines at the terminal width."""
    paragraphs = re.sub(r"(?<=\S)\n(?=\S)", " ", inspect.cleandoc(text))
    return re.sub(r"(?<=\S)\n {8,}", " ", paragraphs)


@cache
def loaded(command: str) -> Callable[..., None]:
    """Return the function of a command from its module, so that `stn warp` does not load `stn.lab`."""
    name = command.replace("-", "_")
    function: Callable[..., None] = getattr(importlib.import_module(f"stn.cli.{name}"), name)
    function.__doc__ = flowing(function.__doc__ or "")
    return function


def main() -> None:
    """Run the command line of this process."""
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
    """Return the arguments of a command and their names on the command line."""
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
