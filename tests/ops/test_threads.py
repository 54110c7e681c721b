"""Python threads that sample at the same time, with each of Numba's threading layers."""

import ast
import os
import subprocess
import sys

import pytest

from stn.ops.cpu import compiling

WORK = """
import threading, torch, stn
torch.set_num_threads(2)
image, theta = torch.rand(2, 3, 300, 300), torch.eye(2, 3) + 0.1
expected = stn.affine_sample(image, theta) if {warm} else None
found, start = [], threading.Barrier(4)

def work():
    start.wait()
    for _ in range(20):
        found.append(stn.affine_sample(image, theta))

threads = [threading.Thread(target=work) for _ in range(4)]
[thread.start() for thread in threads], [thread.join() for thread in threads]
import numba
assert len(found) == 80 and all(torch.equal(out, found[0]) for out in found)
assert expected is None or torch.equal(expected, found[0])
print(numba.threading_layer())
"""


@pytest.mark.parametrize("layer, warm", (("workqueue", True), ("workqueue", False), ("default", False)))
def test_four_threads_at_once(layer: str, warm: bool) -> None:
    """Under workqueue, the layer without OpenMP and TBB, two threads in one call abort the process; hence the subprocess."""
    environment = os.environ | {"NUMBA_THREADING_LAYER": layer, "OMP_NUM_THREADS": "2", "NUMBA_NUM_THREADS": "2"}
    command = [sys.executable, "-W", "error", "-c", WORK.format(warm=warm)]
    out = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert out.returncode == 0, out.stderr[-2000:]
    assert layer == "default" or out.stdout.strip() == layer


def test_the_names_of_kernels_cover_all_that_is_compiled_into_them() -> None:
    """This includes constants of other modules: every module from which a kernel's file imports them is hashed."""
    hashed = {path.name for path in compiling.FILES}
    for path in compiling.FILES:
        for node in ast.walk(ast.parse(path.read_text())) if path.parent.name == "cpu" else ():
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("stn.ops."):
                module, constants = node.module.split(".")[-1], [a.name for a in node.names if a.name.isupper()]
                assert not constants or f"{module}.py" in hashed, (path.name, node.module, constants)
    assert {"reference.py", "points.py", "lanes.py"} <= hashed
