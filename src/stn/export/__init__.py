"""Networks for other runtimes: ONNX, and torch programs that contain none of this library's operators."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from stn import _check
from stn.export import older
from stn.ops.context import LOWERINGS, Target, exporting

__all__ = ["largest_difference", "to_onnx", "to_program"]

OPSETS = range(16, 21)  # the first has GridSample


def to_program(
    model: nn.Module,
    *example: Tensor,  # (N, ..) each: the arguments of the model
    lowering: str = "grid_sample",
    dynamic_batch: bool = True,
) -> ExportedProgram:
    """Trace a model in evaluation mode with `torch.export`, in torch's own operators alone, in float32.

    The program runs, and is saved and loaded, where this library is not installed. (`torch.export.export` keeps the
    fused operators.)

    Args:
        model: The network. Its training modes are restored afterwards.
        *example: Tensors (N, ..): the arguments of the model, one tensor each.
        lowering: "grid_sample": each sampling call becomes one `grid_sample`. "gather": it becomes a gather of its
            pixels, which exists for every mode and padding.
        dynamic_batch: Accept any N. False: only the N of the example.

    Returns:
        The traced program; `program.module()` is callable.

    Raises:
        InputError: The lowering cannot express an option of the model, which the message names.

    Example:
        >>> layer = stn.SpatialTransformer(stn.nn.DenseLocalization(64), "affine")
        >>> program = stn.export.to_program(layer, torch.rand(2, 1, 8, 8))
        >>> program.module()(torch.rand(5, 1, 8, 8)).shape
        torch.Size([5, 1, 8, 8])
    """
    return _traced(model, example, Target(_checked(lowering)), dynamic_batch)


def to_onnx(
    model: nn.Module,
    *example: Tensor,  # (N, ..) each: the arguments of the model
    path: Path | str | None = None,
    opset: int = 20,
    lowering: str = "grid_sample",
    dynamic_batch: bool = True,
) -> torch.onnx.ONNXProgram:
    """Export a model in evaluation mode as ONNX of standard operators, in float32.

    Several looks at an image do not copy it. Needs `pip install 'torch-stn[export]'`.

    Args:
        model: The network. Its training modes are restored afterwards.
        *example: Tensors (N, ..): the arguments of the model, one tensor each.
        path: File to write, weights included. None: no file.
        opset: 16 to 20. Volumes have GridSample from 20 on.
        lowering: "grid_sample", or "gather": for everything that GridSample lacks (modes catmull_rom, bspline, lanczos3
            or a `stn.Kernel`, padding wrap, volumes before opset 20) and for runtimes without GridSample.
        dynamic_batch: Accept any N. False: only the N of the example.

    Returns:
        The program; `program.model_proto` is the ONNX model.

    Raises:
        InputError: The model cannot be exported faithfully; the message names the option or operator.

    Example:
        >>> layer = stn.SpatialTransformer(stn.nn.DenseLocalization(64), "affine")
        >>> program = stn.export.to_onnx(layer, torch.rand(2, 1, 8, 8))
        >>> "GridSample" in {node.op_type for node in program.model_proto.graph.node}
        True
    """
    for package in ("onnx", "onnx_ir", "onnxscript"):
        _check.installed(package, "export")
    _check.choice("opset", opset, OPSETS)
    program = _traced(model, example, Target(_checked(lowering), opset), dynamic_batch)
    with _quiet():
        try:
            found = torch.onnx.export(
                program, (), **_names(program, len(example)), opset_version=max(opset, older.WRITTEN), verbose=False
            )
        except torch.onnx.errors.OnnxExporterError as error:
            _check.fail(f"the model must consist of operators that ONNX has; {error}")
    assert found is not None  # always, with dynamo=True, the default
    _stripped(found.model)
    if opset < older.WRITTEN:
        older.rewrite(found.model, opset)
    if path is not None:
        found.save(path, external_data=False)
    return found


def largest_difference(exported: torch.onnx.ONNXProgram, model: nn.Module, *example: Tensor) -> float:
    """Compare the outputs of ONNX Runtime on its CPU with those of the model in evaluation mode: a test of `to_onnx`.

    Args:
        exported: The result of `to_onnx`.
        model: The network from which it was made.
        *example: Tensors (N, ..) on the CPU: the arguments of the model.

    Returns:
        The largest absolute difference over all outputs.

    Raises:
        InputError: The package onnxruntime is not installed.

    Example:
        >>> layer, x = stn.SpatialTransformer(stn.nn.DenseLocalization(64), "tps"), torch.rand(2, 1, 8, 8)
        >>> stn.export.largest_difference(stn.export.to_onnx(layer, x), layer, x) < 1e-4
        True
    """
    _check.installed("onnxruntime", "export")
    import onnxruntime

    session = onnxruntime.InferenceSession(exported.model_proto.SerializeToString(), providers=["CPUExecutionProvider"])
    found = session.run(None, {i.name: x.numpy() for i, x in zip(session.get_inputs(), example, strict=True)})
    with evaluating(model), torch.no_grad():
        expected = model(*example)
    expected = (expected,) if isinstance(expected, Tensor) else expected
    pairs = zip(found, expected, strict=True)
    return max((torch.from_numpy(ours) - theirs).abs().max().item() for ours, theirs in pairs)


def _names(program: ExportedProgram, inputs: int) -> dict[str, Any]:
    """Name the outputs and the batch; inputs have the names of the arguments of the model."""
    count = len(program.graph_signature.user_outputs)
    outputs = ["output"] if count == 1 else [f"output_{i}" for i in range(count)]
    batch = {"dynamic_shapes": ({0: "batch"},) * inputs} if program.range_constraints else {}
    return {"output_names": outputs, **batch}


def _stripped(model: Any) -> None:  # an onnx_ir.Model
    """Remove the notes at each node, which are large and contain source lines and paths of this machine."""
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass

    ClearMetadataAndDocStringPass()(model)


def _checked(lowering: str) -> str:
    _check.choice("lowering", lowering, LOWERINGS)
    return lowering


def _traced(model: nn.Module, example: Sequence[Tensor], target: Target, dynamic_batch: bool) -> ExportedProgram:
    _check.made("model", model, nn.Module, "nn.Sequential(layer, ..)")
    _check.some("example", example)
    number: int
    tensor: Any
    for number, tensor in enumerate(example):
        if isinstance(tensor, str | Path):
            _check.fail(
                f"example must be tensors, the arguments of the model; got {tensor!r}: give the file by its name, path=.."
            )
        _check.tensor(f"example[{number}]", tensor)
    shapes = None
    if dynamic_batch:  # torch treats a batch of 1 as constant
        example = [torch.cat([tensor, tensor]) if len(tensor) == 1 else tensor for tensor in example]
        batch = Dim("batch", min=1)
        shapes = tuple({0: batch} for _ in example)
    with evaluating(model), torch.no_grad(), exporting(target):
        return torch.export.export(model, tuple(example), dynamic_shapes=shapes)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model in evaluation mode; restore the mode of each module afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide the internal notes of the exporter, which would appear as warnings."""
    logger: Any = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*LeafSpec", category=FutureWarning)
            yield
    finally:
        logger.setLevel(level)
