"""`stn export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.conf import Positional

from stn import _check
from stn.cli.options import Folder


def export(
    run: Folder,
    out: Annotated[Positional[Path], tyro.conf.arg(metavar="OUT")],
    opset: int = 20,
    lowering: Literal["grid_sample", "gather"] = "grid_sample",
) -> None:
    """Export the network of a run as ONNX, and print the largest difference between the two.

    The file contains standard operators only and accepts batches of any size.

    Args:
        run: Folder of the run.
        out: The file to write (model.onnx).
        opset: ONNX opset, 16 to 20. GridSample accepts volumes from opset 20 on.
        lowering: Form of a sampling call in the file: grid_sample (one operator), or gather, for runtimes without GridSample
            and for volumes below opset 20.
    """
    from stn.export import largest_difference, to_onnx
    from stn.io.files import write_atomically
    from stn.lab.experiments.evaluate import example_images, trained_network
    from stn.lab.experiments.folder import RunFolder

    _check.outputs({"out": out}, endings={"out": (".onnx",)})
    folder = RunFolder(run)
    network, images = trained_network(folder), example_images(folder, count=3)
    exported = to_onnx(network, images, opset=opset, lowering=lowering)
    difference = largest_difference(exported, network, images)
    write_atomically(out, lambda file: file.write(exported.model_proto.SerializeToString()))
    print(f"{out}: opset {opset}, largest difference from the network {difference:.1e}")
