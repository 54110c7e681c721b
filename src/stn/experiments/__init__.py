"""Experiments: runs as data, one training loop, rows as results."""

from stn.experiments.folder import RunFolder
from stn.experiments.runs import Run

__all__ = ["Run", "RunFolder"]
