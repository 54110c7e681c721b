"""`stn`, and `python -m stn`."""

import multiprocessing
import os
import sys

from stn import _check


def main() -> None:
    """Run the command line, or print a sentence if a package for it is not installed."""
    try:
        _check.installed("tyro", "cli")
        from stn.cli import main as command_line

        command_line()
    except _check.InputError as error:
        sys.exit(f"stn: {error}")
    except KeyboardInterrupt:  # while the command line was still loading
        leave(130)
    except SystemExit as end:
        if end.code in (130, 143):
            leave(int(end.code))
        raise


def leave(code: int) -> None:
    """Exit at once, without waiting for worker processes, which end too."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            pass
    for child in multiprocessing.active_children():
        child.kill()
    os._exit(code)


if __name__ == "__main__":
    main()
