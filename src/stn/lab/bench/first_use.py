"""The first use in a process: seconds beyond `import torch`, with an empty cache of kernels and with a full one."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Collection, Iterator
from typing import Any

from stn.lab.bench.costs import run

SUITE = "first_use"
TRAINING_STEP = """
layer = stn.SpatialTransformer.for_input((1, 28, 28), {options})
optimizer = torch.optim.SGD(layer.parameters(), 0.1)
layer(torch.rand(32, 1, 28, 28)).square().mean().backward()
optimizer.step()
"""
USES = {
    "affine_sample, forward": "stn.affine_sample(torch.rand(4, 3, 64, 64), torch.eye(2, 3) + 0.1)",
    "affine layer, training step": TRAINING_STEP.format(options='transform="affine"'),
    "thin-plate layer with border padding, training step": TRAINING_STEP.format(
        options='transform="tps", padding_mode="border"'
    ),
    "register, affine": """
image = torch.nn.functional.interpolate(torch.rand(1, 1, 6, 6), size=(64, 64), mode="bicubic")
stn.register(image, image.roll((2, -1), (2, 3)))
""",
}
TIMED = """
import json, time, torch
torch.manual_seed(0)
start = time.perf_counter()
import stn
{use}
print(json.dumps({{"seconds": time.perf_counter() - start}}))
"""


def first_use(done: Collection[str] = (), repeats: int = 5) -> Iterator[dict[str, Any]]:
    """Yield a row for each use that is not done. full_s is the median of the repeats, each in a new process."""
    for name, use in USES.items():
        if name not in done:
            with tempfile.TemporaryDirectory() as cache:
                code = TIMED.format(use=use)
                empty, *full = (run(code, cache=cache)["seconds"] for _ in range(1 + repeats))
            yield {"suite": SUITE, "case": name, "empty_s": empty, "full_s": statistics.median(full)}
