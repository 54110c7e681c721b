"""Networks that align in steps: the same weights, whatever the number of steps."""

import pytest
import torch
from torch import nn

import stn
from stn.models import ALIGNMENT_MODELS, build_alignment, num_parameters
from tests.helpers import seeded

X = torch.rand(4, 1, 28, 28, generator=seeded())


def test_steps_add_no_weights() -> None:
    one, two, four = (build_alignment(model) for model in ALIGNMENT_MODELS[1:])
    assert num_parameters(one) == num_parameters(two) == num_parameters(four)
    four.load_state_dict(one.state_dict())
    nn.init.normal_(one.get_parameter("transformer.regression.weight"), std=0.05)
    two.load_state_dict(one.state_dict())
    assert not torch.allclose(one.eval()(X), two.eval()(X), atol=1e-3)


@pytest.mark.parametrize("transform", ("affine", "projective", "tps"))
@pytest.mark.parametrize("model", ALIGNMENT_MODELS[1:])
def test_they_start_as_the_classifier_alone(model: str, transform: str) -> None:
    network = build_alignment(model, transform).eval()
    torch.testing.assert_close(network(X), network.get_submodule("classifier")(X), atol=1e-5, rtol=0)


def test_bad_requests() -> None:
    with pytest.raises(stn.InputError, match="model must be one of cnn, ic-stn-2, ic-stn-4, st-cnn; got 'stn'"):
        build_alignment("stn")
