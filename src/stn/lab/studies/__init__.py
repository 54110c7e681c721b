"""Studies: one question each, run as `python -m stn.lab.studies.NAME`. Their results lie in `benchmarks/results/`."""
