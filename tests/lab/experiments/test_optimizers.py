"""Muon: its orthogonal matrices, the weights that it updates, and agreement with torch's own Muon."""

import copy

import pytest
import torch
from torch import nn

from stn.lab.experiments.optimizers import ITERATIONS, MOMENTUM, QUINTIC, muon, orthogonal
from stn.lab.networks import build
from tests.helpers import seeded


@pytest.mark.parametrize("shape", ((20, 50), (50, 20), (32, 32), (1, 7)))
def test_singular_values_come_near_one(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=seeded())
    turned = orthogonal(matrix)
    values = torch.linalg.svdvals(turned)
    assert 0.6 < values.min() and values.max() < 1.25  # the range after five of Jordan's iterations
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    assert torch.nn.functional.cosine_similarity(turned.flatten(), (u @ v).flatten(), dim=0) > 0.97


def test_the_products_among_themselves_are_worth_iterations_of_the_matrix() -> None:
    """Iterating on x x^T agrees with iterating on x, also for singular values from 1 to 1e-6, whose squares round to 0."""
    u, _, v = torch.linalg.svd(torch.randn(40, 90, generator=seeded(), dtype=torch.float64), full_matrices=False)
    matrix = u * torch.logspace(0, -6, 40, dtype=torch.float64) @ v
    a, b, c = QUINTIC
    x = matrix / matrix.norm()
    for _ in range(ITERATIONS):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    torch.testing.assert_close(orthogonal(matrix), x, atol=1e-9, rtol=1e-9)
    assert (orthogonal(matrix.float()) - x).norm() < 1e-3 * x.norm()


def test_nothing_stays_nothing() -> None:
    assert not orthogonal(torch.zeros(3, 4)).any()


def test_hidden_layers_step_as_torch_has_it_and_the_rest_as_in_adamw() -> None:
    """The tolerance is wide because torch iterates in bfloat16."""
    torch.manual_seed(0)
    first = nn.Linear(40, 24)
    network = nn.Sequential(first, nn.Tanh(), nn.Linear(24, 5))
    theirs = copy.deepcopy(network)
    ours = muon(network, lr=3e-3, localization_lr=1.0, weight_decay=0.1)
    hidden = [theirs.get_parameter("0.weight")]
    head = [p for p in theirs.parameters() if p is not hidden[0]]
    others = (
        torch.optim.Muon(hidden, lr=3e-3, weight_decay=0.1, momentum=MOMENTUM, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(head, lr=3e-3, weight_decay=0.1),
    )
    start = first.weight.detach().clone()
    x, y = torch.randn(16, 40, generator=seeded()), torch.arange(16) % 5
    for _ in range(5):
        for model, optimizers in ((network, (ours,)), (theirs, others)):
            model.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            for optimizer in optimizers:
                optimizer.step()
    moved, expected = first.weight - start, hidden[0] - start
    assert (moved - expected).norm() < 0.1 * expected.norm()
    for (name, a), b in zip(network.named_parameters(), theirs.parameters(), strict=True):
        if name != "0.weight":
            torch.testing.assert_close(a, b, atol=1e-3, rtol=0)


def test_which_weights_are_hidden() -> None:
    network = build("st-cnn", 28)
    names = {id(p): name for name, p in network.named_parameters()}
    groups = muon(network, lr=1.0, localization_lr=0.5, weight_decay=0.1).param_groups
    assert sorted(names.values()) == sorted(names[id(p)] for group in groups for p in group["params"])
    hidden = {names[id(p)]: group["lr"] for group in groups if group["hidden"] for p in group["params"]}
    assert {name: lr for name, lr in hidden.items() if "transformer" in name} == {
        f"transformer.localization.{place}.weight": 0.5 for place in (1, 5, 10)
    }
    assert {name: lr for name, lr in hidden.items() if "classifier" in name} == {
        f"classifier.{place}.weight": 1.0 for place in ("0", "4.0", "7.0")
    }
    theta = next(group for group in groups if group["params"][0] is network.get_parameter("transformer.regression.weight"))
    assert not theta["hidden"] and theta["weight_decay"] == 0


def test_a_layer_without_a_gradient_stands_still() -> None:
    network = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    before = copy.deepcopy(network.state_dict())
    muon(network, lr=1.0, localization_lr=1.0, weight_decay=0.1).step()
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_a_step_that_fails_leaves_all_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    network = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    optimizer = muon(network, lr=0.1, localization_lr=1.0, weight_decay=0.1)
    groups = list(optimizer.param_groups)

    def step(self: torch.optim.AdamW) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(torch.optim.AdamW, "step", step)
        optimizer.step()
    assert optimizer.param_groups == groups and len(groups) == 2
    before = copy.deepcopy(network.state_dict())
    network(torch.rand(5, 4, generator=seeded())).square().sum().backward()
    optimizer.step()
    assert not any(torch.equal(before[name], value) for name, value in network.state_dict().items())
