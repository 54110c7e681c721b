"""Networks that align in steps have the same weights for any number of steps."""

import pytest
import torch
from torch import nn

import stn
from stn.lab.networks import ALIGNMENT_MODELS, build_alignment, num_parameters
from stn.lab.networks.alignment import IN_STEPS
from tests.helpers import seeded

X = torch.rand(4, 1, 28, 28, generator=seeded())


def test_steps_add_no_weights() -> None:
    one, two, four = (build_alignment(model) for model in IN_STEPS)
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


@pytest.mark.parametrize("model", IN_STEPS)
def test_a_larger_image_starts_as_its_middle(model: str) -> None:
    large = torch.rand(4, 1, 56, 56, generator=seeded())
    whole, part = build_alignment(model, side=56).eval(), build_alignment(model).eval()
    # Without the extra state, which says that one of them starts in the middle.
    part.load_state_dict({key: value for key, value in whole.state_dict().items() if "_extra_state" not in key})
    torch.testing.assert_close(whole(large), part(large[..., 14:42, 14:42]), atol=1e-5, rtol=0)


def test_steps_reach_beyond_the_middle() -> None:
    """With a bias that shifts the look by half its side, the crop contains pixels outside the central crop."""
    image = torch.rand(2, 1, 56, 56, generator=seeded())
    network = build_alignment("ic-stn-1", side=56)
    network.get_parameter("transformer.regression.bias").data[2] += 1.0  # half the side of the look: 14 pixels
    look, warp = network.get_submodule("transformer")(image, return_warp=True)
    torch.testing.assert_close(look, image[..., 14:42, 28:56], atol=1e-5, rtol=0)
    torch.testing.assert_close(warp.points(torch.zeros(1, 2)), torch.tensor([[[0.5, 0.0]]] * 2))


def test_bad_requests() -> None:
    with pytest.raises(stn.InputError, match="model must be one of cnn, ic-stn-1, ic-stn-2, ic-stn-4, st-cnn; got 'stn'"):
        build_alignment("stn")
    with pytest.raises(stn.InputError, match="model must be one of ic-stn-1, ic-stn-2, ic-stn-4; got 'st-cnn'"):
        build_alignment("st-cnn", side=56)
    with pytest.raises(stn.InputError, match="side must be an integer of at least 28; got 20"):
        build_alignment("ic-stn-2", side=20)
