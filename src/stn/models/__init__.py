"""Complete networks: a text rectifier, and one with published weights."""

from stn.models.checkpoints import BenchmarkRectifier, load_benchmark_rectifier
from stn.models.text import text_rectifier

__all__ = ["BenchmarkRectifier", "load_benchmark_rectifier", "text_rectifier"]
