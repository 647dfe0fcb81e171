"""Calls and states that a trace cannot hold: which of them change VMAs, and what each can explain.

A difference between replay and kernel is laid at the door of such a call only where the call could have made it:
benchframe.trace.verify compares place, time and sort.
"""

from benchframe.events import Attr
from benchframe.record.syscalls import NR
from benchframe.trace.meta import BORDERS, MAPPINGS, PAGE

READ_IMPLIES_EXEC = 0x0400000
MAP_HUGETLB = 0x40000
PR_SET_MM, PR_SET_MEMORY_MERGE, PR_SET_VMA = 35, 67, 0x53564D41
EVERYWHERE = (0, 0)

Effect = tuple[str, int, int, int]
"""Name, start and end of what it may have changed (0, 0: anything in the address space), and the sort: BORDERS or
MAPPINGS."""


def effect_of(number: int, args: tuple[int, ...], ret: int, area: tuple[int, int] | None) -> Effect | None:
    """What a call that succeeded may have changed beyond what the trace holds; None if nothing. ``area``: the VMA that
    the kernel reported in it, if it did."""
    start, size = args[0], args[1]
    ranged = (start & -PAGE, (start + size + PAGE - 1) & -PAGE)
    at = area or (ret & -PAGE, (ret & -PAGE) + PAGE)
    if number in (NR["mbind"], NR["set_mempolicy_home_node"]):
        return _effect(number, ranged, BORDERS)
    if number == NR["mlock2"]:
        return ("mlock2(MLOCK_ONFAULT)", *ranged, BORDERS) if args[2] else None
    if number == NR["pkey_mprotect"]:
        return ("pkey_mprotect with a key", *ranged, BORDERS) if 0 < args[3] < 1 << 31 else None
    if number == NR["mmap"]:
        return ("mmap(MAP_HUGETLB)", *at, MAPPINGS) if args[3] & MAP_HUGETLB else None
    if number == NR["remap_file_pages"]:
        return _effect(number, ranged, MAPPINGS)
    if number == NR["shmat"]:
        return _effect(number, at if area else EVERYWHERE, MAPPINGS)
    if number in (NR["io_setup"], NR["map_shadow_stack"]):
        return _effect(number, area or EVERYWHERE, MAPPINGS)
    if number in (NR["shmdt"], NR["io_destroy"]):
        return _effect(number, EVERYWHERE, MAPPINGS)
    if number in (NR["mlockall"], NR["munlockall"], NR["process_madvise"], NR["userfaultfd"], NR["io_uring_setup"]):
        return _effect(number, EVERYWHERE, BORDERS)
    return _by_argument(number, args)


def attribute_of(number: int, args: tuple[int, ...]) -> tuple[int, int, int, int] | None:
    """What a call makes of a range that merges compare, as an ATTR event holds it: start, length, which, value.

    What a policy's nodes are, and what a name says, lies in the program's memory and is not known: policies of one mode
    and names at one place pass for equal, which :func:`effect_of` goes on to tell of.
    """
    if number == NR["mseal"]:
        return args[0], args[1], Attr.SEAL, 1
    if number == NR["mbind"]:
        return args[0], args[1], Attr.POLICY, args[2] & 0x1F
    if number == NR["prctl"] and args[0] == PR_SET_VMA and args[1] == 0:
        return args[2], args[3], Attr.NAME, 1 + args[4] % 126 if args[4] else 0
    return None


def _effect(number: int, place: tuple[int, int], sort: int) -> Effect:
    return (next(name for name, nr in NR.items() if nr == number), *place, sort)


def _by_argument(number: int, args: tuple[int, ...]) -> Effect | None:
    """Calls of which most are harmless: the first argument says what is wanted."""
    what = args[0]
    if number == NR["prctl"] and what == PR_SET_VMA:
        return ("prctl(PR_SET_VMA)", args[2] & -PAGE, (args[2] + args[3] + PAGE - 1) & -PAGE, BORDERS)
    if number == NR["prctl"] and what == PR_SET_MM:
        return ("prctl(PR_SET_MM)", *EVERYWHERE, MAPPINGS)
    if number == NR["prctl"] and what == PR_SET_MEMORY_MERGE:
        return ("prctl(PR_SET_MEMORY_MERGE)", *EVERYWHERE, BORDERS)
    if number == NR["arch_prctl"] and (0x2001 <= what <= 0x2003 or what >= 0x5001):
        return (f"arch_prctl({what:#x})", *EVERYWHERE, MAPPINGS)
    return None


def decided_by_driver(name: str) -> bool:
    """Is this the name of a mapped object whose driver chooses the flags of its VMAs (VM_IO, VM_DONTCOPY...)?"""
    if name.startswith("anon_inode:"):
        return True
    return name.startswith("/dev/") and not name.startswith(("/dev/shm/", "/dev/zero", "/dev/hugepages/"))
