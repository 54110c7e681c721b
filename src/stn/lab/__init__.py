"""Experiments, measurements and figures made with the library, which does not import this package."""
