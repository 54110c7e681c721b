"""The `stn` command, outside the library: Ctrl-C while that is being loaded ends in silence, too."""

import os


def main() -> None:
    try:
        from stn.__main__ import main as command
    except KeyboardInterrupt:
        os._exit(130)
    command()
