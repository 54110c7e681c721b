"""torch's private names are used in one file, and still work as expected."""

import re
from pathlib import Path

import torch
from torch.autograd import forward_ad

import stn
from stn.ops import torch_private as private

SOURCE = Path(stn.__file__).parent
LIBRARY = [path for path in SOURCE.rglob("*.py") if SOURCE / "lab" not in path.parents and path.name != "torch_private.py"]
PRIVATE = re.compile(r"\btorch\.(?:\w+\.)*_[a-z]\w*|\btorch\._C\b|from torch\S*\._\w+|\bforward_ad\._\w+")


def test_no_other_file_of_the_library_has_one() -> None:
    found = {f"{path.name}: {name}" for path in LIBRARY for name in PRIVATE.findall(path.read_text())}
    assert found == ALLOWED


# The private name of Dynamo, which is checked in code that must not load Dynamo.
ALLOWED = {"operator.py: torch._dynamo"}


def test_private_names_are_found() -> None:
    for line in ("torch._C._f()", "from torch._functorch.utils import x", "forward_ad._current_level", "torch.library._x"):
        assert PRIVATE.search(line), line
    assert not PRIVATE.search("torch.library.Library, from torch.autograd import forward_ad, torch.float32")


def test_they_mean_what_they_are_taken_for() -> None:
    assert not private.is_transformed() and not private.in_forward_mode() and not private.in_torch_func()
    seen = []
    torch.func.vmap(lambda x: seen.append(private.in_torch_func()) or x)(torch.zeros(2))  # type: ignore[func-returns-value]
    assert seen == [True]
    with forward_ad.dual_level():
        assert private.in_forward_mode() and private.is_transformed()
    assert private.count_dispatch_modes() == 0 and private.tracing_state() is None and private.records_tangents()

    def square(x: torch.Tensor) -> torch.Tensor:
        seen.append(private.is_legacy_batched(x))
        return x * x

    x = torch.ones(3, requires_grad=True)
    x.register_hook(lambda grad: seen.append(private.is_legacy_batched(grad)))
    torch.autograd.grad(square(x), x, torch.eye(3), is_grads_batched=True)
    assert seen[1:] == [False, True]


def test_the_use_count_of_a_storage_counts_its_tensors() -> None:
    storage = torch.UntypedStorage(8)
    assert private.storage_use_count(storage._cdata) == 1
    tensor = torch.empty(0).set_(storage, 0, (2,), (1,))
    assert private.storage_use_count(storage._cdata) == 2
    view = tensor[1:]
    assert private.storage_use_count(storage._cdata) == 3
    del tensor, view
    assert private.storage_use_count(storage._cdata) == 1
