"""Studies: one question each, run as `python -m stn.lab.studies.NAME`. Their results are in `benchmarks/results/`."""
