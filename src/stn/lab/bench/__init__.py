"""How fast the operators are, beside everyone else's. `benchmarks/README.md` is the contract."""
