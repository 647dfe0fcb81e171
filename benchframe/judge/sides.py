"""What is judged: makes a fresh address space that matches the judging process (files, break, limits)."""

import resource
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchframe.judge.child import BRK_BASE
from benchframe.judge.ops import Calls, Make, file_table
from benchframe.oracle import Limits, Oracle, Rules

Side = Callable[[Rules, Limits], Calls]
"""Makes a judged side for a kernel with these rules: files as in ``file_table()``, break at ``BRK_BASE``."""

_CAP_IPC_LOCK, _CAP_SYS_RAWIO = 14, 17


def oracle_side(rules: Rules, limits: Limits) -> Oracle:
    """The naive oracle as judged side."""
    side = Oracle(rules, limits)
    side.start_brk = side.brk_now = BRK_BASE
    for number, size, readable, writable, inode in file_table():
        side.set_file(number, size, readable, writable, inode)
    return side


def _number(path: str, default: int) -> int:
    try:
        return int(Path(path).read_text())
    except (OSError, ValueError):
        return default


def host_limits() -> Limits:
    """The limits that a process on this machine lives under, from /proc and getrlimit."""
    known = Limits()
    caps = 0
    memory = 0
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            caps = int(line.split()[1], 16)
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith(("MemTotal:", "SwapTotal:")):
            memory += int(line.split()[1]) * 1024
    heuristic = _number("/proc/sys/vm/overcommit_memory", 0) == 0
    stack, _ = resource.getrlimit(resource.RLIMIT_STACK)
    memlock, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    unlimited = memlock == resource.RLIM_INFINITY or caps >> _CAP_IPC_LOCK & 1
    return Limits(
        mmap_min_addr=_number("/proc/sys/vm/mmap_min_addr", known.mmap_min_addr),
        may_map_low=bool(caps >> _CAP_SYS_RAWIO & 1),
        max_map_count=_number("/proc/sys/vm/max_map_count", known.max_map_count),
        rlimit_stack=known.task_size if stack == resource.RLIM_INFINITY else stack,
        rlimit_memlock=known.rlimit_memlock if unlimited else memlock,
        overcommit_max=memory if heuristic else known.overcommit_max,
    )


def maker(side: Side, rules: Rules, limits: Limits) -> Make:
    """A factory of fresh judged sides."""
    return partial(side, rules, limits)
