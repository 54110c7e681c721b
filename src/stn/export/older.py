"""Opsets 16 and 17: the exporter writes 18 at least, and onnx's own converter gives up on several of its operators."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from stn import _check

if TYPE_CHECKING:
    import onnx_ir

WRITTEN = 18  # the oldest opset that torch writes


def rewrite(model: onnx_ir.Model, opset: int) -> None:
    """Make a model of opset 18 one of `opset`: nodes whose operator has changed since are written as it was.

    Raises: InputError, which names an operator that did not exist or could do less.
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
    onnx.checker.check_model(onnx_ir.to_proto(model), full_check=True)  # an attribute that did not exist would be found


def refuse(node: onnx_ir.Node, opset: int, *, least: int = WRITTEN) -> None:
    _check.fail(f"opset must be at least {least} for a model that needs {node.op_type} as it is there; got {opset}")


def axes_as_attribute(node: onnx_ir.Node, opset: int) -> None:
    """Of a reduction: they became an input in 18."""
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
    """Of Split: that it is into equal parts was said by their number alone."""
    node.attributes.pop("num_outputs", None)


def all_axes(node: onnx_ir.Node, opset: int) -> None:
    """Of Pad: it had one pair of numbers for every axis."""
    if len(node.inputs) > 3 and node.inputs[3] is not None:
        refuse(node, opset)


def unchanged(node: onnx_ir.Node, opset: int) -> None:
    """What was added is an attribute, which the checker would find."""


REDUCTIONS = ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare")
CHANGED: dict[str, Callable[[onnx_ir.Node, int], None]] = {
    **{f"Reduce{name}": axes_as_attribute for name in REDUCTIONS},
    "Split": parts_by_outputs,
    "Pad": all_axes,
    **{name: unchanged for name in ("Resize", "ScatterElements", "ScatterND")},
}
