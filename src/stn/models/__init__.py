"""Networks to use: the rectifier of text, and one with weights that others have trained."""

from stn.models.checkpoints import BenchmarkRectifier, load_benchmark_rectifier
from stn.models.text import text_rectifier

__all__ = ["BenchmarkRectifier", "load_benchmark_rectifier", "text_rectifier"]
