"""`stn`, and `python -m stn`."""

import sys

from stn import _check


def main() -> None:
    """The command line, or a sentence where what it is made of is not installed."""
    try:
        _check.installed("tyro", "train")
    except _check.InputError as error:
        sys.exit(f"stn: {error}")
    from stn.cli import main as command_line

    command_line()


if __name__ == "__main__":
    main()
