"""One page about one or several runs: a single HTML file that loads nothing from the network."""

from stn.lab.page.page import write_report

__all__ = ["write_report"]
