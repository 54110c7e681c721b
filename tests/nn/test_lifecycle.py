"""What happens to a layer between its making and its end, for every family: one table."""

import copy
import io
import pickle
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed.fsdp
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import stn
from stn.nn import AbstractSpatialTransformer, DenseLocalization
from stn.transforms import FAMILIES, Family, family
from tests.helpers import seeded

MAKERS: dict[str, Callable[[], Family]] = {
    **{name: (lambda name=name: family(name)) for name in FAMILIES},  # type: ignore[misc]  # mypy cannot tell the type of a default
    "bounded": lambda: stn.bounded(stn.Affine(), matrix=(-2, 2)),
    "fixed": lambda: stn.fixed(stn.Rigid(aspect=2.0), translation=0.0),
    "positions": lambda: stn.ThinPlateSpline(control_points=stn.text_edges(8), parameters="positions"),
}
START = [[0.8, 0.0, 0.1], [0.0, 0.8, 0.0]]


def images(n: int = 2) -> Tensor:
    return torch.rand(n, 1, 8, 8, generator=seeded(n), dtype=torch.float32, device="cpu")


def fresh(name: str) -> AbstractSpatialTransformer:
    torch.manual_seed(0)
    start = torch.tensor(START, device="cpu")
    if name == "steps":
        return stn.InverseCompositionalTransformer(DenseLocalization(64), "affine", steps=2, start=start)
    if name == "shared trunk":
        return stn.SharedTrunkTransformer(nn.AvgPool2d(3, 1, 1), DenseLocalization(64), "affine", start=start)
    return stn.SpatialTransformer(DenseLocalization(64), MAKERS[name](), start=start)


def moved(name: str) -> AbstractSpatialTransformer:
    layer = fresh(name)
    with torch.no_grad():
        layer.regression.weight.add_(0.02 * torch.randn(layer.regression.weight.shape, generator=seeded()))
    return layer


def close(found: Tensor, expected: Tensor, atol: float = 1e-5) -> None:
    torch.testing.assert_close(found, expected, atol=atol, rtol=1e-5)


def pickled(name: str) -> None:
    layer, file = moved(name), io.BytesIO()
    layer(images())
    torch.save(layer, file)
    file.seek(0)
    for other in (pickle.loads(pickle.dumps(layer)), torch.load(file, weights_only=False), copy.deepcopy(layer)):
        assert torch.equal(other(images()), layer(images())) and other.family == layer.family


def in_half(name: str) -> None:
    layer = moved(name).half()
    y = layer(images().half())
    y.sum().backward()
    assert y.dtype == torch.float16 and layer.regression.bias.grad is not None
    close(y.float(), moved(name)(images()), atol=5e-2)


def in_double(name: str) -> None:
    close(moved(name).double()(images().double()).float(), moved(name)(images()), atol=1e-4)


def made_on_meta(name: str) -> None:
    with torch.device("meta"):
        layer = fresh(name)
        assert all(p.is_meta for p in layer.parameters())
    layer = layer.to_empty(device="cpu")
    for module in layer.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()  # type: ignore[operator]  # mypy cannot tell what has this name
    close(layer(images()), fresh(name)(images()))
    layer = fresh(name).to("meta")
    assert layer(images().to("meta")).shape == images().shape
    close(moved(name)(images()), moved(name)(images()))  # and nothing of it stays behind


def made_in_inference_mode(name: str) -> None:
    with torch.inference_mode():
        inside = fresh(name)
        inside(images())
    layer = moved(name)
    layer.family, layer.start = inside.family, inside.start
    layer(images()).square().sum().backward()
    assert layer.regression.bias.grad is not None


@pytest.fixture
def default_dtype() -> Iterator[Callable[[torch.dtype], None]]:
    yield torch.set_default_dtype
    torch.set_default_dtype(torch.float32)


def averaged(name: str) -> None:
    layer = moved(name)
    mean = torch.optim.swa_utils.AveragedModel(layer, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.5))
    mean.update_parameters(layer)
    mean.load_state_dict(mean.state_dict())
    close(mean(images()), layer(images()))
    one, two = layer.state_dict(), moved(name).state_dict()
    layer.load_state_dict(
        {key: (0.9 * one[key] + 0.1 * two[key]).to(one[key].dtype) for key in one}
    )  # a loop over all of it
    close(layer(images()), moved(name)(images()))


def as_a_function(name: str) -> None:
    layer = moved(name)
    states: list[dict[str, Tensor]] = [dict(layer.named_parameters()), dict(layer.state_dict())]
    for state in states:
        close(torch.func.functional_call(layer, state, (images(),)), layer(images()))


def in_an_ensemble(name: str) -> None:
    layers = [moved(name) for _ in range(3)]
    with torch.no_grad():
        layers[1].regression.bias.add_(0.02)
    params, buffers = torch.func.stack_module_state([*layers])
    base, x = copy.deepcopy(layers[0]).to("meta"), images()

    def run(params: dict[str, Tensor], buffers: dict[str, Tensor]) -> Tensor:
        found: Tensor = torch.func.functional_call(base, (params, buffers), (x,))
        return found

    found = torch.vmap(run)(params, buffers)
    close(found, torch.stack([layer(images()) for layer in layers]))


def recomputed(name: str) -> None:
    def gradients(reentrant: bool | None) -> tuple[Tensor, ...]:
        layer, x = moved(name), images().requires_grad_()
        y = layer(x) if reentrant is None else checkpoint(layer, x, use_reentrant=reentrant)
        assert isinstance(y, Tensor)
        y.square().sum().backward()
        assert x.grad is not None and layer.regression.weight.grad is not None
        return x.grad, layer.regression.weight.grad

    for reentrant in (True, False):
        torch.testing.assert_close(gradients(reentrant), gradients(None))


def traced(name: str) -> None:
    """For any number of images, without a warning, in training too; and as TensorBoard's add_graph does."""
    for layer in (moved(name).eval(), moved(name).train()):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="`torch.jit", category=DeprecationWarning)  # torch's own
            found = torch.jit.trace(layer, (images(),))
            torch.jit.save(found, io.BytesIO())
        close(found(images(5)), layer(images(5)))


def drawn(name: str) -> None:
    """By TensorBoard."""
    pytest.importorskip("tensorboard")
    from torch.utils.tensorboard import SummaryWriter

    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`torch.jit", category=DeprecationWarning)
        with SummaryWriter(folder) as writer:
            writer.add_graph(moved(name), images())


def exported(name: str) -> None:
    layer = moved(name).eval()
    close(torch.export.export(layer, (images(),)).module()(images()), layer(images()))


def in_onnx(name: str) -> None:
    """By torch's own exporter, which knows nothing of this library: standard operators."""
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    layer = moved(name).eval()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*LeafSpec", category=FutureWarning)  # torch's own
        program = torch.onnx.export(layer, (images(),), dynamo=True, verbose=False)
    assert program is not None
    assert {node.domain for node in program.model_proto.graph.node} == {""}
    assert stn.export.largest_difference(program, layer, images()) < 1e-4


EVENTS: dict[str, Callable[[str], None]] = {
    event.__name__: event
    for event in (pickled, in_half, in_double, made_on_meta, made_in_inference_mode, averaged, as_a_function, in_an_ensemble)
    + (recomputed, traced, drawn, exported, in_onnx)
}


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("name", (*MAKERS, "steps", "shared trunk"))
def test_a_layer_survives(name: str, event: str) -> None:
    EVENTS[event](name)


@pytest.mark.parametrize("dtype", (torch.float64, torch.bfloat16))
@pytest.mark.parametrize("name", (*MAKERS, "steps", "shared trunk"))
def test_any_default_dtype(name: str, dtype: torch.dtype, default_dtype: Callable[[torch.dtype], None]) -> None:
    expected = fresh(name)(images())
    default_dtype(dtype)
    layer = fresh(name)
    assert layer.regression.bias.dtype == dtype
    y = layer(images().to(dtype))
    assert y.dtype == dtype
    close(y.float(), expected, atol=1e-5 if dtype == torch.float64 else 3e-2)


@pytest.fixture(scope="module")
def process_group(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    file: Path = tmp_path_factory.mktemp("group") / "store"
    torch.distributed.init_process_group("gloo", init_method=f"file://{file}", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("kind", ("ddp", "fsdp"))
@pytest.mark.parametrize("name", (*MAKERS, "steps", "shared trunk"))
def test_a_layer_in_parallel(name: str, kind: str, process_group: None) -> None:
    """A group of one process: wrapped, trained for a step, and its state dict loaded again."""
    plain, wrapped = (nn.Sequential(moved(name), nn.Conv2d(1, 1, 1)) for _ in range(2))
    wrapped[1].load_state_dict(plain[1].state_dict())
    if kind == "ddp":
        wrapped = nn.Sequential(nn.parallel.DistributedDataParallel(wrapped))
    else:
        mesh = torch.distributed.device_mesh.init_device_mesh("cpu", (1,))
        torch.distributed.fsdp.fully_shard(wrapped.get_submodule("0.regression"), mesh=mesh)
        torch.distributed.fsdp.fully_shard(wrapped, mesh=mesh)
    for network in (plain, wrapped):
        optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
        network(images()).square().sum().backward()
        optimizer.step()
    close(wrapped(images()), plain(images()))
    wrapped.load_state_dict(wrapped.state_dict())


def test_what_torchs_exporter_lacks_is_lowered_otherwise() -> None:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    layer = stn.SpatialTransformer(DenseLocalization(64), "affine", mode="catmull_rom", padding_mode="wrap").eval()
    nn.init.normal_(layer.regression.weight, std=0.02)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*LeafSpec", category=FutureWarning)
        program = torch.onnx.export(layer, (images(),), dynamo=True, verbose=False)
    assert program is not None and stn.export.largest_difference(program, layer, images()) < 1e-4


class Looks(nn.Module):
    """Calls of a warp and of an operator outside a layer."""

    def forward(self, x: Tensor) -> Tensor:
        warp = stn.BSpline(shape=(4, 4))(0.1 * x.mean(dim=(1, 2, 3)).unsqueeze(1).expand(-1, 32))
        turned = stn.affine_sample(warp.sample(x, (9, 7)), torch.tensor([[0.8, 0.3, 0.1], [-0.3, 0.9, 0.0]]), mode="bspline")
        return stn.grid_sample(turned, warp.grid((9, 7)), padding_mode="border")


def test_torchs_exporter_takes_warps_and_operators() -> None:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*LeafSpec", category=FutureWarning)
        program = torch.onnx.export(Looks().eval(), (images(),), dynamo=True, verbose=False)
    assert program is not None and stn.export.largest_difference(program, Looks(), images()) < 1e-4


@pytest.mark.filterwarnings("ignore:`torch.jit.script`:DeprecationWarning")
@pytest.mark.parametrize(
    "make", (lambda: stn.SpatialTransformer(DenseLocalization(64)), lambda: stn.models.BenchmarkRectifier(control_points=8))
)
def test_script_names_what_works(make: Callable[[], nn.Module]) -> None:
    with pytest.raises(stn.InputError, match=r"must be recorded, .*: use stn.export.to_program, .* or torch.jit.trace"):
        torch.jit.script(nn.Sequential(nn.Identity(), make()))


OTHERS: dict[str, tuple[Callable[[], stn.SpatialTransformer], str]] = {
    "family": (
        lambda: stn.SpatialTransformer(DenseLocalization(64), "exponential_affine"),
        "family Affine.*, here Exponent",
    ),
    "bounds": (lambda: stn.SpatialTransformer(DenseLocalization(64), stn.bounded(stn.Affine(), matrix=(-2, 2))), "family"),
    "convention": (
        lambda: stn.SpatialTransformer(DenseLocalization(64), align_corners=True),
        "align_corners False, here True",
    ),
    "start": (lambda: stn.SpatialTransformer(DenseLocalization(64), start=torch.tensor(START)), "start None, here"),
}


@pytest.mark.parametrize("case", OTHERS)
def test_a_state_dict_of_another_meaning_is_announced(case: str) -> None:
    make, text = OTHERS[case]
    layer = stn.SpatialTransformer(DenseLocalization(64))
    state = layer.state_dict()
    file = io.BytesIO()
    torch.save({"net." + key: value for key, value in state.items()}, file)
    file.seek(0)
    loaded = {key.removeprefix("net."): value for key, value in torch.load(file, weights_only=True).items()}
    with pytest.warns(UserWarning, match=f"the state dict must be .* got one with {text}"):
        make().load_state_dict(loaded)
    stn.SpatialTransformer(DenseLocalization(64)).load_state_dict(loaded)  # the same says nothing
    make().load_state_dict({key: value for key, value in loaded.items() if "extra" not in key})  # nor what is older
    spoiled = loaded | {"_extra_state": torch.zeros(5)}
    make().load_state_dict(spoiled)  # nor what a tool has changed
    with pytest.raises(RuntimeError, match="Missing key.*regression.bias"):
        layer.load_state_dict({key: value for key, value in loaded.items() if key != "regression.bias"})


def test_control_points_tell_splines_apart() -> None:
    edges = [stn.ThinPlateSpline(control_points=stn.text_edges(8, margin=margin)) for margin in (0.0, 0.1)]
    one, two = (stn.SpatialTransformer(DenseLocalization(64), edge) for edge in edges)
    with pytest.warns(UserWarning, match="control_points .*, here"):
        two.load_state_dict(one.state_dict())


def test_settings_are_constants_with_numbers() -> None:
    points = nn.Parameter(stn.text_edges(8))
    with pytest.raises(stn.InputError, match="control_points must be constant, .* pass control_points.detach"):
        stn.ThinPlateSpline(control_points=points)
    with pytest.raises(stn.InputError, match="start must be constant"):
        stn.SpatialTransformer(DenseLocalization(64), start=nn.Parameter(torch.tensor(START)))
    with torch.device("meta"):
        with pytest.raises(stn.InputError, match="start must have numbers; got a tensor of the meta device"):
            stn.SpatialTransformer(DenseLocalization(64), start=torch.tensor(START))
        with pytest.raises(stn.InputError, match="control_points must have numbers"):
            stn.ThinPlateSpline(control_points=torch.zeros(4, 2))
