"""Networks that read lines of text: shapes and decoding."""

import pytest
import torch
from torch import Tensor

import stn
from stn.lab.data.strings import NONE
from stn.models.lines import TEXT_MODELS, TextRecognizer, build_text, greedy_decode


@pytest.mark.parametrize("size", ((64, 200), (32, 100), (47, 131)))
@pytest.mark.parametrize("model", TEXT_MODELS)
def test_shapes(model: str, size: tuple[int, int]) -> None:
    logits = build_text(model, 7, in_channels=3)(torch.rand(2, 3, *size))
    assert logits.shape == (2, 25, 7) and logits.dtype == torch.float32


@pytest.mark.parametrize("model", TEXT_MODELS)
def test_images_in_half_precision(model: str) -> None:
    """Mixed-precision training passes such images; torch cannot resize them on a CPU."""
    with torch.autocast("cpu", torch.bfloat16):
        logits = build_text(model)(torch.rand(2, 1, 64, 200, dtype=torch.bfloat16))
    assert logits.shape == (2, 25, 11) and logits.dtype == torch.float32 and logits.isfinite().all()


def one_hot(*rows: list[int]) -> Tensor:
    return torch.nn.functional.one_hot(torch.tensor(rows), 11).float()


def test_greedy_decoding() -> None:
    b = NONE
    paths = one_hot([b, 1, 1, b, 1, 2], [3, 3, 3, 3, 3, 3], [b, b, b, b, b, b], [0, 1, 0, b, b, 9])
    wanted = [[1, 1, 2, b, b, b], [3, b, b, b, b, b], [b] * 6, [0, 1, 0, 9, b, b]]
    assert greedy_decode(paths).tolist() == wanted


def test_bad_requests() -> None:
    with pytest.raises(stn.InputError, match="model must be one of crnn, st-crnn; got 'vit'"):
        build_text("vit")
    with pytest.raises(stn.InputError, match=r"x must be \(N, C, 32, W\) with W >= 4; got \(1, 1, 64, 200\)"):
        TextRecognizer()(torch.rand(1, 1, 64, 200))
    with pytest.raises(stn.InputError, match="classes must be an integer of at least 2; got 1"):
        TextRecognizer(1)
