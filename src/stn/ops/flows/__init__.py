"""Flows: velocities that points follow for one unit of time. A new flow is a file here and an entry of FLOWS."""

from stn.ops.flows.base import Flow
from stn.ops.flows.simplices import Simplices
from stn.ops.flows.splines import Splines

FLOWS: tuple[type[Flow], ...] = (Simplices, Splines)

__all__ = ["FLOWS", "Flow", "Simplices", "Splines"]
