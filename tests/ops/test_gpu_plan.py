"""The host code of the GPU kernels: equal calls share a plan, and a compiled kernel is held and gets its arguments."""

import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any

import pytest
import torch
from torch import Tensor

import stn
from stn.ops import dispatch, gpu
from stn.ops.rules import Matrix
from stn.ops.sampling import named
from tests.ops.test_calls import PACKAGE

pytest.importorskip("triton")
if torch.cuda.is_available():
    pytest.skip("these tests stand in for a device", allow_module_level=True)
META = torch.device("meta")
BOUNDS = {"forward": 30, "both": 57}  # calls of functions; no change raises them


class Compiled:
    """Stands in for a kernel that Triton compiled: it keeps the arguments of each launch."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.launched: list[tuple[Any, ...]] = []

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        assert len(grid) == 3
        return lambda *arguments: self.launched.append(arguments)


class Stub:
    """Stands in for `run`: it compiles."""

    def __init__(self) -> None:
        self.compiled: dict[str, list[Compiled]] = {}
        self.arguments: list[tuple[Any, ...]] = []

    def __call__(self, kernel: Any, device: Any, programs: int, *arguments: Any, **constants: Any) -> Compiled:
        found = Compiled(kernel.fn.__name__)
        self.compiled.setdefault(found.name, []).append(found)
        values = dict(zip(kernel.arg_names, arguments, strict=False)) | constants
        self.arguments.append(tuple(values[name] for name in kernel.arg_names))
        return found


@pytest.fixture(autouse=True)
def stub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stub]:
    found = Stub()
    monkeypatch.setattr("stn.ops.gpu.launch._plans", {})
    monkeypatch.setattr("stn.ops.gpu.launch.run", found)
    monkeypatch.setattr(dispatch, "_zeros", {})
    monkeypatch.setitem(dispatch.KERNELS, "meta", gpu)
    monkeypatch.setattr(dispatch, "kernels_for", lambda rule, image, data, sampling: gpu)
    yield found


def tensors(learned: bool = False, shape: tuple[int, ...] = (2, 3, 20, 30)) -> tuple[Tensor, Tensor]:
    image, theta = torch.empty(shape, device=META), torch.empty(2, 2, 3, device=META)
    return image.requires_grad_(learned), theta.requires_grad_(learned)


def same(ours: Any, theirs: Any) -> bool:
    return ours.shape == theirs.shape if isinstance(ours, Tensor) else bool(ours == theirs)


def test_a_compiled_kernel_is_held(stub: Stub) -> None:
    """It gets every argument, constants included, in the order of the kernel's parameters."""
    for _ in range(3):
        assert stn.affine_sample(*tensors()).shape == (2, 3, 20, 30)
    (compiled,) = stub.compiled["sample_kernel"]
    assert len(compiled.launched) == 2 and len(stub.arguments) == 1
    for arguments in compiled.launched:
        assert len(arguments) == len(stub.arguments[0])
        assert all(map(same, arguments, stub.arguments[0]))
    stn.affine_sample(*tensors(), padding_mode="border")
    stn.affine_sample(*tensors(shape=(2, 3, 20, 31)))
    assert len(stub.compiled["sample_kernel"]) == 3


def test_both_gradients_are_one_launch_and_a_sum(stub: Stub) -> None:
    for _ in range(2):
        image, theta = tensors(learned=True)
        stn.affine_sample(image, theta).sum().backward()
        assert image.grad is not None and theta.grad is not None
    assert {name: len(found) for name, found in stub.compiled.items()} == dict.fromkeys(
        ("sample_kernel", "gradient_kernel", "add_up"), 1
    )
    assert all(len(found[0].launched) == 1 for found in stub.compiled.values())


def test_other_addresses_are_not_launched_with_a_held_kernel(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    stn.affine_sample(*tensors())
    image, theta = tensors()
    monkeypatch.setattr(Tensor, "data_ptr", lambda self: 8 if self is image else 0)
    stn.affine_sample(image, theta)
    first, second = stub.compiled["sample_kernel"]
    assert first.launched == second.launched == []
    monkeypatch.undo()


def test_amd_holds_no_kernel(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    """There Triton also compiles for the size of the memory behind a tensor."""
    monkeypatch.setattr("torch.version.hip", "6.4")
    for _ in range(2):
        stn.affine_sample(*tensors())
    assert len(stub.compiled["sample_kernel"]) == 2


def test_plans_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    from stn.ops.gpu import launch

    monkeypatch.setattr(launch, "KEPT", 4)
    for n in range(10):
        stn.affine_sample(*tensors(shape=(2, 1, 4, 5 + n)))
        assert len(launch._plans) <= 4
    image, theta = tensors()
    plan = launch.plan_of(
        Matrix((20, 30)), image, theta.unsqueeze(1), torch.empty((), device=META), named("bilinear", "zeros", False)
    )
    for n in range(10):
        plan.gradients(torch.empty(2, 1, 3, 20, 30 + n, device=META)[..., :30], True, True)
        assert len(plan.backward) <= 4


def test_the_zero_of_padding_is_made_once_and_can_be_kept_for_backward(stub: Stub) -> None:
    with torch.inference_mode():
        stn.affine_sample(*tensors())
    zeros = dict(dispatch._zeros)
    image, theta = tensors(learned=True)
    stn.affine_sample(image, theta).sum().backward()
    assert list(dispatch._zeros.items()) == list(zeros.items()) and len(zeros) == 1
    (zero,) = zeros.values()
    assert not zero.is_inference() and zero.dtype == torch.float32
    stn.affine_sample(*tensors(), fill_value=0.5)
    assert stub.arguments[-1] is not zero and len(dispatch._zeros) == 1


def test_looks_keep_their_axis(stub: Stub) -> None:
    image, theta = tensors()
    assert stn.affine_sample(image, theta.unsqueeze(1).expand(2, 4, 2, 3)).shape == (2, 4, 3, 20, 30)
    assert stn.affine_sample(image, theta[0], size=(5, 6)).shape == (2, 3, 5, 6)


def entered(function: Any) -> int:
    """Return the number of calls of functions of the package; torch's own for tensors without memory differ from a GPU's."""
    count, before = 0, sys.getprofile()

    def record(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal count
        count += event == "call" and frame.f_code.co_filename.startswith(PACKAGE)

    sys.setprofile(record)
    try:
        function()
    finally:
        sys.setprofile(before)
    return count


@pytest.mark.parametrize("task", BOUNDS)
def test_a_call_passes_through_little_python(task: str) -> None:
    image, theta = tensors(learned=task == "both")

    def call() -> None:
        out = stn.affine_sample(image, theta)
        if task == "both":
            torch.autograd.grad(out, (image, theta), torch.empty_like(out))

    for _ in range(3):
        found = entered(call)
    assert found <= BOUNDS[task], found
