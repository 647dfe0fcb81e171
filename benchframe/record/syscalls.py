"""The system calls that change an address space, by number (x86-64: arch/x86/entry/syscalls/syscall_64.tbl)."""

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
"""Calls that may change VMAs in ways the trace format has no event for: benchframe.record.unplayed says which do."""
MM_CALLS = REPLAYED | WATCHED | LIMITS
ALL = MM_CALLS | CLONES | EXECS | ENDS

CLONE_VM, CLONE_THREAD = 0x100, 0x10000


def tracepoint_filter() -> str:
    """The filter text for raw_syscalls: these calls only."""
    return "||".join(f"id=={number}" for number in sorted(ALL))
