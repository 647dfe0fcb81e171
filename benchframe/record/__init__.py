"""Recording real programs: perf rings, ptrace stops, and importers that make traces of them."""
