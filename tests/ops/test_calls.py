"""The overhead of a small call in Python: functions called, and files of the package involved."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import pytest
import torch

import stn

PACKAGE = str(Path(stn.__file__).parent)


class Cost(NamedTuple):
    calls: int  # of Python functions, including torch's
    files: int  # of the package that contain these functions


# The bounds were measured on Python 3.11 with torch 2.13.0 (2.14.1 calls fewer functions). A change that needs less lowers
# them; no change raises them.
BOUNDS = {
    "affine_sample": Cost(calls=19, files=10),
    "training step, forward": Cost(calls=30, files=10),
    "training step, backward": Cost(calls=27, files=6),
}


def cost(function: Callable[[], object]) -> Cost:
    entered: list[str] = []

    def record(frame: FrameType, event: str, argument: Any) -> None:
        if event == "call":
            entered.append(frame.f_code.co_filename)

    before = sys.getprofile()
    sys.setprofile(record)
    try:
        function()
    finally:
        sys.setprofile(before)
    del entered[0]  # the function itself
    return Cost(len(entered), len({name for name in entered if name.startswith(PACKAGE)}))


def measured() -> dict[str, Cost]:
    """Return the cost of repeated calls: the first call of each kind compiles kernels and fills caches."""
    image, theta = torch.rand(1, 1, 28, 28), 0.9 * torch.eye(2, 3).unsqueeze(0)
    learned = image.clone().requires_grad_(), theta.clone().requires_grad_()
    found = {}
    for _ in range(3):
        results: list[torch.Tensor] = []
        found["affine_sample"] = cost(lambda: stn.affine_sample(image, theta))
        found["training step, forward"] = cost(lambda: results.append(stn.affine_sample(*learned)))  # noqa: B023
        found["training step, backward"] = cost(lambda: results[0].sum().backward())  # noqa: B023
    return found


@pytest.fixture(scope="module")
def costs() -> dict[str, Cost]:
    return measured()


@pytest.mark.parametrize("what", BOUNDS)
def test_a_small_call_passes_through_little_python(costs: dict[str, Cost], what: str) -> None:
    found, bound = costs[what], BOUNDS[what]
    assert found.calls <= bound.calls and found.files <= bound.files


def test_calls_and_files_are_counted() -> None:
    def helper() -> int:
        return 1

    assert cost(lambda: [helper(), helper(), len("builtin")]) == Cost(calls=2, files=0)
    assert cost(lambda: stn.transforms.family("affine")).files >= 1
