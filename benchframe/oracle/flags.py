"""The numbers that programs and the kernel exchange: PROT_*, MAP_*, MREMAP_*, MADV_*, VM_* and errno.

The oracle keeps its own copy, so that a slip in the model's constants cannot hide in both sides. Values are those
of x86-64 (include/uapi/asm-generic/mman-common.h, include/linux/mm.h, Linux 6.18). VM_* bits are internal to the
oracle: only those above the access bits that VmFlags in /proc/PID/smaps shows, or that rules look at, exist here.
"""

from enum import IntEnum

PAGE = 4096
PAGE_SHIFT = 12
PMD = 1 << 21
"""What one page of page-table entries spans: 2 MiB."""

PROT_READ, PROT_WRITE, PROT_EXEC, PROT_SEM = 1, 2, 4, 8
PROT_GROWSDOWN, PROT_GROWSUP = 0x01000000, 0x02000000

MAP_SHARED, MAP_PRIVATE, MAP_SHARED_VALIDATE, MAP_DROPPABLE = 1, 2, 3, 8
MAP_TYPE = 0x0F
MAP_FIXED, MAP_ANONYMOUS, MAP_32BIT = 0x10, 0x20, 0x40
MAP_GROWSDOWN, MAP_LOCKED, MAP_NORESERVE = 0x0100, 0x2000, 0x4000
MAP_POPULATE, MAP_NONBLOCK, MAP_STACK = 0x8000, 0x10000, 0x20000
MAP_SYNC, MAP_FIXED_NOREPLACE = 0x80000, 0x100000
MAP_VALIDATE_KNOWN = 0x21FF | 0x4000 | 0x8000 | 0x10000 | 0x20000 | 0x40000
"""The flags that MAP_SHARED_VALIDATE accepts: the kernel's LEGACY_MAP_MASK."""

MREMAP_MAYMOVE, MREMAP_FIXED, MREMAP_DONTUNMAP = 1, 2, 4

VM_READ, VM_WRITE, VM_EXEC, VM_SHARED = 0x1, 0x2, 0x4, 0x8
VM_MAYREAD, VM_MAYWRITE, VM_MAYEXEC, VM_MAYSHARE = 0x10, 0x20, 0x40, 0x80
VM_GROWSDOWN, VM_MAYBE_GUARD = 0x100, 0x800
VM_LOCKED, VM_IO, VM_SEQ_READ, VM_RAND_READ = 0x2000, 0x4000, 0x8000, 0x10000
VM_DONTCOPY, VM_DONTEXPAND, VM_ACCOUNT, VM_NORESERVE = 0x20000, 0x40000, 0x100000, 0x200000
VM_WIPEONFORK, VM_DONTDUMP = 0x2000000, 0x4000000
VM_HUGEPAGE, VM_NOHUGEPAGE, VM_MERGEABLE = 0x20000000, 0x40000000, 0x80000000
VM_DROPPABLE = 1 << 40

VM_ACCESS = VM_READ | VM_WRITE | VM_EXEC
VM_SPECIAL = VM_IO | VM_DONTEXPAND

SMAPS = {
    VM_READ: "rd",
    VM_WRITE: "wr",
    VM_EXEC: "ex",
    VM_SHARED: "sh",
    VM_MAYREAD: "mr",
    VM_MAYWRITE: "mw",
    VM_MAYEXEC: "me",
    VM_MAYSHARE: "ms",
    VM_GROWSDOWN: "gd",
    VM_MAYBE_GUARD: "gu",
    VM_LOCKED: "lo",
    VM_IO: "io",
    VM_SEQ_READ: "sr",
    VM_RAND_READ: "rr",
    VM_DONTCOPY: "dc",
    VM_DONTEXPAND: "de",
    VM_ACCOUNT: "ac",
    VM_NORESERVE: "nr",
    VM_WIPEONFORK: "wf",
    VM_DONTDUMP: "dd",
    VM_HUGEPAGE: "hg",
    VM_NOHUGEPAGE: "nh",
    VM_MERGEABLE: "mg",
    VM_DROPPABLE: "dp",
}
"""The two letters that /proc/PID/smaps prints for each flag (fs/proc/task_mmu.c, show_smap_vma_flags)."""

EPERM, EIO, EBADF, EAGAIN, ENOMEM, EACCES, EFAULT, EEXIST = 1, 5, 9, 11, 12, 13, 14, 17
EINVAL, EOVERFLOW, EOPNOTSUPP = 22, 75, 95


class Advice(IntEnum):
    """madvise(2) advice values."""

    NORMAL = 0
    RANDOM = 1
    SEQUENTIAL = 2
    WILLNEED = 3
    DONTNEED = 4
    FREE = 8
    REMOVE = 9
    DONTFORK = 10
    DOFORK = 11
    MERGEABLE = 12
    UNMERGEABLE = 13
    HUGEPAGE = 14
    NOHUGEPAGE = 15
    DONTDUMP = 16
    DODUMP = 17
    WIPEONFORK = 18
    KEEPONFORK = 19
    COLD = 20
    PAGEOUT = 21
    POPULATE_READ = 22
    POPULATE_WRITE = 23
    DONTNEED_LOCKED = 24
    COLLAPSE = 25
    GUARD_INSTALL = 102
    GUARD_REMOVE = 103


class FaultError(IntEnum):
    """Why a fault failed; :meth:`Oracle.fault` returns the negative of one of these."""

    MAPERR = 1  # no mapping there (SIGSEGV, SEGV_MAPERR), or a guard region
    ACCERR = 2  # the mapping does not allow the access (SIGSEGV, SEGV_ACCERR)
    BUS = 3  # past the end of the object behind the mapping (SIGBUS)


def page_align(length: int) -> int:
    """``length`` rounded up to whole pages, wrapping at 2**64 as the kernel's PAGE_ALIGN does."""
    return (length + PAGE - 1) & ~(PAGE - 1) & ((1 << 64) - 1)


def smaps_flags(vm_flags: int) -> str:
    """``vm_flags`` as the sorted two-letter words of smaps, joined by spaces.

    >>> smaps_flags(VM_READ | VM_MAYREAD | VM_ACCOUNT)
    'ac mr rd'
    """
    return " ".join(sorted(word for bit, word in SMAPS.items() if vm_flags & bit))
