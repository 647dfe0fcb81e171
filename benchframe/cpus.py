"""How many CPUs this process may use."""

import os


def usable() -> int:
    """The CPUs that it may be scheduled on; where the system does not tell, those that there are. At least 1."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
