"""A run as one file that somebody else can check: raw values, schedule, environment, events, digests."""
