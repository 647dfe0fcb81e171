"""Two runs, or two strategies of one run, side by side: what is comparable, what differs, and a gate for CI."""
