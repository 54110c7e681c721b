"""The operators under torch.func, forward mode, compilers, tracers, fake tensors and batched tensors."""

import functools
import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.autograd import forward_ad
from torch.autograd.functional import jacobian
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils.checkpoint import checkpoint

import stn
from stn.ops import dispatch
from stn.transforms import FAMILIES, family
from tests.helpers import near_identity, noise

IMAGE = noise(2, 2, 5, 6)
KNOTS = noise(5, 2, seed=3).clamp(-1, 1)
POINTS = KNOTS.tolist()
Call = Callable[[Tensor, Tensor], Tensor]
MATRIX = torch.eye(2, 3, dtype=torch.float64) + 0.2 * noise(2, 2, 3, seed=1)
RULES: dict[str, tuple[Call, Tensor]] = {
    "affine_sample": (lambda image, where: stn.affine_sample(image, where, (4, 3)), MATRIX),
    "projective_sample": (
        lambda image, where: stn.projective_sample(image, where, (4, 3), padding_mode="reflection"),
        torch.eye(3, dtype=torch.float64) + 0.1 * noise(2, 3, 3, seed=1),
    ),
    "thin plate": (
        # The points are created inside the call, because fake tensors refuse real ones from outside.
        lambda image, where: stn.thin_plate_sample(
            image, where, torch.tensor(POINTS, dtype=torch.float64), (4, 3), padding_mode="border"
        ),
        0.1 * noise(2, 8, 2, seed=1),
    ),
    "field": (lambda image, where: stn.grid_sample(image, where, relative=True), 0.3 * noise(2, 4, 3, 2, seed=1)),
}
BELL = stn.Kernel(lambda d: torch.exp(-2 * d**2), support=2.5, normalize=True)  # which no graph can name
MORE: dict[str, tuple[Call, Tensor]] = {
    "Lanczos": (lambda image, where: stn.affine_sample(image, where, (4, 3), mode="lanczos3"), MATRIX),
    "own kernel": (lambda image, where: stn.affine_sample(image, where, (4, 3), mode=BELL), MATRIX),
    "antialias": (lambda image, where: stn.affine_sample(image, 2.3 * where, (4, 3), antialias=True), MATRIX),
    "anisotropic": (lambda image, where: stn.affine_sample(image, 2.3 * where, (4, 3), antialias="anisotropic"), MATRIX),
    "bicubic": (lambda image, where: stn.affine_sample(image, where, (4, 3), mode="bicubic"), MATRIX),
    "wide": (lambda image, where: stn.affine_sample(image, where, (4, 3), gradient="wide"), MATRIX),
    "mask": (lambda image, where: stn.affine_sample(image, 1.6 * where, (4, 3), return_mask=True)[1], MATRIX),
}


def through(name: str) -> tuple[Call, Tensor]:
    transform = SMALL[name]() if name in SMALL else family(name)
    return lambda image, theta: transform(theta).sample(image, (4, 3)), near_identity(transform, 2, strength=0.1, seed=1)


SMALL: dict[str, Callable[[], stn.Family]] = {
    "tps": lambda: stn.ThinPlateSpline(control_points=KNOTS),
    "bspline": lambda: stn.BSpline(shape=(4, 5)),
    "displacement": lambda: stn.Displacement(shape=(3, 2)),
    "velocity": lambda: stn.Velocity(shape=(4, 4), resolution=7, squarings=2),
    "cpab": lambda: stn.CPAB(cells=(2, 2), steps=2),
}
ALL = {**RULES, **MORE, **{name: through(name) for name in FAMILIES}}
every = pytest.mark.parametrize("name", ALL)


def other(where: Tensor) -> Tensor:
    return where + 0.05 * noise(*where.shape, seed=7)


def close(ours: Any, theirs: Any) -> None:
    torch.testing.assert_close(ours, theirs, atol=1e-9, rtol=0)  # the slopes of a kernel's table have errors of 1e-11


# ---- derivatives ----


def loss(f: Call, x: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda t: f(x, t).square().sum()


Of = Callable[[Call, Tensor, Tensor], Any]
TRANSFORMS: dict[str, Of] = {
    "jvp": lambda f, x, t: torch.func.jvp(lambda t: f(x, t), (t,), (torch.cos(t),))[1],
    "jvp of both": lambda f, x, t: torch.func.jvp(f, (x, t), (torch.cos(x), torch.cos(t)))[1],
    "jacfwd": lambda f, x, t: torch.func.jacfwd(lambda t: f(x, t))(t),
    "jacrev": lambda f, x, t: torch.func.jacrev(lambda t: f(x, t))(t),
    "grad": lambda f, x, t: torch.func.grad(loss(f, x))(t),
    "jvp of grad": lambda f, x, t: torch.func.jvp(torch.func.grad(loss(f, x)), (t,), (torch.cos(t),))[1],
    "vmap": lambda f, x, t: torch.func.vmap(lambda t: f(x, t))(torch.stack([t, t.flip(0), t / 2])),
    "vmap of grad": lambda f, x, t: torch.func.vmap(torch.func.grad(loss(f, x)))(torch.stack([t, t.flip(0)])),
}


@every
def test_forward_mode_is_the_derivative(name: str) -> None:
    """Compare J t with u J for random t and u, in torch.func and in a dual level. The value is that of the plain call."""
    f, where = ALL[name]
    direction, out = noise(*where.shape, seed=4), f(IMAGE, where)
    weight = noise(*out.shape, seed=5)
    value, pushed, *_ = torch.func.jvp(lambda t: f(IMAGE, t), (where,), (direction,))
    with forward_ad.dual_level():
        dual = forward_ad.unpack_dual(f(IMAGE, forward_ad.make_dual(where, direction)))
    pulled = torch.func.vjp(lambda t: f(IMAGE, t), where)[1](weight)[0]
    close(value, out)
    close(dual.primal, out)
    close(dual.tangent, pushed)
    assert not dual.tangent.requires_grad and not pushed.requires_grad
    close((weight * pushed).sum(), (pulled * direction).sum())
    assert pushed.abs().max() > 1e-3


def test_the_fill_value_has_a_tangent() -> None:
    """Outside the image, every tap reads the fill value, so the derivative is the share of the kernel outside."""
    image, (_, where) = torch.ones(2, 1, 5, 6, dtype=torch.float64), ALL["affine_sample"]

    def filled(fill: Tensor) -> Tensor:
        return stn.affine_sample(image, 1.5 * where, fill_value=fill)

    zero, one = torch.zeros((), dtype=torch.float64), torch.ones((), dtype=torch.float64)
    pushed: Tensor = torch.func.jvp(filled, (zero,), (one,))[1]
    close(pushed, 1 - stn.affine_sample(image, 1.5 * where, return_mask=True)[1])
    assert pushed.max() > 0.5
    close(torch.func.jacrev(filled)(zero), pushed)


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("name", RULES)
def test_transforms_compile(name: str, transform: str) -> None:
    """Compiled to one graph, the transforms give the results of the eager calls, at two batch sizes."""
    torch.compiler.reset()
    f, where = ALL[name]
    function = functools.partial(TRANSFORMS[transform], f)
    compiled: Any = torch.compile(function, fullgraph=True, backend="aot_eager")
    for image, theta in ((IMAGE, where), (IMAGE.repeat(2, 1, 1, 1), other(where.repeat(2, *(1,) * (where.ndim - 1))))):
        expected = function(image, theta)
        close(compiled(image, theta), expected)
        assert expected.abs().max() > 1e-3


def test_forward_mode_around_a_compiled_call() -> None:
    """torch.compile's default backend drops tangents. Our operator runs eagerly, or raises an error as torch 2.14 does."""
    torch.compiler.reset()
    f, where = ALL["affine_sample"]
    refused = "forward mode must begin inside the compiled function|compiled code would silently drop the tangent"
    direction = torch.ones_like(where)
    expected = torch.func.jvp(lambda t: f(IMAGE, t), (where,), (direction,))[1]
    for fullgraph in (False, True):
        torch.compiler.reset()
        compiled = torch.compile(lambda t: f(IMAGE, t), fullgraph=fullgraph, backend="aot_eager")
        compiled(where)  # first outside a dual level, so that the graph already exists inside
        with forward_ad.dual_level():
            dual = forward_ad.make_dual(where, direction)
            if fullgraph:
                with pytest.raises(Exception, match=refused):
                    compiled(dual)
            else:
                close(forward_ad.unpack_dual(compiled(dual)).tangent, expected)

    def sample(t: Tensor) -> Tensor:
        return f(IMAGE, t)

    close(torch.func.jvp(torch.compile(sample, backend="aot_eager"), (where,), (direction,))[1], expected)


@every
def test_batched_gradients(name: str) -> None:
    """This uses autograd's own vmap: is_grads_batched, and vectorized Jacobians and Hessians."""
    f, where = ALL[name]
    theta, image = where.clone().requires_grad_(), IMAGE.clone().requires_grad_()
    out = f(image, theta)
    wanted = [t for t in (image, theta) if name != "mask" or t is theta]
    weights = noise(3, *out.shape, seed=6)
    together = torch.autograd.grad(out, wanted, weights, is_grads_batched=True, retain_graph=True)
    singly = [torch.autograd.grad(out, wanted, weight, retain_graph=True) for weight in weights]
    for ours, theirs in zip(together, zip(*singly, strict=True), strict=True):
        close(ours, torch.stack(theirs))
    close(jacobian(lambda t: f(IMAGE, t), where, vectorize=True), jacobian(lambda t: f(IMAGE, t), where))


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # torch's own, at forward mode's first use
@pytest.mark.parametrize("name", RULES)
def test_vectorized_jacobians_by_forward_mode_and_hessians(name: str) -> None:
    f, where = ALL[name]

    def scalar(t: Tensor) -> Tensor:
        return f(IMAGE, t).square().sum()

    expected = jacobian(lambda t: f(IMAGE, t), where)
    close(jacobian(lambda t: f(IMAGE, t), where, vectorize=True, strategy="forward-mode"), expected)
    hessian = torch.func.hessian(scalar)(where)
    close(torch.autograd.functional.hessian(scalar, where, vectorize=True), hessian)
    close(torch.autograd.functional.hessian(scalar, where), hessian)
    orders: list[Any] = [torch.func.jacfwd, torch.func.jacrev]
    for outer, inner in itertools.product(orders, repeat=2):
        again = outer(inner(scalar))(where)
        close(again, hessian)
        assert not again.requires_grad  # no graph remains attached
    assert hessian.abs().max() > 1e-3


@every
def test_checkpoints(name: str) -> None:
    f, where = ALL[name]
    theta, image = where.clone().requires_grad_(), IMAGE.clone().requires_grad_()
    weight = noise(2, 2 if name != "mask" else 1, 4, 3, seed=6)
    wanted = [t for t in (image, theta) if name != "mask" or t is theta]
    plain = torch.autograd.grad(f(image, theta), wanted, weight)
    close(torch.autograd.grad(checkpoint(f, image, theta, use_reentrant=False), wanted, weight), plain)
    second = checkpoint(
        lambda t: torch.autograd.grad(f(IMAGE, t), t, weight, create_graph=True)[0], theta, use_reentrant=False
    )
    expected = torch.autograd.grad(f(IMAGE, theta), theta, weight, create_graph=True)[0]
    close(second, expected)


# ---- tracers ----


@every
@pytest.mark.parametrize("tracing_mode", ("real", "fake", "symbolic"))
def test_a_trace_holds_the_operator(name: str, tracing_mode: Any) -> None:
    """A graph that was traced with some values also works for others, for the value and for a gradient."""
    f, where = ALL[name]

    def gradient(x: Tensor, t: Tensor) -> Tensor:
        return torch.func.grad(loss(f, x))(t)

    for function in (f, gradient) if tracing_mode == "real" else (f,):
        graph = make_fx(function, tracing_mode=tracing_mode)(IMAGE, where)
        close(graph(2 * IMAGE, other(where)), function(2 * IMAGE, other(where)))
        assert ("torch.ops.stn." in graph.code) == (name != "own kernel")


@pytest.mark.filterwarnings("ignore")  # torch.jit is deprecated, and warns of each number that it keeps
@every
def test_a_trace_of_torch_jit_holds_the_operator(name: str) -> None:
    f, where = ALL[name]
    graph = torch.jit.trace(f, (IMAGE, where), check_trace=False)
    torch.testing.assert_close(graph(2 * IMAGE, other(where)), f(2 * IMAGE, other(where)), atol=1e-6, rtol=0)
    assert ("stn::" in str(graph.graph)) == (name != "own kernel")


@every
def test_fake_tensors(name: str) -> None:
    """Shape, strides and dtype equal those of the real result in each layout, and those of its gradient."""
    f, where = ALL[name]
    for form in (torch.contiguous_format, torch.channels_last):
        image = IMAGE.contiguous(memory_format=form)
        real = f(image, where)
        mode, leaf = FakeTensorMode(), where.clone().requires_grad_()
        with mode:
            theta = mode.from_tensor(leaf)
            fake = f(mode.from_tensor(image), theta)
            assert fake.shape == real.shape and fake.dtype == real.dtype
            assert fake.stride() == real.stride() or name == "own kernel"  # plain PyTorch loses channels last
            (gradient,) = torch.autograd.grad(fake.sum(), theta)
            assert gradient.shape == where.shape
        close(f(image, where), real)  # no fake tensor remains in a cache


@pytest.mark.parametrize("name", ("tps", "velocity"))
def test_families_made_among_fake_tensors(name: str) -> None:
    with FakeTensorMode():
        transform = family(name)
        warp = transform(torch.zeros(2, transform.num_params))
        assert warp.sample(torch.zeros(2, 1, 5, 6)).shape == (2, 1, 5, 6)


def test_dispatch_modes_see_one_operator() -> None:
    seen = []

    class Record(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            seen.append(str(func))
            return func(*args, **(kwargs or {}))

    f, where = ALL["affine_sample"]
    with Record():
        out = f(IMAGE, where)
    close(out, f(IMAGE, where))
    assert "stn.matrix_sample.default" in seen


def test_what_no_kernel_covers_has_a_gradient_as_an_operator(monkeypatch: pytest.MonkeyPatch) -> None:
    """A graph may run on a different device from the one on which it was made."""
    monkeypatch.delitem(dispatch.KERNELS, "cpu")
    where, fill = MATRIX.unsqueeze(1), torch.zeros(())
    settings: Any = ((4, 3), "lanczos3", "zeros", False)
    image, theta = IMAGE.clone().requires_grad_(), where.clone().requires_grad_()
    grad = noise(2, 1, 2, 4, 3, seed=6)
    expected = torch.autograd.grad(stn.affine_sample(image, theta, (4, 3), mode="lanczos3"), (image, theta), grad)
    found = torch.ops.stn.matrix_sample_backward(grad, IMAGE, where, fill, [True, True], *settings)
    close(found, expected)
    out = torch.ops.stn.matrix_sample(image, theta, fill, *settings)
    close(torch.autograd.grad(out, (image, theta), grad), expected)


def test_what_cannot_be_mapped_or_moved_says_so() -> None:
    coefficients = RULES["thin plate"][1]

    def at(knots: Tensor) -> Tensor:
        return torch.ops.stn.basis_sample(
            IMAGE, coefficients[:, None], torch.zeros(()), (4, 3), knots, "bilinear", "zeros", False
        )

    with pytest.raises(stn.InputError, match="control_points must not be mapped by vmap, because the whole call shares it"):
        torch.func.vmap(at)(torch.stack([KNOTS, KNOTS]))
    with pytest.raises(stn.InputError, match="control_points must not have a tangent"):
        torch.func.jvp(at, (KNOTS,), (KNOTS,))
    with pytest.raises(stn.InputError, match="fill_value must not be mapped by vmap, because the whole call shares it"):
        torch.func.vmap(lambda fill: stn.affine_sample(IMAGE, MATRIX, fill_value=fill))(torch.zeros(3))
