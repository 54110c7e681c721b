"""Networks for other runtimes: ONNX Runtime computes the same results, and export never changes a network silently."""

import copy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import onnx_ir
import pytest
import torch
from torch import Tensor, nn

import stn
from stn.export import largest_difference, older, to_onnx, to_program
from stn.transforms import Family
from tests.helpers import noise

CLOSE = 1e-4  # for images of unit deviation; observed differences are below 3e-6
SIDES = {2: (9, 11), 3: (7, 9, 11)}


def images(n: int, ndim: int = 2, seed: int = 0) -> Tensor:
    return noise(n, 2, *SIDES[ndim], dtype=torch.float32, seed=seed)


class Network(nn.Module):
    """A transformer between a batch norm and a convolution. Its looks are not the identity."""

    def __init__(self, family: Family | str, ndim: int = 2, looks: int = 1, **options: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        pixels = 2 * torch.Size(SIDES[ndim]).numel()
        size = tuple(n - 1 for n in SIDES[ndim])
        localization = nn.Sequential(nn.Flatten(), nn.Linear(pixels, 4), nn.Tanh())
        self.norm = nn.BatchNorm2d(2) if ndim == 2 else nn.BatchNorm3d(2)
        self.look = stn.SpatialTransformer(localization, family, size, num_transforms=looks, features=4, **options)
        nn.init.normal_(self.look.regression.weight, std=0.1)
        nn.init.normal_(self.norm.weight)

    def forward(self, image: Tensor) -> Tensor:
        found: Tensor = self.look(self.norm(image))
        return found.flatten(1, -4) if found.ndim > image.ndim else found


CASES: dict[str, tuple[Callable[[], Network], dict[str, Any]]] = {  # stn.lab.studies.export_matrix has all families
    "affine, 3 looks": (lambda: Network("affine", looks=3, fill_value=0.7), {"opset": 16}),
    "exponential, volumes": (lambda: Network(stn.ExponentialAffine(3), 3, padding_mode="border"), {"opset": 20}),
    "thin plate": (lambda: Network("tps", mode="bicubic", padding_mode="reflection", align_corners=True), {"opset": 17}),
    "wrap": (lambda: Network("similarity", padding_mode="wrap"), {"opset": 17, "lowering": "gather"}),
    "volumes": (lambda: Network(stn.Affine(3), 3, mode="nearest"), {"opset": 16, "lowering": "gather"}),
}
PROGRAMS: dict[str, tuple[Callable[[], Network], str]] = {
    "corners": (lambda: Network("corners", padding_mode="reflection", align_corners=True), "grid_sample"),
    "b-spline, nearest": (lambda: Network("bspline", mode="nearest"), "grid_sample"),
    "displacement": (lambda: Network("displacement"), "grid_sample"),
    "velocity": (lambda: Network(stn.Velocity(squarings=2)), "grid_sample"),
    "cpab": (lambda: Network(stn.CPAB(steps=2), padding_mode="wrap"), "gather"),
    "rigid, volumes": (lambda: Network(stn.Rigid(3), 3), "gather"),
    "rigid, aspect": (lambda: Network(stn.Rigid(aspect=2.5)), "grid_sample"),
    "similarity, slices": (lambda: Network(stn.Similarity(3, aspect=(9, 4, 5)), 3), "gather"),
    "lanczos": (lambda: Network("similarity", mode="lanczos3", fill_value=-1.0), "gather"),
    "b-spline kernel": (lambda: Network("projective", mode="bspline", padding_mode="border"), "gather"),
    "antialias": (lambda: Network("tps", antialias=True), "grid_sample"),
    "anisotropic": (lambda: Network("affine", antialias="anisotropic"), "grid_sample"),
    "fixed": (
        lambda: Network(stn.fixed(stn.bounded(stn.Rigid(aspect=2.0), angle=(-1, 1)), translation=(None, 0.1))),
        "grid_sample",
    ),
    "bounded": (lambda: Network(stn.bounded(stn.Affine(), matrix=(-2, 2))), "grid_sample"),
}


def operators(exported: torch.onnx.ONNXProgram) -> set[str]:
    nodes = exported.model_proto.graph.node
    assert {node.domain for node in nodes} == {""}, "only standard operators"
    return {node.op_type for node in nodes}


@pytest.mark.parametrize("name", CASES)
def test_onnx_runtime_agrees(name: str, tmp_path: Path) -> None:
    build, how = CASES[name]
    network, path = build(), tmp_path / "model.onnx"
    ndim = network.look.family.ndim
    exported = to_onnx(network, images(1, ndim), path=path, **how)
    assert network.training and network.norm.training, "the mode is restored"
    saved = onnx.load(path)
    onnx.checker.check_model(saved, full_check=True)
    assert [(entry.domain, entry.version) for entry in saved.opset_import] == [("", how["opset"])]
    assert ("GridSample" in operators(exported)) == ("lowering" not in how)
    assert "float64" not in {str(value.dtype).lower() for value in values(exported)}, "few runtimes support it"
    for n in (1, 5):  # batches of any size
        batch = images(n, ndim, seed=n)
        assert largest_difference(exported, network, batch) < CLOSE


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_agree(name: str) -> None:
    """The programs consist of torch's own operators in float32, for batches of any size."""
    build, lowering = PROGRAMS[name]
    network = build()
    program = to_program(network, images(1, network.look.family.ndim), lowering=lowering)
    targets = {str(node.target) for node in program.graph.nodes}
    assert any("grid_sampler" in target for target in targets) == (lowering == "grid_sample")
    assert not any(word in target for target in targets for word in ("stn.", "inv", "solve", "cdist"))
    for n in (1, 5):
        batch = images(n, network.look.family.ndim, seed=n)
        with torch.no_grad():
            torch.testing.assert_close(program.module()(batch), network.eval()(batch), atol=CLOSE, rtol=0)


def test_the_networks_do_not_look_straight() -> None:
    """With identity looks, the tests above would pass for a sampler that returns its input."""
    for build, *_ in (*CASES.values(), *PROGRAMS.values()):
        network = build().eval()
        batch = images(2, network.look.family.ndim)
        theta = network.look.localize(network.norm(batch))
        away = (theta - network.look.family.identity()).abs().amax(dim=-1)
        assert away.min() > 0.02 and away.max() < 1.5, away


def values(exported: torch.onnx.ONNXProgram) -> list[Any]:
    graph = exported.model.graph
    return [*graph.inputs, *graph.initializers.values(), *(out for node in graph for out in node.outputs)]


def test_a_wrong_export_is_seen() -> None:
    """`largest_difference` compares the export with the network that it receives."""
    network = Network("affine")
    exported = to_onnx(network, images(2))
    assert largest_difference(exported, network, images(2)) < CLOSE
    other = copy.deepcopy(network)
    nn.init.constant_(other.look.regression.weight, 0.05)
    assert largest_difference(exported, other, images(2)) > 100 * CLOSE


def test_names_and_batch() -> None:
    exported = to_onnx(Network("affine"), images(1))
    graph = exported.model_proto.graph
    assert [value.name for value in (*graph.input, *graph.output)] == ["image", "output"]
    assert graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    fixed = to_onnx(Network("affine"), images(1), dynamic_batch=False).model_proto.graph
    assert fixed.input[0].type.tensor_type.shape.dim[0].dim_value == 1
    assert str(Path(__file__).parent) not in str(exported.model_proto), "the file has no paths of this machine"


@pytest.mark.parametrize(
    "options, how, sentence",
    [
        ({"mode": "lanczos3"}, {}, "mode must be nearest, bilinear, bicubic for GridSample in 2-D, or ask for .*'gather'"),
        ({"mode": stn.Kernel(torch.ones_like, 1)}, {}, "mode must be .*; got Kernel"),
        ({"padding_mode": "wrap"}, {}, "padding_mode must be zeros, border, reflection for GridSample, .* got 'wrap'"),
        ({}, {"opset": 15}, "opset must be one of 16, 17, 18, 19, 20; got 15"),
        ({}, {"lowering": "scatter"}, "lowering must be one of gather, grid_sample; got 'scatter'"),
    ],
)
def test_what_cannot_be_kept_is_an_error(options: dict[str, Any], how: dict[str, Any], sentence: str) -> None:
    with pytest.raises(stn.InputError, match=sentence):
        to_onnx(Network("affine", **options), images(2), **how)


def test_volumes_have_grid_sample_from_opset_20() -> None:
    volumes = Network(stn.Affine(3), 3)
    with pytest.raises(stn.InputError, match="opset must be at least 20 for GridSample of volumes, .* got opset=19"):
        to_onnx(volumes, images(2, 3), opset=19)
    cubic = Network(stn.Affine(3), 3, mode="bicubic")
    with pytest.raises(stn.InputError, match="mode must be nearest, bilinear for GridSample in 3-D, .* got 'bicubic'"):
        to_onnx(cubic, images(2, 3))


class Inverts(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.linalg.inv_ex(x).inverse


def test_an_operator_that_onnx_lacks_is_named() -> None:
    with pytest.raises(stn.InputError, match="the model must consist of operators that ONNX has; .*"):
        to_onnx(Inverts(), torch.eye(3).expand(2, 3, 3))


def test_older_opsets_refuse_what_they_cannot_do() -> None:
    """The operators are those with an axis that is computed at run time, and those that were introduced later."""
    for kind, opset, least in (("ReduceMax", 17, 18), ("BitwiseAnd", 17, 18), ("LayerNormalization", 16, 17)):
        x, axis = onnx_ir.val("x", onnx_ir.DataType.INT64, [2]), onnx_ir.val("axis", onnx_ir.DataType.INT64, [2])
        node = onnx_ir.node(kind, [x, axis])
        graph = onnx_ir.Graph([x, axis], node.outputs, nodes=[node], opset_imports={"": 18}, name="graph")
        with pytest.raises(stn.InputError, match=f"opset must be at least {least} for a model with the operator {kind}"):
            older.rewrite(onnx_ir.Model(graph, ir_version=10), opset)


def test_a_program_runs_without_the_library(tmp_path: Path) -> None:
    """Save a program of torch's own operators, and load it in a process that never imports this library."""
    network, batch = Network("tps", looks=2), images(3)
    program = to_program(network, images(2))
    assert not any("stn" in str(node.target) for node in program.graph.nodes)
    torch.export.save(program, tmp_path / "network.pt2")
    with torch.no_grad():
        torch.save((batch, network.eval()(batch)), tmp_path / "pair.pt")
    code = (
        "import sys, torch; x, y = torch.load('pair.pt'); "
        "z = torch.export.load('network.pt2').module()(x); assert 'stn' not in sys.modules; "
        "print((z - y).abs().max().item())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert float(done.stdout) < CLOSE


def test_torch_export_keeps_the_fused_operators() -> None:
    """This is export without a lowering; the operators keep their precision."""
    network, batch = Network("affine").eval(), images(3)
    program = torch.export.export(network, (images(2),), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},))
    assert any("stn.matrix_sample" in str(node.target) for node in program.graph.nodes)
    torch.testing.assert_close(program.module()(batch), network(batch), atol=1e-6, rtol=0)
