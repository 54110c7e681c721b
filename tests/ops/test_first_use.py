"""First use: what compiles, who is told, and where it is kept. Processes of their own, with caches of their own.

NUMBA_OPT=1 compiles in a third of the time. Nothing here measures speed.
"""

import gc
import io
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from numba.core import event
from numba.core.dispatcher import Dispatcher
from torch import Tensor

import stn
from stn.ops import dispatch
from stn.ops.context import without_kernels
from stn.ops.cpu import ahead, kernels, notice
from stn.ops.cpu.compiling import merged, specialized
from stn.ops.cpu.kernels import BODIES
from tests.helpers import noise

SOURCE = Path(__file__).parents[2] / "src"
COUNTS = "from stn.ops.cpu.compiling import counts; print(*counts())"
WARM = """
if __name__ == "__main__":
    from stn.ops.cpu.ahead import Job, SINGLE, compile_ahead
    kinds = [Job("stages", (kind, SINGLE)) for kind in ("affine", "projective", "basis")]
    forward = [Job("kernel", ("forward", 1, 2, False, SINGLE)), Job("taps", (2, False, SINGLE))]
    found = [*compile_ahead([*forward, Job("points", ("affine", 2, SINGLE)), *kinds, Job("drive", (False,))], workers=2)]
    print(sum(done.found for done in found), sum(done.compiled for done in found))
"""
IDENTITY = """
import torch, stn
image = torch.rand(2, 3, 40, 30).contiguous(memory_format=torch.channels_last)
assert torch.equal(stn.affine_sample(image, torch.eye(2, 3)), image)
"""
SAMPLED = """
import torch, stn
from torch.nn.functional import affine_grid, grid_sample
for ndim in {}:
    torch.manual_seed(0)
    image, theta = torch.rand(2, 2, *(9,) * ndim), torch.eye(ndim, ndim + 1) + 0.1 * torch.randn(2, ndim, ndim + 1)
    theirs = grid_sample(image, affine_grid(theta, list(image.shape), align_corners=False), align_corners=False)
    assert torch.allclose(stn.affine_sample(image, theta), theirs, atol=1e-5), ndim
"""
COMPILED_ONCE = """\
# To Numba a constant has a type of its own: what takes 0, then other integers, would be compiled for each.
import gc
from numba import types
from numba.core.dispatcher import Dispatcher
found = [made for made in gc.get_objects() if issubclass(type(made), Dispatcher)]
plain = {made: [tuple(map(types.unliteral, kinds)) for kinds in made.signatures] for made in found}
assert len(found) > 40 and sum(map(len, plain.values())) > 40
twice = [made.py_func.__name__ for made, kinds in plain.items() if len({*kinds}) < len(kinds)]
assert not twice, twice
"""
STAGES = (
    """\
import torch
from stn.ops.cpu.kernels import stage_at
for after in (False, True):
    stage_at(after, "affine", "<f4")
"""
    + COUNTS
)


def start(code: str, *, source: Path = SOURCE, **environment: str) -> subprocess.Popen[str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("NUMBA_CACHE_DIR", "STN_QUIET")}
    environment = {**kept, "NUMBA_OPT": "1", "PYTHONPATH": str(source), "PYTHONDONTWRITEBYTECODE": "1", **environment}
    command, pipe = [sys.executable, "-c", code], subprocess.PIPE
    return subprocess.Popen(command, text=True, env=environment, stdout=pipe, stderr=pipe)


def finished(process: subprocess.Popen[str]) -> tuple[list[int], str]:
    """Return the numbers that a process printed, and its standard error."""
    out, error = process.communicate(timeout=300)
    assert process.returncode == 0, error
    return [int(word) for word in out.split()], error


def test_a_second_process_compiles_nothing_and_only_the_first_says_so(tmp_path: Path) -> None:
    code = f"""
import torch, stn
image = torch.rand(4, 1, 20, 20, requires_grad=True)
theta = torch.eye(2, 3).repeat(4, 1, 1).requires_grad_()
stn.affine_sample(image, theta).sum().backward()
{COUNTS}
"""
    outs = [finished(start(code + check, NUMBA_CACHE_DIR=str(tmp_path), STN_QUIET="0")) for check in (COMPILED_ONCE, "")]
    (first, said), (second, nothing) = outs
    assert first == [0, 9]  # three kernels, the three that they call, two stages, the loop over chunks
    assert second == [9, 0]
    assert said.count("\n") == 1 and said.startswith("stn: compiling CPU kernels on first use")
    assert notice.KEPT in said and nothing == ""


def test_calls_without_kernels_are_those_of_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    image, theta = noise(2, 3, 24, 20).requires_grad_(), torch.eye(2, 3) + 0.2 * noise(2, 2, 3)

    def values() -> list[Tensor]:
        looks = [stn.affine_sample(image, theta, (9, 7), antialias=antialias) for antialias in (False, True)]
        return [*looks, *torch.autograd.grad([look.square().sum() for look in looks], image)]

    def compiled(*_: object) -> None:
        raise AssertionError("a kernel is used")

    with monkeypatch.context() as broken, pytest.raises(AssertionError, match="a kernel is used"):
        broken.setattr(dispatch.cpu, "loaded", compiled)
        with without_kernels():
            plain = values()
        values()  # as before the context
    for found, expected in zip(plain, values(), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)


def test_taps_of_other_paddings_are_compiled_when_they_are_needed(tmp_path: Path) -> None:
    code = """
import torch, stn
from stn.ops.cpu.compiling import counts
for size, padding in ((20, "zeros"), (20, "border"), (1, "zeros"), (1, "border"), (20, "reflection"), (20, "reflection")):
    stn.affine_sample(torch.rand(1, 1, size, 20), torch.eye(2, 3), padding_mode=padding)
    print(counts().compiled)
"""
    # Reflection needs a kernel that tells blocks apart, and its taps: the others sample small images in a frame.
    assert finished(start(code, NUMBA_CACHE_DIR=str(tmp_path)))[0] == [5, 5, 6, 6, 9, 9]


def test_many_processes_may_fill_an_empty_cache_at_once(tmp_path: Path) -> None:
    def count(code: str) -> subprocess.Popen[str]:
        return start(code, NUMBA_CACHE_DIR=str(tmp_path))

    together = [*(count(WARM) for _ in range(2)), count(IDENTITY + COUNTS)]
    everyone = [finished(process)[0] for process in together]
    assert all(sum(numbers) == number for numbers, number in zip(everyone, (10, 10, 5), strict=True))
    assert finished(count(WARM))[0] == [10, 0]
    assert finished(count(IDENTITY + COUNTS))[0] == [5, 0]
    assert not [path for path in tmp_path.rglob("*") if ".tmp." in path.name]


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a copy of the package. Not even root can write its cache: a file is in its place."""
    root = tmp_path_factory.mktemp("installation")
    shutil.copytree(SOURCE / "stn", root / "stn", ignore=shutil.ignore_patterns("__pycache__"))
    (root / "stn" / "ops" / "cpu" / "__pycache__").touch()
    for path in [root, *root.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    return root


def test_users_of_a_read_only_installation_have_caches_of_their_own(installation: Path, tmp_path: Path) -> None:
    def counted(user: str) -> list[int]:
        home = {"HOME": str(tmp_path / user), "XDG_CACHE_HOME": str(tmp_path / user / ".cache")}
        return finished(start(STAGES, source=installation, **home))[0]

    assert [counted(user) for user in ("first", "second", "first")] == [[0, 2], [0, 2], [2, 0]]


def test_without_a_folder_for_the_cache_kernels_compile_in_each_process(installation: Path) -> None:
    nowhere = {"HOME": "/dev/null", "XDG_CACHE_HOME": "/dev/null/cache", "NUMBA_CACHE_DIR": "/dev/null/numba"}
    code = f"from stn.ops.cpu import notice; notice.AFTER = 0.0\n{STAGES}"
    for _ in range(2):
        numbers, said = finished(start(code, source=installation, STN_QUIET="0", **nowhere))
        assert numbers == [0, 2] and notice.NOT_KEPT in said


def entries_of(jobs: Sequence[ahead.Job], monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Return the names that the entries of these jobs have in the cache, without the hash of the sources."""
    names: list[str] = []
    for name in ("kernel_at", "taps_at", "axis_at", "points_at", "reduction_at", "stage_at"):
        kept = getattr(ahead, name)  # which remembers what it has compiled
        monkeypatch.setattr(ahead, name, getattr(kept, "__wrapped__", kept))
    monkeypatch.setattr(kernels, "entry", lambda function, name, *rest: names.append(name))
    for job in jobs:
        if job.function in ("kernel", "taps", "axis", "points", "reduction", "stages"):
            ahead.FUNCTIONS[job.function](*job.arguments)
    return set(names)


def test_warming_up_compiles_all_that_layers_and_registration_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask a process that uses them for its entries."""
    code = """
import torch, stn
from stn.ops.cpu import compiling
images = [torch.rand(2, 3, 24, 24), torch.rand(2, 3, 24, 24).contiguous(memory_format=torch.channels_last)]
for transform in ("affine", "projective", "tps"):
    for image in images:
        image.requires_grad_()
        stn.SpatialTransformer.for_input((3, 24, 24), transform=transform)(image).sum().backward()
    stn.register(images[0].detach(), images[0].detach().roll(1, -1), transform=transform)
stn.register(images[0].detach(), images[0].detach().roll(1, -1), transform="displacement")
print(*(made.__name__.rpartition("_")[0] for made in compiling._entries))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    used = set(done.stdout.split())
    assert len(used) > 20, done
    usual, everything = (entries_of(jobs, monkeypatch) for jobs in (ahead.usual(), ahead.everything()))
    assert used <= usual < everything


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    "stream, quiet, loading, seconds, lines",
    (
        (Terminal, None, 0.0, 0.3, 1),
        (Terminal, "", 0.0, 0.3, 1),
        (Terminal, "0", 0.0, 0.3, 1),
        (Terminal, "1", 0.0, 0.3, 0),
        (Terminal, None, 0.3, 0.0, 0),
        (io.StringIO, None, 0.0, 0.3, 0),
        (io.StringIO, "0", 0.0, 0.3, 1),
        (io.StringIO, "1", 0.0, 0.3, 0),
    ),
)
def test_one_line_where_someone_reads_it(
    stream: type[io.StringIO], quiet: str | None, loading: float, seconds: float, lines: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notice, "AFTER", 0.1)
    monkeypatch.setattr(notice, "_said", False)
    monkeypatch.setattr(sys, "stderr", written := stream())
    if quiet is None:
        monkeypatch.delenv("STN_QUIET", raising=False)
    else:
        monkeypatch.setenv("STN_QUIET", quiet)
    for what in ("forward", "image"):
        with notice.noticed(what, True):
            time.sleep(loading)
            with event.trigger_event("numba:compile"), event.trigger_event("numba:compile"):  # functions within others
                time.sleep(seconds)
    assert written.getvalue().count("\n") == lines
    assert lines == 0 or written.getvalue().endswith("Now: forward\n")


def test_no_two_functions_that_are_compiled_alone_share_a_name() -> None:
    """Not even after a fork, where children go on numbering functions from the same number."""
    for ndim in (2, 3):
        specialized(BODIES["forward"][0], {"NDIM": ndim, "NEAREST": False})
    found = [made for made in gc.get_objects() if issubclass(type(made), Dispatcher) and hasattr(made, "decorate")]
    names = [made.py_func.__qualname__ for made in found if made.decorate is not merged]  # merged ones have no code
    assert len(names) > 100 and len({*names}) == len(names)


def test_kernels_that_two_processes_have_compiled_run_in_one(tmp_path: Path) -> None:
    """Numba numbers functions anew in each process: names without it would let volumes call the code of images."""
    both = tmp_path / "both"

    def sample(folder: Path, *dimensions: int) -> None:
        # The order in which Numba numbers functions depends on the seed.
        finished(start(SAMPLED.format(dimensions), NUMBA_CACHE_DIR=str(folder), PYTHONHASHSEED="1"))

    for ndim in (2, 3):
        sample(tmp_path / str(ndim), ndim)
        shutil.copytree(tmp_path / str(ndim), both, dirs_exist_ok=True)
    before = sorted(both.rglob("*.nbc"))
    sample(both, 2, 3)
    sample(both, 3, 2)
    assert before == sorted(both.rglob("*.nbc"))  # the code is theirs
