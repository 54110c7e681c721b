"""Large results reuse the memory of earlier results, but never memory that is still in use."""

import copy
import gc
import io
import multiprocessing
import pickle
import threading
import weakref
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

import stn
from stn.ops.cpu import memory
from stn.ops.cpu.memory import LEAST, empty_permuted
from tests.helpers import noise

pytestmark = pytest.mark.skipif(memory.storage_use_count is None, reason="this torch has no use count: no pool")
LARGE = (1, 1, 512, 512)  # one MiB
TWICE = (2, 1, 512, 512)


@pytest.fixture(autouse=True)
def empty_pool(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(memory, "_pool", [])
    yield


def large(shape: tuple[int, ...] = LARGE, dtype: torch.dtype = torch.float32) -> Tensor:
    return empty_permuted(shape, range(len(shape)), dtype)


def used_again(place: int, value: float) -> bool:
    """Return True if new results reuse the memory at this place with its old values. Fresh memory would be zero."""
    return any(result.data_ptr() == place and bool((result == value).all()) for result in [large() for _ in range(4)])


def test_a_result_takes_the_memory_of_a_dead_one() -> None:
    first = large().fill_(1)
    place = first.data_ptr()
    del first
    assert used_again(place, 1)


def sampled(value: float) -> Tensor:
    """Return a large result of a public operator, full of this value: the identity returns the image bit for bit."""
    return stn.affine_sample(torch.full(LARGE, float(value)), torch.eye(2, 3))


def gradient(value: float) -> Tensor:
    """Return a large gradient full of this value."""
    image = torch.zeros(LARGE, requires_grad=True)
    stn.affine_sample(image, torch.eye(2, 3)).backward(torch.full(LARGE, float(value)))
    assert image.grad is not None
    return image.grad


def values(kept: object) -> Tensor:
    """Return the values that the holder of a result, or of part of one, reads."""
    if isinstance(kept, weakref.ref):
        kept = kept()
    if isinstance(kept, torch.UntypedStorage):
        return torch.empty(0).set_(kept)
    if "PyCapsule" in type(kept).__name__:
        return torch.from_dlpack(kept)
    if isinstance(kept, torch.autograd.graph.Node):
        return kept._saved_self  # type: ignore[attr-defined]
    return torch.as_tensor(np.asarray(kept) if isinstance(kept, memoryview) else kept)


HOLDS: dict[str, Callable[[Tensor], object]] = {
    "the tensor": lambda result: result,
    "a view": lambda result: result[0, 0, 3:],
    "a detached view of a view": lambda result: result[0].detach()[..., 5:],
    "an array": lambda result: result.numpy(),
    "part of an array": lambda result: result.numpy()[0, 0, ::2],
    "a memory view of an array": lambda result: memoryview(result.numpy()[0, 0]),
    "its storage": lambda result: result.untyped_storage(),
    "a weak reference to its storage": lambda result: weakref.ref(result.untyped_storage()),
    "DLPack": lambda result: torch.from_dlpack(result),
    "an array by DLPack": lambda result: np.from_dlpack(result.detach()),
    "a capsule of DLPack": lambda result: torch.utils.dlpack.to_dlpack(result),
    "another tensor, by set_": lambda result: torch.empty(0).set_(result),  # type: ignore[call-overload]
    "a parameter": lambda result: nn.Parameter(result),
    "a graph that saved it": lambda result: (result.requires_grad_() ** 2).grad_fn,
}


@pytest.mark.parametrize("make", (sampled, gradient))
@pytest.mark.parametrize("hold", HOLDS.values(), ids=HOLDS)
def test_what_somebody_holds_is_never_overwritten_and_its_memory_is_used_again(
    make: Callable[[float], Tensor], hold: Callable[[Tensor], object]
) -> None:
    result = make(1)
    place = result.data_ptr()
    kept = hold(result)
    fixed = not result.untyped_storage().resizable()  # after `Tensor.numpy()`; such memory is not reused
    del result
    gc.collect()
    later = [make(value) for value in (2, 3, 4)]
    assert place not in {tensor.data_ptr() for tensor in later} and len({tensor.data_ptr() for tensor in later}) == 3
    assert [tensor.unique().tolist() for tensor in later] == [[2], [3], [4]]
    read = values(kept)
    assert read.numel() > 0 and (read == 1).all()
    del kept, read
    gc.collect()
    assert large().untyped_storage().resizable() if fixed else used_again(place, 1)


def test_a_shared_result_is_never_overwritten() -> None:
    """`share_memory_` moves the values to another place, which another process may use for longer."""
    result = sampled(1)
    place, view = result.data_ptr(), result[0, 0, 3:]
    assert result.share_memory_() is result and result.is_shared() and result.data_ptr() != place
    later = [sampled(value) for value in (2, 3)]
    assert (result == 1).all() and (view == 1).all() and view.is_shared()
    result.fill_(4)
    assert (view == 4).all() and [tensor.unique().tolist() for tensor in later] == [[2], [3]]
    shared = result.data_ptr()
    del result, view
    later += [sampled(value) for value in (5, 6)]
    assert shared not in {tensor.data_ptr() for tensor in later} and not any(tensor.is_shared() for tensor in later)
    assert [tensor.unique().tolist() for tensor in later] == [[2], [3], [5], [6]]


class Sampled(Dataset[Tensor]):
    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Tensor:
        return sampled(index)


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_what_a_worker_sends_or_inherits_is_never_overwritten() -> None:
    """A forked worker inherits copies of the unused and of the used blocks."""
    held, freed = sampled(10), sampled(11)
    del freed
    method = "fork" if "fork" in multiprocessing.get_all_start_methods() else None
    loader = DataLoader(Sampled(), batch_size=None, num_workers=1, prefetch_factor=1, multiprocessing_context=method)
    received: list[Tensor] = []
    mine: list[Tensor] = []
    for result in loader:
        received.append(result)
        mine.append(sampled(12 + len(mine)))  # the first one takes the block that was unused when the worker began
    assert [tensor.unique().tolist() for tensor in received] == [[0], [1], [2], [3]]
    assert [tensor.unique().tolist() for tensor in mine] == [[12], [13], [14], [15]] and (held == 10).all()


@pytest.mark.parametrize("alive", (False, True))
def test_the_pool_is_bounded(alive: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "KEPT", 3 * LEAST)
    results = [large() for _ in range(5)]
    places = [result.data_ptr() for result in results]
    if not alive:
        del results
    assert [storage.data_ptr() for storage in memory._pool] == places[-3:]
    large((4, 1, 512, 512))  # larger than the pool
    assert [storage.data_ptr() for storage in memory._pool] == places[-3:]


def test_results_that_their_user_emptied_or_enlarged_count_as_what_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "KEPT", 3 * LEAST)
    for _ in range(9):
        large().untyped_storage().resize_(0)
    assert len(memory._pool) <= 3
    large().resize_(3, 1, 512, 512)
    kept = large()
    assert [storage.data_ptr() for storage in memory._pool] == [kept.data_ptr()]


def test_no_pool_where_torch_cannot_tell_who_uses_a_storage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "storage_use_count", None)
    assert sampled(1).unique().tolist() == [1] and not memory._pool


def test_layout_and_dtype() -> None:
    for shape, order in (((3, 5, 160, 170), (0, 2, 3, 1)), ((2, 4, 200, 300), (0, 1, 2, 3))):
        for dtype in (torch.float32, torch.float64):
            got, expected = empty_permuted(shape, order, dtype), torch.empty_permuted(shape, order, dtype=dtype)
            assert (got.shape, got.stride(), got.dtype) == (expected.shape, expected.stride(), dtype)
            assert got.numel() * got.element_size() >= LEAST


def test_results_are_differentiated_like_any_other() -> None:
    """The old values of reused memory have no effect on a result or its derivatives."""
    image, theta = noise(1, 3, 500, 600, dtype=torch.float32).requires_grad_(), torch.eye(2, 3)[None] * 0.9
    stn.affine_sample(image.detach() * float("nan"), theta)
    out = stn.affine_sample(image, theta)
    assert out.isfinite().all()
    derivative = torch.func.jvp(lambda t: stn.affine_sample(image.detach(), t), (theta,), (theta,))
    assert torch.equal(derivative[0], out) and derivative[1].isfinite().all()  # torch refuses a view here
    out.sum().backward()
    assert image.grad is not None and image.grad.isfinite().all()


COPIES: dict[str, Callable[[Tensor], Tensor]] = {
    "pickle": lambda result: pickle.loads(pickle.dumps(result)),
    "torch.save": lambda result: saved_and_loaded(result),
    "deepcopy": copy.deepcopy,
    "clone": torch.clone,
}


def saved_and_loaded(result: Tensor) -> Tensor:
    file = io.BytesIO()
    torch.save(result, file)
    file.seek(0)
    loaded: Tensor = torch.load(file)
    return loaded


@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)
def test_a_copy_of_a_result_has_memory_of_its_own(copied: Callable[[Tensor], Tensor]) -> None:
    result = sampled(1)
    copy_of = copied(result)
    result.fill_(2)
    assert (copy_of == 1).all() and copy_of.shape == result.shape
    copy_of.fill_(3)
    assert (result == 2).all()


@pytest.mark.parametrize("shape", (LARGE, (512, 512), (1, 1, 16, 20), (0,)))
def test_results_are_resized_in_place(shape: tuple[int, ...]) -> None:
    result = sampled(1)
    place = result.data_ptr()
    assert result.resize_(shape) is result and result.shape == shape and (result == 1).all()
    assert sampled(2).data_ptr() != place and (result == 1).all()
    result.resize_(LARGE)  # the memory has not been released
    assert result.data_ptr() == place and (result == 1).all()


def test_no_storage_that_a_call_reads_or_writes_is_fixed_in_size() -> None:
    """`Tensor.numpy()` would make the caller's own tensors fixed in size, whatever their size."""
    image, theta, fill = torch.zeros(1, 2, 8, 9).requires_grad_(), torch.eye(2, 3)[None].requires_grad_(), torch.ones(2)
    grid = torch.zeros(1, 8, 9, 2).requires_grad_()
    for last, mode in ((False, "bilinear"), (True, "bilinear"), (False, "bspline")):
        given = image.detach().contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)
        given.requires_grad_()
        for sampler, at in ((stn.affine_sample, theta), (stn.grid_sample, grid)):
            out = sampler(given, at, mode=mode, fill_value=fill)
            weight = torch.ones_like(out)
            found = torch.autograd.grad(out, (given, at), weight)
            for tensor in (given, fill, weight, out, *found):
                assert tensor.untyped_storage().resizable()
    level = stn.affine_sample(image.detach(), theta.detach() * 0.3, (4, 4), antialias=True)
    assert level.untyped_storage().resizable() and image.untyped_storage().resizable()


@pytest.mark.parametrize("make", (sampled, gradient))
def test_results_grow(make: Callable[[float], Tensor]) -> None:
    result = make(1)
    assert result.resize_(TWICE) is result and result.shape == TWICE and (result[0] == 1).all()
    result.fill_(2)
    later = [make(value) for value in (3, 4)]
    assert (result == 2).all() and [tensor.unique().tolist() for tensor in later] == [[3], [4]]
    place = result.data_ptr()
    del result
    assert place not in {tensor.data_ptr() for tensor in (make(5), make(6))}  # its size is different now
    again = large(TWICE)
    assert again.data_ptr() == place and (again == 2).all()


def test_the_storage_of_a_result_is_emptied_and_filled_again() -> None:
    """FSDP does this with the parameters that it gathers."""
    result = sampled(1)
    storage = result.untyped_storage()
    nbytes = storage.nbytes()
    storage.resize_(0)
    later = [sampled(value) for value in (2, 3)]
    storage.resize_(nbytes)
    result.fill_(4)
    later += [sampled(5)]
    assert (result == 4).all() and [tensor.unique().tolist() for tensor in later] == [[2], [3], [5]]
    storage.resize_(0)
    del result, storage
    assert [sampled(value).unique().tolist() for value in (6, 7)] == [[6], [7]]


@pytest.mark.parametrize("shape", (LARGE, (1, 1, 16, 20), TWICE))
@pytest.mark.filterwarnings("ignore:An output with one or more elements was resized:UserWarning")
def test_results_are_the_out_of_torchs_functions(shape: tuple[int, ...]) -> None:
    result = sampled(1)
    place = result.data_ptr()
    found = torch.add(torch.full(shape, 2.0), 3, out=result)
    later = sampled(6)
    assert found is result and found.shape == shape and (found == 5).all() and (later == 6).all()
    assert found.data_ptr() != later.data_ptr() and (found.data_ptr() == place or shape == TWICE)


@pytest.mark.parametrize("held", (False, True))
def test_results_are_set_to_other_memory(held: bool) -> None:
    """The result's own memory is then unused, unless a view holds it."""
    result = large().fill_(1)
    place, view = result.data_ptr(), result[0] if held else None
    result.set_(torch.arange(3.0))  # type: ignore[call-overload]
    assert result.tolist() == [0, 1, 2]
    assert used_again(place, 1) == (not held)
    later = [sampled(value) for value in (2, 3)]
    assert view is None or (view == 1).all()
    public = sampled(4)
    public.set_(torch.arange(3.0))  # type: ignore[call-overload]
    assert public.tolist() == [0, 1, 2] and [tensor.unique().tolist() for tensor in later] == [[2], [3]]


def test_a_training_step_asks_for_no_new_memory() -> None:
    image, theta = noise(2, 3, 400, 500).requires_grad_(), torch.eye(2, 3)[None].repeat(2, 1, 1) * 0.9
    made = []
    for _ in range(3):
        image.grad = None
        stn.affine_sample(image, theta).sum().backward()
        gc.collect()
        made.append({storage.data_ptr() for storage in memory._pool})
    assert made[0] and made[2] == made[1]


def test_two_threads_never_take_the_same_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """One thread pauses after it finds unused memory and before it takes it. The other thread does not wait."""
    first = large().fill_(1)
    place, found, go_on, results = first.data_ptr(), threading.Event(), threading.Event(), list[Tensor]()
    del first
    is_unused = memory._is_unused

    def held(i: int) -> bool:
        unused = is_unused(i)
        if threading.current_thread() is thread:
            found.set()
            go_on.wait(10)
        return unused

    monkeypatch.setattr(memory, "_is_unused", held)
    thread = threading.Thread(target=lambda: results.append(large()))
    thread.start()
    assert found.wait(10)
    results.append(large())
    assert thread.is_alive()
    go_on.set()
    thread.join()
    places = [result.data_ptr() for result in results]
    assert places[1] == place != places[0]


def test_a_destructor_may_sample_while_memory_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """The garbage collector can run a destructor at any time, also in the thread that holds the lock."""
    results: list[Tensor] = []
    large()
    is_unused = memory._is_unused

    def interrupted(i: int) -> bool:
        if not results:
            results.append(sampled(1))
        return is_unused(i)

    monkeypatch.setattr(memory, "_is_unused", interrupted)
    results.append(sampled(2))
    assert [result.unique().tolist() for result in results] == [[1], [2]]
    assert results[0].data_ptr() != results[1].data_ptr()


def test_nothing_with_another_owner_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory with two users is not taken, whatever Python's own count is. (Since torch 2.13 the two counts agree.)"""
    large()
    monkeypatch.setattr(memory, "storage_use_count", lambda storage: 2)
    large()
    assert len(memory._pool) == 2
