"""Training on lines of text: CTC, and the error of whole strings. `stn.models.lines` has the networks.

Strings are (N, L) class indices. The last class stands for no character: strings end in it, and it is the blank of CTC.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from stn import _check
from stn.models.lines import greedy_decode


def ctc_loss(logits: Tensor, strings: Tensor) -> Tensor:  # (N, T, C), (N, L) -> ()
    """Return the CTC loss: minus the log probability of the strings under any alignment, per character, as a mean.

    A string that does not fit into T, with a blank between equal neighbors, has no influence.
    Source: Graves et al. 2006 (connectionist temporal classification).
    """
    _check_strings(strings, logits)
    n, steps, classes = logits.shape
    likelihood = logits.float().log_softmax(dim=-1).transpose(0, 1)
    lengths = (strings != classes - 1).sum(dim=1)
    return F.ctc_loss(likelihood, strings, torch.full_like(lengths, steps), lengths, blank=classes - 1, zero_infinity=True)


def sequence_error(logits: Tensor, strings: Tensor) -> Tensor:  # (N, T, C), (N, L) -> ()
    """Return the share of strings with at least one wrong character."""
    _check_strings(strings, logits)
    read, blank = greedy_decode(logits), logits.shape[-1] - 1
    longest = max(read.shape[1], strings.shape[1])
    read, wanted = (F.pad(s, (0, longest - s.shape[1]), value=blank) for s in (read, strings))
    return (read != wanted).any(dim=1).float().mean()


def _check_strings(strings: Tensor, logits: Tensor) -> None:
    if strings.is_floating_point() or strings.ndim != 2 or logits.ndim != 3 or len(strings) != len(logits):
        _check.fail(
            "strings must be integers (N, L) for logits (N, T, C); "
            f"got {strings.dtype} {tuple(strings.shape)} for {tuple(logits.shape)}"
        )
