"""Pictures from tensors and rows, without training. Each module draws one kind of picture; these functions draw all
pictures of a run, of several runs, of a table, of its mistakes, and of the interpolation kernels."""

from stn.lab.figures.found import draw_found
from stn.lab.figures.kernels import draw_kernels
from stn.lab.figures.mistakes import draw_corrected
from stn.lab.figures.run import draw_model, draw_run, draw_runs
from stn.lab.figures.table import draw_table

__all__ = ["draw_corrected", "draw_found", "draw_kernels", "draw_model", "draw_run", "draw_runs", "draw_table"]
