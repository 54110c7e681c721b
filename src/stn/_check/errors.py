"""The errors that this library raises."""

from __future__ import annotations

from typing import NoReturn


class InputError(ValueError):
    """An argument, a file or a run folder that the caller gave is not as expected.

    The message states its name, the expected value and the given one.

    Example:
        >>> try:
        ...     stn.affine_sample(torch.rand(8, 3, 32, 32), torch.eye(2))
        ... except stn.InputError as error:
        ...     print(error)
        theta must be (2, 3), (N, 2, 3) or (N, K, 2, 3) with N = 8, the batch size of image, or N = 1; got (2, 2)
    """


def fail(sentence: str) -> NoReturn:
    raise InputError(sentence)
