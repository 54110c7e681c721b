"""One-time costs of a process: import, compilation, memory. Each is measured in a separate process."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

from stn.lab.bench.cases import SHAPES, Case

IMPORT = """
import json, time
start = time.perf_counter(); import torch; torch_s = time.perf_counter() - start
start = time.perf_counter(); import stn; print(json.dumps({"torch": torch_s, "stn": time.perf_counter() - start}))
"""

FIRST_CALL = """
import json, time, torch, stn
image, theta = torch.rand(4, 3, 64, 64), torch.eye(2, 3).requires_grad_()
start = time.perf_counter(); out = stn.affine_sample(image, theta); forward = time.perf_counter() - start
start = time.perf_counter(); out.sum().backward(); backward = time.perf_counter() - start
print(json.dumps({"forward": forward, "backward": backward}))
"""

# Peak memory of a call: its output and its temporary memory.
PEAK = """
import json, sys, torch, stn
from pathlib import Path
from stn.lab.bench.cases import Case
def resident(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) * 1024
case = Case("memory", tuple(json.loads(sys.argv[1])))
small = torch.rand(2, case.shape[1], *(256 if len(case.shape) == 4 else 48 for _ in case.shape[2:]))
stn.affine_sample(small, case.theta()[:1].expand(2, -1, -1))  # compiles or loads; starts the threads
image, theta = case.image(), case.theta()
before = resident("VmRSS")
Path("/proc/self/clear_refs").write_text("5")
out = stn.affine_sample(image, theta)
print(json.dumps({"extra": resident("VmHWM") - before - out.numel() * 4, "tensors": 2 * out.numel() * 4}))
"""


def run(code: str, *arguments: str, cache: str | None = None, triton_cache: str | None = None) -> dict[str, float]:
    environment = os.environ | ({"NUMBA_CACHE_DIR": cache} if cache else {})
    environment |= {"TRITON_CACHE_DIR": triton_cache} if triton_cache else {}
    out = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True, env=environment
    )
    result: dict[str, float] = json.loads(out.stdout)
    return result


def costs(repeats: int = 5) -> Iterator[dict[str, Any]]:
    imports = [run(IMPORT) for _ in range(repeats)]
    yield {"suite": "costs", "case": "import", **{k: statistics.median(row[k] for row in imports) for k in ("torch", "stn")}}
    with tempfile.TemporaryDirectory() as cache:
        yield {"suite": "costs", "case": "first call, compiling", **run(FIRST_CALL, cache=cache)}
        later = [run(FIRST_CALL, cache=cache) for _ in range(repeats)]
        middle = {k: statistics.median(row[k] for row in later) for k in later[0]}
        yield {"suite": "costs", "case": "first call of a later process", **middle}
    if sys.platform == "linux":
        for shape in SHAPES:
            row = run(PEAK, json.dumps(shape))
            share = max(0.0, row["extra"] / row["tensors"])
            yield {"suite": "memory", "case": Case("memory", shape).name, "share": share, "extra_bytes": row["extra"]}
