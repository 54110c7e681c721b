"""The `stn` command, outside the library: what has to happen before that is loaded.

- Ctrl-C while it is being loaded ends in silence, too.
- Threads of OpenMP wait for each other without spinning. Beside one busy neighbor on two cores a training step of two
  threads takes 1.8 times as long so, and 2.8 times with spinning; alone the same within 10 %. `OMP_WAIT_POLICY` set by the
  user stays, and `stn bench` measures torch as it is.
"""

import os
import sys


def main() -> None:
    if sys.argv[1:2] != ["bench"]:
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        from stn.__main__ import main as command
    except KeyboardInterrupt:
        os._exit(130)
    command()
