"""Tables to reproduce: their cells as data, the trainings that fill them, and the documents made of the rows."""

from stn.lab.tables.cells import TABLES, Cell, Table

__all__ = ["TABLES", "Cell", "Table"]
