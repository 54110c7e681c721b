"""Large results take the memory of earlier ones, and of no living one."""

import gc
import pickle
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

import stn
from stn.ops.cpu import memory
from stn.ops.cpu.memory import LEAST, empty_permuted
from tests.helpers import noise

LARGE = (1, 1, 512, 512)  # a megabyte


@pytest.fixture(autouse=True)
def nothing_waits(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(memory, "_waiting", [])
    yield


def large(shape: tuple[int, ...] = LARGE, dtype: torch.dtype = torch.float32) -> Tensor:
    return empty_permuted(shape, range(len(shape)), dtype)


def test_a_result_takes_the_memory_of_a_dead_one() -> None:
    first = large()
    place = first.data_ptr()
    del first
    assert large().data_ptr() == place


def test_no_living_tensor_view_or_array_loses_its_memory() -> None:
    view, array = large().fill_(1)[0, 0, 3:], large().fill_(2).numpy()
    others = [large().fill_(3) for _ in range(3)]
    assert len({tensor.data_ptr() for tensor in others}) == 3
    assert (view == 1).all() and (array == 2).all()


def test_what_waits_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "KEPT", 3 * LEAST)
    results = [large() for _ in range(5)]
    del results
    assert sum(map(len, memory._waiting)) == 3 * LEAST


def test_layout_and_dtype() -> None:
    for shape, order in (((3, 5, 160, 170), (0, 2, 3, 1)), ((2, 4, 200, 300), (0, 1, 2, 3))):
        for dtype in (torch.float32, torch.float64):
            got, expected = empty_permuted(shape, order, dtype), torch.empty_permuted(shape, order, dtype=dtype)
            assert (got.shape, got.stride(), got.dtype) == (expected.shape, expected.stride(), dtype)
            assert got.numel() * got.element_size() >= LEAST


def test_results_are_tensors_like_any_other() -> None:
    """They are saved, deep-copied and differentiated; what lived in their memory before is not seen."""
    image, theta = noise(1, 3, 500, 600, dtype=torch.float32).requires_grad_(), torch.eye(2, 3)[None] * 0.9
    stn.affine_sample(image.detach() * float("nan"), theta)
    out = stn.affine_sample(image, theta)
    assert out.isfinite().all()
    derivative = torch.func.jvp(lambda t: stn.affine_sample(image.detach(), t), (theta,), (theta,))
    assert torch.equal(derivative[0], out) and derivative[1].isfinite().all()  # torch refuses a view here
    assert torch.equal(pickle.loads(pickle.dumps(out.detach())), out)
    assert torch.equal(out.detach().clone().share_memory_(), out)
    out.sum().backward()
    assert image.grad is not None and image.grad.isfinite().all()


def test_a_training_step_asks_the_system_for_no_new_memory() -> None:
    image, theta = noise(2, 3, 400, 500).requires_grad_(), torch.eye(2, 3)[None].repeat(2, 1, 1) * 0.9
    for step in range(3):
        image.grad = None
        stn.affine_sample(image, theta).sum().backward()
        gc.collect()
        waiting = sorted(id(block) for block in memory._waiting)
        if step == 1:
            before = waiting
    assert waiting == before
