"""The bundled data: 1797 handwritten digits of scikit-learn (UCI, 8x8 pixels, 16 gray levels)."""

from __future__ import annotations

import numpy as np
import torch

from stn import _check
from stn.lab.data.splits import Labeled, Splits
from stn.ops import affine_sample

TRAIN, VALID = 1400, 140  # 1400 are for training, 140 of them held out; the other 397 are the test set
MARGIN = 28 / 20  # as in MNIST, the digit's box of 20x20 pixels lies in the middle of 28x28


def load_digits() -> Splits:
    """The digits in MNIST's format, 28x28 bytes, up-sampled by bicubic interpolation, with a fixed random split.

    Raises: InputError if scikit-learn is not installed.
    """
    _check.installed("sklearn", "train")
    from sklearn.datasets import load_digits as bundled

    pixels, classes = bundled(return_X_y=True)
    images = torch.from_numpy(pixels).float().view(-1, 1, 8, 8) / 16
    theta = MARGIN * torch.eye(2, 3)
    enlarged = affine_sample(images, theta, (28, 28), mode="bicubic").clamp(0, 1)
    # The file is ordered by writer. The stream of RandomState is frozen, so the split is the same everywhere.
    order = torch.from_numpy(np.random.RandomState(0).permutation(len(images)))
    data = Labeled((255 * enlarged).round().byte()[order], torch.from_numpy(classes).long()[order])
    return Splits(data[: TRAIN - VALID], data[TRAIN - VALID : TRAIN], data[TRAIN:])
