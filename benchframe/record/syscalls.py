"""The system calls that change an address space, by number; and which calls and states a trace cannot hold.

Of calls and states that a trace cannot hold it is said which change VMAs, and what each can explain. A difference
between replay and kernel is laid at the door of such a call only where the call could have made it:
benchframe.trace.verify compares place, time and sort.
"""

from benchframe.events import Attr
from benchframe.trace.meta import BORDERS, MAPPINGS, PAGE

NR = {
    "mmap": 9, "mprotect": 10, "munmap": 11, "brk": 12, "mremap": 25, "madvise": 28, "shmat": 30, "clone": 56,
    "fork": 57, "vfork": 58, "execve": 59, "exit": 60, "shmdt": 67, "personality": 135, "mlock": 149, "munlock": 150,
    "mlockall": 151, "munlockall": 152, "prctl": 157, "arch_prctl": 158, "setrlimit": 160, "io_setup": 206,
    "io_destroy": 207, "remap_file_pages": 216, "exit_group": 231, "mbind": 237, "prlimit64": 302, "execveat": 322,
    "userfaultfd": 323, "mlock2": 325, "pkey_mprotect": 329, "io_uring_setup": 425, "clone3": 435,
    "process_madvise": 440, "set_mempolicy_home_node": 450, "map_shadow_stack": 453, "mseal": 462,
}  # fmt: skip
NAMES = {number: name for name, number in NR.items()}

EXECS = frozenset(NR[name] for name in ("execve", "execveat"))
CLONES = frozenset(NR[name] for name in ("clone", "fork", "vfork", "clone3"))
ENDS = frozenset(NR[name] for name in ("exit", "exit_group"))
REPLAYED = frozenset(
    NR[name]
    for name in "mmap mprotect munmap brk mremap madvise mlock munlock mlock2 pkey_mprotect".split()  # noqa: SIM905
)
LIMITS = frozenset(NR[name] for name in ("setrlimit", "prlimit64"))
"""Calls that change how far a stack may grow."""
WATCHED = frozenset(NR.values()) - EXECS - CLONES - ENDS - REPLAYED - LIMITS
"""Calls that may change VMAs in ways for which the trace format has no event: benchframe.record.syscalls says which
do."""
MM_CALLS = REPLAYED | WATCHED | LIMITS
ALL = MM_CALLS | CLONES | EXECS | ENDS

I386 = {
    "fork": 2, "execve": 11, "brk": 45, "old_mmap": 90, "munmap": 91, "clone": 120, "mprotect": 125, "mlock": 150,
    "munlock": 151, "mlockall": 152, "munlockall": 153, "mremap": 163, "vfork": 190, "mmap2": 192, "madvise": 219,
    "remap_file_pages": 257, "mbind": 274, "execveat": 358, "mlock2": 376, "pkey_mprotect": 380,
    "shmat": 397, "shmdt": 398, "clone3": 435, "process_madvise": 440, "setrlimit": 75, "ipc": 117, "personality": 136,
    "prctl": 172, "io_setup": 245, "io_destroy": 246, "prlimit64": 340, "userfaultfd": 374, "arch_prctl": 384,
    "io_uring_setup": 425, "set_mempolicy_home_node": 450, "map_shadow_stack": 453, "mseal": 462,
}  # fmt: skip
"""Numbers of a 32-bit program (arch/x86/entry/syscalls/syscall_32.tbl); ``mmap2`` counts its offset in pages."""
_OF_I386 = {
    number: NR[{"mmap2": "mmap", "old_mmap": "mmap"}.get(name, name)] for name, number in I386.items() if name != "ipc"
}
IPC_SHMAT, IPC_SHMDT = 21, 22
"""Operations of i386's ipc(2) (include/uapi/linux/ipc.h); C libraries attach System V memory with it."""
ARCH_X86_64, ARCH_I386 = 0xC000003E, 0x40000003
"""AUDIT_ARCH_* (include/uapi/linux/audit.h)."""
CLONE_VM, CLONE_THREAD = 0x100, 0x10000


def from_i386(number: int, args: tuple[int, ...]) -> tuple[int, tuple[int, ...]]:
    """A call of a 32-bit program as the equivalent x86-64 call; the number is -1 for calls that are not needed.

    ``old_mmap`` takes its arguments in memory: a caller that can read them passes them here.
    """
    if number == I386["mmap2"]:
        args = (*args[:5], args[5] << 12)
    if number == I386["ipc"]:
        if args[0] & 0xFFFF == IPC_SHMAT:
            return NR["shmat"], (args[1], args[4], args[2], 0, 0, 0)
        return (NR["shmdt"] if args[0] & 0xFFFF == IPC_SHMDT else -1), (args[4], 0, 0, 0, 0, 0)
    return _OF_I386.get(number, -1), args


def tracepoint_filter() -> str:
    """The filter text for raw_syscalls: these calls only, by the numbers of x86-64 and i386.

    i386's fork (2 is open on x86-64) is left out: C libraries use clone.
    """
    return "||".join(f"id=={number}" for number in sorted(ALL | set(I386.values()) - {I386["fork"]}))


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
