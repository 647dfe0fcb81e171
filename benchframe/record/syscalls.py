"""The system calls that change an address space, by number (x86-64: arch/x86/entry/syscalls/syscall_64.tbl)."""

NR = {
    "mmap": 9, "mprotect": 10, "munmap": 11, "brk": 12, "mremap": 25, "madvise": 28, "shmat": 30, "clone": 56,
    "fork": 57, "vfork": 58, "execve": 59, "exit": 60, "shmdt": 67, "mlock": 149, "munlock": 150, "mlockall": 151,
    "munlockall": 152, "remap_file_pages": 216, "exit_group": 231, "mbind": 237, "set_mempolicy": 238,
    "execveat": 322, "mlock2": 325, "pkey_mprotect": 329, "clone3": 435, "process_madvise": 440,
}  # fmt: skip
NAMES = {number: name for name, number in NR.items()}

EXECS = frozenset(NR[name] for name in ("execve", "execveat"))
CLONES = frozenset(NR[name] for name in ("clone", "fork", "vfork", "clone3"))
ENDS = frozenset(NR[name] for name in ("exit", "exit_group"))
REPLAYED = frozenset(
    NR[name]
    for name in "mmap mprotect munmap brk mremap madvise mlock munlock mlock2 pkey_mprotect".split()  # noqa: SIM905
)
UNREPLAYED = frozenset(
    NR[name]
    for name in "shmat shmdt mlockall munlockall remap_file_pages mbind set_mempolicy process_madvise".split()  # noqa: SIM905
)
"""Calls that may change VMAs in ways the trace format has no event for: counted, and said in the trace's notes."""
MM_CALLS = REPLAYED | UNREPLAYED
ALL = MM_CALLS | CLONES | EXECS | ENDS

I386 = {
    "fork": 2, "execve": 11, "brk": 45, "old_mmap": 90, "munmap": 91, "clone": 120, "mprotect": 125, "mlock": 150,
    "munlock": 151, "mlockall": 152, "munlockall": 153, "mremap": 163, "vfork": 190, "mmap2": 192, "madvise": 219,
    "remap_file_pages": 257, "mbind": 274, "set_mempolicy": 276, "execveat": 358, "mlock2": 376, "pkey_mprotect": 380,
    "shmat": 397, "shmdt": 398, "clone3": 435, "process_madvise": 440,
}  # fmt: skip
"""Numbers of a 32-bit program (arch/x86/entry/syscalls/syscall_32.tbl); ``mmap2`` counts its offset in pages."""
_OF_I386 = {number: NR[{"mmap2": "mmap", "old_mmap": "mmap"}.get(name, name)] for name, number in I386.items()}
ARCH_X86_64, ARCH_I386 = 0xC000003E, 0x40000003
"""AUDIT_ARCH_* (include/uapi/linux/audit.h)."""
CLONE_VM, CLONE_THREAD = 0x100, 0x10000


def from_i386(number: int, args: tuple[int, ...]) -> tuple[int, tuple[int, ...]]:
    """A call of a 32-bit program as the x86-64 one that does the same; the number is -1 for those of no use here.

    ``old_mmap`` takes its arguments in memory: who can read them passes them here.
    """
    if number == I386["mmap2"]:
        args = (*args[:5], args[5] << 12)
    return _OF_I386.get(number, -1), args


def tracepoint_filter() -> str:
    """The filter text for raw_syscalls: these calls only, by the numbers of x86-64 and i386.

    i386's fork (2 is open on x86-64) stays out: C libraries use clone.
    """
    return "||".join(f"id=={number}" for number in sorted(ALL | set(I386.values()) - {I386["fork"]}))
