"""One page about one run or several side by side: a single HTML file that needs nothing else, not even a network."""

from stn.lab.page.page import write_report

__all__ = ["write_report"]
