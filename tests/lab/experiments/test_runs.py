"""Runs are data: they survive JSON, and unknown settings raise an error."""

import json
from pathlib import Path

import pytest

from stn import InputError
from stn.lab.experiments import Run


def test_json_and_back() -> None:
    run = Run(data="mnist", root=Path("/data"), lr=1e-4, seed=3)
    assert Run.from_json(json.loads(json.dumps(run.to_json()))) == run
    assert Run.from_json(Run().to_json()) == Run()


def test_names_tell_runs_apart() -> None:
    assert Run().name == "digits-rts-st-cnn-affine-seed0"
    assert Run(model="cnn", transform="tps").name == "digits-rts-cnn-seed0"
    assert Run(lr=1.0).differences(Run(seed=1)) == {"lr": (1.0, 3e-3), "seed": (0, 1)}


@pytest.mark.parametrize(
    "setting, sentence",
    [
        ({"data": "cifar"}, "data must be one of cub, digits, gtsrb, mnist, svhn; got 'cifar'"),
        ({"distortion": "x"}, "distortion must be one of addition, .*, rts, .*; got 'x'"),
        ({"model": "vit"}, "model must be one of cnn, fcn, st-cnn, st-fcn; got 'vit'"),
        ({"distortion": "pairs"}, "model must be one of 2xlook, look; got 'st-cnn'"),
        ({"distortion": "curved", "model": "crnn", "label_smoothing": 0.1}, "label_smoothing must be 0 for the loss"),
        ({"transform": "afine"}, "transform must be one of affine, .*; got 'afine'"),
        ({"epochs": 0}, "epochs must be an integer of at least 1; got 0"),
        ({"lr": 0.0}, "lr must be positive; got 0.0"),
        ({"weight_decay": -1.0}, "weight_decay must not be negative; got -1.0"),
        ({"clip_norm": -1.0}, "clip_norm must not be negative; got -1.0"),
        ({"identity_weight": -1.0}, "identity_weight must not be negative; got -1.0"),
        ({"averaging": 1.0}, "averaging must be at least 0 and less than 1; got 1.0"),
        ({"label_smoothing": -0.1}, "label_smoothing must be at least 0 and less than 1; got -0.1"),
        ({"devices": 3}, "batch_size must be a multiple of the 3 processes; got 128"),
        ({"precision": "8-bit"}, "precision must be one of .*; got '8-bit'"),
    ],
)
def test_bad_settings(setting: dict[str, object], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        Run(**setting)  # type: ignore[arg-type]  # on purpose
    with pytest.raises(InputError, match="settings of a run must be one of .*; got 'learning_rate'"):
        Run.from_json({"learning_rate": 1.0})
