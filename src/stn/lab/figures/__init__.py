"""Pictures of what the layer does, from tensors and rows. Nothing here trains. One kind of picture a module; these draw
all that there is to be seen of a run, of several, of a table, and of the sampling kernels."""

from stn.lab.figures.found import draw_found
from stn.lab.figures.kernels import draw_kernels
from stn.lab.figures.run import draw_run, draw_runs
from stn.lab.figures.table import draw_table

__all__ = ["draw_found", "draw_kernels", "draw_run", "draw_runs", "draw_table"]
