"""Where a worker's code, memory and stack lie: chosen by the layout seed, not by the kernel's dice.

Where things lie decides which branches share a slot of the predictor and which lines share a set of a cache: the same
lookup may cost 7.8 or 8.5 ns for it. Randomised addresses (ASLR) draw that anew for each process. Here
the draw is the layout seed's: workers start without randomisation (``ADDR_NO_RANDOMIZE``, linux
include/uapi/linux/personality.h) and move the top of their mappings, their stack and their hashes by amounts that the
seed gives. Rounds still differ from each other, so no single placement decides; strategies of a round, and rounds of
two runs with one seed, lie alike, so that the placement cancels in their ratio.

Where the kernel refuses (a container's filter), addresses stay random and the process says so.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

ADDR_NO_RANDOMIZE = 0x0040000
_QUERY = 0xFFFFFFFF
SEEDED, RANDOM = "seeded", "random"
"""What a process says of its addresses."""
PAD = "BENCHFRAME_PAD"
"""The environment variable that moves the stack."""
_HEAP = "33554432"
"""Up to this size glibc's malloc keeps to its heap: mappings that come and go would leave room between the others."""
_moved = 0
"""Where this process's mappings were moved from, downwards; 0 if they were not."""
_MAX_PAGES = 1 << 18
"""Mappings move by at most so many pages (1 GiB), reserved and never touched."""
_STACK = 4096
_PROT_NONE, _MAP_PRIVATE_ANONYMOUS_NORESERVE, _MAP_FIXED_NOREPLACE = 0, 0x2 | 0x20 | 0x4000, 0x100000


def usable() -> int:
    """The CPUs that this process may be scheduled on; where the system does not tell, those there are. At least 1."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def fixed_addresses() -> Iterator[None]:
    """What is executed from this thread inside the block starts without randomised addresses, if the kernel lets it."""
    before = _personality(_QUERY)
    changed = before >= 0 and _personality(before | ADDR_NO_RANDOMIZE) >= 0
    try:
        yield
    finally:
        if changed:
            _personality(before)


def environment(base: Mapping[str, str], arguments: Sequence[str], seed: int) -> dict[str, str]:
    """``base`` with what makes a worker's stack and hashes a matter of ``seed`` alone.

    The kernel puts arguments and environment above the stack, so their length moves it: PAD fills them up to a length
    modulo 4096 that the seed gives, whatever the paths among them are called.
    """
    found = {**base, "PYTHONHASHSEED": str(seed % (1 << 32)), "MALLOC_MMAP_THRESHOLD_": _HEAP, PAD: ""}
    length = sum(len(text.encode()) + 1 for text in arguments)
    length += sum(len(f"{name}={value}".encode()) + 1 for name, value in found.items())
    wanted = random.Random(f"benchframe stack {seed}").randrange(_STACK)
    found[PAD] = "x" * ((wanted - length) % _STACK)
    return found


def scatter(seed: int) -> str:
    """In a worker, before it maps what is measured: move all later mappings by as many pages as ``seed`` gives, also
    those that would fit between the libraries.

    Gives SEEDED, or RANDOM if this process was started with randomised addresses.
    """
    now = _personality(_QUERY)
    if now < 0 or not now & ADDR_NO_RANDOMIZE:
        return RANDOM
    pages = 1 + random.Random(f"benchframe mappings {seed}").randrange(_MAX_PAGES)
    at = _reserve(0, 4096 * pages)
    if at < 0:
        return RANDOM
    global _moved
    _moved = at
    close_gaps()
    return SEEDED


def close_gaps() -> None:
    """After :func:`scatter`, once more: what was freed since, as imports do, is no room for what is measured."""
    if _moved:
        for low, high in _gaps(_moved):
            _reserve(low, high - low)


def _gaps(bottom: int) -> list[tuple[int, int]]:
    """What is free between the mappings above ``bottom``, where the kernel would put small ones. The room below the
    stack stays: it grows."""
    found, before = [], 0
    with Path("/proc/self/maps").open(encoding="ascii", errors="replace") as maps:
        for line in maps:
            low, _, high = line.split(maxsplit=1)[0].partition("-")
            start, end = int(low, 16), int(high, 16)
            if line.rstrip().endswith("[stack]"):
                break
            if bottom < before < start:
                found.append((before, start))
            before = end
    return found


def _reserve(at: int, length: int) -> int:
    """Map ``length`` bytes that cannot be touched, at ``at`` (0: anywhere); the address, -1 if there is no room."""
    mmap = ctypes.CDLL(None, use_errno=True).mmap
    mmap.restype = ctypes.c_void_p
    mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
    flags = _MAP_PRIVATE_ANONYMOUS_NORESERVE | (_MAP_FIXED_NOREPLACE if at else 0)
    found = mmap(at or None, length, _PROT_NONE, flags, -1, 0)
    return -1 if found in (None, ctypes.c_void_p(-1).value) else int(found)


def _personality(value: int) -> int:
    """personality(2): the value before, -1 where there is no such call or it is refused."""
    try:
        call = ctypes.CDLL(None, use_errno=True).personality
    except (OSError, AttributeError):
        return -1
    call.argtypes, call.restype = (ctypes.c_ulong,), ctypes.c_int
    return int(call(value))
