"""Options shared by several commands, with the same name and meaning."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, arg

Folder = Annotated[Positional[Path], arg(metavar="RUN", help_behavior_hint="(required)")]
Folders = Annotated[Positional[tuple[Path, ...]], arg(metavar="RUN [RUN ..]", help_behavior_hint="")]
Root = Annotated[Path | None, arg(metavar="DIR", help_behavior_hint="(default: that of the training)")]
Device = Annotated[str, arg(metavar="{cpu,cuda,cuda:1,..}")]
MaxPixels = Annotated[int, arg(metavar="INT")]
Download = Annotated[bool, arg(help_behavior_hint="")]


def one_of(names: Any) -> str:
    """Format the choices of an option for the help."""
    return "{" + ",".join(names) + "}"
