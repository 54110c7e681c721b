"""Training on lines of text: CTC against a sum over all alignments, and the error of strings."""

import itertools

import pytest
import torch
from torch import Tensor

import stn
from stn.lab.data.strings import NONE
from stn.lab.networks.text import ctc_loss, sequence_error
from stn.models.lines import build_text
from tests.helpers import noise


def test_every_weight_learns() -> None:
    torch.manual_seed(0)
    network = build_text("st-crnn")
    strings = torch.randint(0, 10, (4, 5))
    for _ in range(2):  # the weights that produce theta start at zero and block the gradient of the first step
        network.zero_grad()
        ctc_loss(network(torch.rand(4, 1, 64, 200)), strings).backward()
        torch.nn.init.normal_(network.get_parameter("transformer.regression.weight"), std=0.01)
    for key, p in network.named_parameters():
        assert p.grad is not None and p.grad.isfinite().all() and p.grad.abs().max() > 0, key


def likelihood(logits: Tensor, string: list[int]) -> Tensor:
    """Return the sum over all alignments (T classes each) that collapse to this string. logits: (T, C)."""
    steps, classes = logits.shape
    p, total = logits.softmax(dim=-1), logits.new_zeros(())
    for path in itertools.product(range(classes), repeat=steps):
        collapsed = [c for c, _ in itertools.groupby(path) if c != classes - 1]
        if collapsed == string:
            total = total + torch.stack([p[t, c] for t, c in enumerate(path)]).prod()
    return total


def test_ctc_sums_over_alignments() -> None:
    logits, blank = noise(3, 4, 3), 2
    strings = torch.tensor([[0, 1], [1, 1], [0, blank]])
    want = torch.stack([-likelihood(logits[0], [0, 1]).log() / 2, -likelihood(logits[1], [1, 1]).log() / 2])
    want = torch.cat([want, -likelihood(logits[2], [0]).log()[None]]).mean()
    torch.testing.assert_close(ctc_loss(logits, strings).double(), want, rtol=1e-5, atol=0)


def test_a_string_that_does_not_fit_adds_nothing() -> None:
    logits = noise(1, 3, 3).requires_grad_()
    loss = ctc_loss(logits, torch.tensor([[1, 1, 1]]))  # it needs five steps
    loss.backward()
    assert loss == 0 and logits.grad is not None and (logits.grad == 0).all()


def one_hot(*rows: list[int]) -> Tensor:
    return torch.nn.functional.one_hot(torch.tensor(rows), 11).float()


def test_sequence_error_counts_whole_strings() -> None:
    b = NONE
    paths = one_hot([1, 1, b, 1], [4, 4, b, b], [b, b, b, b], [5, b, 6, b], [5, 6, 7, 8])
    right = torch.tensor([[1, 1, b], [4, b, b], [b, b, b], [5, 6, b], [5, 6, 7]])
    assert sequence_error(paths, right).item() == pytest.approx(0.2)  # the last string has one digit too many
    assert sequence_error(paths[:4], torch.cat([right[:4], torch.full((4, 4), b)], dim=1)) == 0  # L > T
    for row, place, wrong in ((0, 1, b), (1, 1, 4), (2, 0, 0), (3, 0, 6)):
        string = right[:4].clone()
        string[row, place] = wrong
        assert sequence_error(paths[:4], string).item() == pytest.approx(0.25)


def test_bad_requests() -> None:
    with pytest.raises(
        stn.InputError, match=r"integers \(N, L\) for logits \(N, T, C\); got torch.int64 \(3,\) for \(3, 4, 5\)"
    ):
        ctc_loss(torch.rand(3, 4, 5), torch.zeros(3, dtype=torch.int64))
    with pytest.raises(stn.InputError, match=r"got torch.float32 \(3, 2\)"):
        sequence_error(torch.rand(3, 4, 5), torch.zeros(3, 2))
