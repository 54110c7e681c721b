"""The digit panel of the playground: a trained network as ONNX, beside the runtime that executes it in the browser.

MkDocs calls `on_files` and `on_page_markdown` (`hooks` in mkdocs.yml).
"""

import os
import re
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import stn

sys.path.insert(0, str(Path(__file__).parent))
import onnxruntime_web as runtime  # noqa: E402  # a module beside this one, which MkDocs loads by its path

NAME = "st-cnn-affine/rts"
PANEL = re.compile("<!-- digits -->.*<!-- end of digits -->", flags=re.DOTALL)  # in docs/playground.md
MISSING = (
    "This site was built without ONNX Runtime for browsers (npm was not available), so this panel is missing. "
    "`stn read IMAGE..` reads digits with the same network."
)


class Looking(nn.Module):
    """The network with what it sees: images -> probabilities (N, 10), theta (N, 2, 3), crops (N, 1, 56, 56)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        transformer, *rest = network.children()
        self.transformer, self.classifier = transformer, nn.Sequential(*rest)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        crops, warp = self.transformer(images, return_warp=True)
        return self.classifier(crops).softmax(dim=-1), warp.matrix, crops


def model() -> bytes:
    """Export the trained network as an ONNX file (1.6 MB)."""
    network = stn.models.load(NAME)
    example = torch.zeros(1, *stn.models.cards()[NAME].input_shape)
    content: bytes = stn.export.to_onnx(Looking(network), example).model_proto.SerializeToString()
    return content


# ---- hooks of MkDocs ----


def on_files(files: Any, config: Any) -> Any:
    from mkdocs.structure.files import File

    if runtime.installed() and not os.environ.get("STN_DOCS_DRAFT"):
        files.append(File.generated(config, "assets/playground/digits.onnx", content=model()))
        for name in runtime.FILES:
            files.append(File.generated(config, f"assets/onnxruntime/{name}", abs_src_path=str(runtime.FOLDER / name)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    if page.file.src_uri != "playground.md" or runtime.installed():
        return markdown
    return PANEL.sub(MISSING, markdown)
