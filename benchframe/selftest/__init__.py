"""``benchframe selftest``: the tool measured by itself, on this host, with real processes."""
