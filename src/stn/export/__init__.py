"""Networks for other runtimes: ONNX, and programs of torch that hold none of this library's operators."""

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

OPSETS = range(16, 21)  # GridSample is there from the first


def to_program(
    model: nn.Module,
    *example: Tensor,  # (N, ..) each: what the model takes
    lowering: str = "grid_sample",
    dynamic_batch: bool = True,
) -> ExportedProgram:
    """The model in evaluation mode as `torch.export` has it, in torch's own operators alone, in float32.

    It runs, and is saved and loaded, where this library is not installed. (`torch.export.export` keeps the fused operators.)
    lowering: each look becomes one "grid_sample", or, for any mode and padding there is, a "gather" of its pixels.
    dynamic_batch: N is free; the example's N is that of one call otherwise.

    Raises: InputError, which names what the lowering cannot keep.
    """
    return _traced(model, example, Target(_checked(lowering)), dynamic_batch)


def to_onnx(
    model: nn.Module,
    *example: Tensor,  # (N, ..) each: what the model takes
    path: Path | str | None = None,
    opset: int = 20,
    lowering: str = "grid_sample",
    dynamic_batch: bool = True,
) -> torch.onnx.ONNXProgram:
    """The model in evaluation mode as ONNX of standard operators, in float32; written to `path`, weights included.

    opset: 16 to 20; volumes have GridSample from 20 on. lowering: "grid_sample", or "gather" for what GridSample lacks
    (modes catmull_rom, bspline, lanczos3 or a `stn.Kernel`, padding wrap, volumes before 20) and runtimes that lack it.
    Several looks at an image do not copy it. dynamic_batch: as in `to_program`.

    Raises: InputError, which names what cannot be kept: nothing is exported in another form than it was asked for.
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
            _check.fail(f"the model must be made of operators that ONNX has; {error}")
    assert found is not None  # it is with dynamo=True, the default
    _stripped(found.model)
    if opset < older.WRITTEN:
        older.rewrite(found.model, opset)
    if path is not None:
        found.save(path, external_data=False)
    return found


def largest_difference(exported: torch.onnx.ONNXProgram, model: nn.Module, *example: Tensor) -> float:
    """Between ONNX Runtime's outputs on its CPU and the model's own in evaluation mode: proof for what `to_onnx` made."""
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
    """Of the outputs and the batch; inputs are called as the model's arguments are."""
    count = len(program.graph_signature.user_outputs)
    outputs = ["output"] if count == 1 else [f"output_{i}" for i in range(count)]
    batch = {"dynamic_shapes": ({0: "batch"},) * inputs} if program.range_constraints else {}
    return {"output_names": outputs, **batch}


def _stripped(model: Any) -> None:  # an onnx_ir.Model
    """Without the notes at each node, larger than all else: pieces of the source and where it lay on this machine."""
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass

    ClearMetadataAndDocStringPass()(model)


def _checked(lowering: str) -> str:
    _check.choice("lowering", lowering, LOWERINGS)
    return lowering


def _traced(model: nn.Module, example: Sequence[Tensor], target: Target, dynamic_batch: bool) -> ExportedProgram:
    for number, tensor in enumerate(example):
        _check.tensor(f"example {number}", tensor)
    shapes = None
    if dynamic_batch:  # torch takes a batch of one for one that is always one
        example = [torch.cat([tensor, tensor]) if len(tensor) == 1 else tensor for tensor in example]
        batch = Dim("batch", min=1)
        shapes = tuple({0: batch} for _ in example)
    with evaluating(model), torch.no_grad(), exporting(target):
        return torch.export.export(model, tuple(example), dynamic_shapes=shapes)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, and then each module's own again."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's notes on its own workings, which reach the user as warnings."""
    logger: Any = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*LeafSpec", category=FutureWarning)
            yield
    finally:
        logger.setLevel(level)
