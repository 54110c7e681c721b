"""Tables to reproduce: their cells as data, the trainings, and the documents made from the rows."""

from stn.lab.tables.cells import TABLES, Cell, Table

__all__ = ["TABLES", "Cell", "Table"]
