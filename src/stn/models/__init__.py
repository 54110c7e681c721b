"""Complete networks: a text rectifier, one with published weights, and trained networks for digits and lines of digits."""

from stn.models.checkpoints import BenchmarkRectifier, load_benchmark_rectifier
from stn.models.reading import read_digit, read_line
from stn.models.text import text_rectifier
from stn.models.trained import Card, cards, load

__all__ = [
    "BenchmarkRectifier",
    "Card",
    "cards",
    "load",
    "load_benchmark_rectifier",
    "read_digit",
    "read_line",
    "text_rectifier",
]
