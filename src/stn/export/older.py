"""Opsets 16 and 17: the exporter writes at least 18, and the converter of onnx fails for several operators."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from stn import _check

if TYPE_CHECKING:
    import onnx_ir

WRITTEN = 18  # the oldest opset of the exporter of torch


def rewrite(model: onnx_ir.Model, opset: int) -> None:
    """Convert a model from opset 18 to `opset`: rewrite the nodes whose operator has changed.

    Raises: InputError, which names an operator that did not exist or had fewer features.
    """
    import onnx
    import onnx_ir

    for node in onnx_ir.traversal.RecursiveGraphIterator(model.graph):
        kind = node.op_type
        if not onnx.defs.has(kind, opset):
            refuse(node, opset, least=onnx.defs.get_schema(kind, WRITTEN).since_version)
        now, then = (onnx.defs.get_schema(kind, version).since_version for version in (WRITTEN, opset))
        if now != then:
            CHANGED.get(kind, refuse)(node, opset)
        node.version = opset
    model.opset_imports[""] = opset
    onnx.checker.check_model(onnx_ir.to_proto(model), full_check=True)  # the checker would find an unknown attribute


def refuse(node: onnx_ir.Node, opset: int, *, least: int = WRITTEN) -> None:
    _check.fail(f"opset must be at least {least} for a model with the operator {node.op_type}; got {opset}")


def axes_as_attribute(node: onnx_ir.Node, opset: int) -> None:
    """Move the axes of a reduction to an attribute; they became an input in opset 18."""
    import onnx_ir

    axes = node.inputs[1] if len(node.inputs) > 1 else None
    node.attributes.pop("noop_with_empty_axes", None)
    if axes is not None:
        constant = onnx_ir.convenience.get_const_tensor(axes)
        if constant is None:
            refuse(node, opset)
        else:
            node.attributes.add(onnx_ir.AttrInt64s("axes", constant.numpy().flatten().tolist()))
    node.resize_inputs(1)


def parts_by_outputs(node: onnx_ir.Node, opset: int) -> None:
    """Remove num_outputs of Split; before opset 18 equal parts were the default."""
    node.attributes.pop("num_outputs", None)


def all_axes(node: onnx_ir.Node, opset: int) -> None:
    """Raise an error for Pad with an input of axes, which before opset 18 did not exist."""
    if len(node.inputs) > 3 and node.inputs[3] is not None:
        refuse(node, opset)


def unchanged(node: onnx_ir.Node, opset: int) -> None:
    """Keep the node; the checker would find a new attribute."""


REDUCTIONS = ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare")
CHANGED: dict[str, Callable[[onnx_ir.Node, int], None]] = {
    **{f"Reduce{name}": axes_as_attribute for name in REDUCTIONS},
    "Split": parts_by_outputs,
    "Pad": all_axes,
    **{name: unchanged for name in ("Resize", "ScatterElements", "ScatterND")},
}
