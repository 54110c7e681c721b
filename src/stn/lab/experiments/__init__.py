"""Experiments: runs as data, one training loop, rows as results."""

from stn.lab.experiments.folder import RunFolder
from stn.lab.experiments.runs import Run

__all__ = ["Run", "RunFolder"]
