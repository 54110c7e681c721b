"""The difference between ONNX Runtime and the network, for every family, opset and lowering, in 2-D and 3-D.

    python -m stn.lab.studies.export_matrix [--out benchmarks/results/export] [--families affine tps] [--looks 2]

A network is a batch norm, a localization network (one linear layer) and the transformer with its looks. Images are white
noise with a standard deviation of 1, of 9x11 or 7x9x11 pixels. The example batch has 2 images, the compared batch 4. Each
row is written immediately; an interrupted run continues after the existing rows.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import stn
from stn.export import OPSETS, largest_difference, to_onnx
from stn.io.files import write_rows
from stn.lab.experiments.machine import machine
from stn.ops.context import LOWERINGS
from stn.transforms import FAMILIES, Family

Row = dict[str, Any]
SIDES = {2: (9, 11), 3: (7, 9, 11)}
KEYS = ("family", "ndim", "lowering", "opset", "looks")


def network(family: Family, looks: int) -> nn.Sequential:
    torch.manual_seed(0)
    sides = SIDES[family.ndim]
    localization = nn.Sequential(nn.Flatten(), nn.Linear(2 * torch.Size(sides).numel(), 4), nn.Tanh())
    size = tuple(n - 1 for n in sides)
    layer = stn.SpatialTransformer(localization, family, size, num_transforms=looks, features=4)
    nn.init.normal_(layer.regression.weight, std=0.1)
    return nn.Sequential(nn.BatchNorm2d(2) if family.ndim == 2 else nn.BatchNorm3d(2), layer)


def images(count: int, ndim: int) -> Tensor:
    return torch.randn(count, 2, *SIDES[ndim], generator=torch.Generator().manual_seed(count))


def measured(key: Row) -> Row:
    """Measure one cell: the largest difference, or the message of the error."""
    layer = network(FAMILIES[key["family"]](key["ndim"]), key["looks"])
    try:
        exported = to_onnx(layer, images(2, key["ndim"]), opset=key["opset"], lowering=key["lowering"])
    except stn.InputError as error:
        return key | {"refused": str(error)}
    nodes = [node.op_type for node in exported.model_proto.graph.node]
    difference = largest_difference(exported, layer, images(4, key["ndim"]))
    return key | {"difference": difference, "nodes": len(nodes), "grid_samples": nodes.count("GridSample")}


def cells(families: list[str], looks: int) -> Iterator[Row]:
    for name in families:
        for ndim in (2, 3):
            try:
                FAMILIES[name](ndim)
            except stn.InputError:  # a family without a 3-D form
                continue
            for lowering in LOWERINGS:
                for opset in OPSETS:
                    yield dict(zip(KEYS, (name, ndim, lowering, opset, looks), strict=True))


def markdown(header: Row, rows: list[Row]) -> str:
    columns = [(lowering, opset) for lowering in LOWERINGS for opset in OPSETS]
    lines = ["## Exported networks in ONNX Runtime", "", *(f"- {key}: {value}" for key, value in header.items()), ""]
    lines += ["Largest absolute difference from the output of the network, for noise images with a standard deviation of 1."]
    lines += ["A dash: the export raises an error, because GridSample of ONNX accepts volumes only from opset 20 on.", ""]
    lines += [f"| family | {' | '.join(f'{lowering} {opset}' for lowering, opset in columns)} |"]
    lines += ["|---|" + "---:|" * len(columns)]
    for name, ndim in dict.fromkeys((row["family"], row["ndim"]) for row in rows):
        found = {(r["lowering"], r["opset"]): r for r in rows if (r["family"], r["ndim"]) == (name, ndim)}
        texts = (cell(found[column]) if column in found else "" for column in columns)
        lines.append(f"| {name} {ndim}-D | {' | '.join(texts)} |")
    return "\n".join(lines) + "\n"


def cell(row: Row) -> str:
    return "-" if "refused" in row else f"{row['difference']:.1e}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/export"), help="without the suffix")
    parser.add_argument("--families", nargs="+", default=list(FAMILIES), choices=list(FAMILIES))
    parser.add_argument("--looks", type=int, default=2, help="per image")
    given = parser.parse_args()
    path = given.out.with_suffix(".json")
    rows: list[Row] = json.loads(path.read_text())["rows"] if path.exists() else []
    there = {tuple(row[key] for key in KEYS) for row in rows}
    header = {"machine": machine(), "torch": torch.__version__, "looks per image": given.looks}
    for key in cells(given.families, given.looks):
        if tuple(key.values()) in there:
            continue
        rows.append(measured(key))
        print(*key.values(), cell(rows[-1]), flush=True)
        write_rows(given.out, {"header": header, "rows": rows}, markdown(header, rows))


if __name__ == "__main__":
    main()
