"""The numeric values of Linux's flags, errors and calls (x86-64; include/uapi, include/linux/mm.h).

Plain ints, so that strategy code can use them as constants.
"""

PROT_READ, PROT_WRITE, PROT_EXEC = 1, 2, 4
PROT_GROWSDOWN, PROT_GROWSUP = 0x01000000, 0x02000000
PROT_KNOWN = 0xF | PROT_GROWSDOWN | PROT_GROWSUP
"""PROT_SEM (8) is accepted and has no effect."""

MAP_SHARED, MAP_PRIVATE, MAP_SHARED_VALIDATE, MAP_DROPPABLE, MAP_TYPE = 1, 2, 3, 8, 0xF
MAP_FIXED, MAP_ANONYMOUS, MAP_GROWSDOWN = 0x10, 0x20, 0x100
MAP_LOCKED, MAP_NORESERVE, MAP_POPULATE, MAP_NONBLOCK = 0x2000, 0x4000, 0x8000, 0x10000
MAP_STACK, MAP_HUGETLB, MAP_FIXED_NOREPLACE = 0x20000, 0x40000, 0x100000

MAP_VALIDATED = 0x21FF | 0x4000 | 0x8000 | 0x10000 | 0x20000 | 0x40000
"""The flags that MAP_SHARED_VALIDATE accepts: LEGACY_MAP_MASK (include/linux/mman.h)."""

MREMAP_MAYMOVE, MREMAP_FIXED, MREMAP_DONTUNMAP = 1, 2, 4

VM_READ, VM_WRITE, VM_EXEC, VM_SHARED = 0x1, 0x2, 0x4, 0x8
VM_MAYREAD, VM_MAYWRITE, VM_MAYEXEC, VM_MAYSHARE = 0x10, 0x20, 0x40, 0x80
VM_GROWSDOWN, VM_PFNMAP, VM_LOCKED, VM_IO = 0x100, 0x400, 0x2000, 0x4000
VM_SEQ_READ, VM_RAND_READ, VM_DONTCOPY, VM_DONTEXPAND = 0x8000, 0x10000, 0x20000, 0x40000
VM_LOCKONFAULT, VM_ACCOUNT, VM_NORESERVE, VM_HUGETLB = 0x80000, 0x100000, 0x200000, 0x400000
VM_WIPEONFORK, VM_DONTDUMP, VM_SOFTDIRTY, VM_MIXEDMAP = 0x2000000, 0x4000000, 0x8000000, 0x10000000
VM_HUGEPAGE, VM_NOHUGEPAGE, VM_MERGEABLE = 0x20000000, 0x40000000, 0x80000000
VM_DROPPABLE = 1 << 40
VM_GUARD = 1 << 43
"""VM_MAYBE_GUARD: the VMA may hold guard markers; sticky when VMAs merge."""
VM_SEALED, VM_USERFAULTFD, VM_POLICY, VM_NAME = 1 << 42, 0xF << 44, 0x3F << 48, 0x7F << 54
"""Model: a seal, and the numbers of a userfaultfd, a memory policy and a name (mm/mprotect.py)."""
VM_ACCESS = VM_READ | VM_WRITE | VM_EXEC
VM_SPECIAL = VM_IO | VM_DONTEXPAND | VM_PFNMAP | VM_MIXEDMAP
VM_IGNORE_MERGE = VM_SOFTDIRTY | VM_GUARD
"""Flags in which VMAs that merge may differ."""

MADV_NORMAL, MADV_RANDOM, MADV_SEQUENTIAL, MADV_WILLNEED, MADV_DONTNEED = 0, 1, 2, 3, 4
MADV_FREE, MADV_REMOVE, MADV_DONTFORK, MADV_DOFORK = 8, 9, 10, 11
MADV_MERGEABLE, MADV_UNMERGEABLE, MADV_HUGEPAGE, MADV_NOHUGEPAGE = 12, 13, 14, 15
MADV_DONTDUMP, MADV_DODUMP, MADV_WIPEONFORK, MADV_KEEPONFORK = 16, 17, 18, 19
MADV_COLD, MADV_PAGEOUT, MADV_POPULATE_READ, MADV_POPULATE_WRITE = 20, 21, 22, 23
MADV_DONTNEED_LOCKED, MADV_COLLAPSE, MADV_GUARD_INSTALL, MADV_GUARD_REMOVE = 24, 25, 102, 103
MADV_MODEL_NUMA = 1000
"""Model only: the effect of task_numa_work on a range (entries become PROT_NONE hints)."""

EPERM, ENOENT, EAGAIN, ENOMEM, EACCES, EFAULT, EEXIST = 1, 2, 11, 12, 13, 14, 17
EINVAL, EOVERFLOW, EOPNOTSUPP, EBADF = 22, 75, 95, 9

FAULT_MAPERR, FAULT_ACCERR, FAULT_SIGBUS, FAULT_RETRY = -1, -2, -3, -4
"""Results of a fault: no VMA (SEGV_MAPERR), access refused (SEGV_ACCERR), beyond the object, start over."""
FAULT_OOM = -5

# What a fault did: task.fault_kind (source: handle_pte_fault and the functions it calls, mm/memory.c).
DID_NONE, DID_ANON_READ, DID_ANON_WRITE, DID_FILE_READ, DID_FILE_COW = 0, 1, 2, 3, 4
DID_FILE_SHARED, DID_WP_REUSE, DID_WP_COPY, DID_WP_SHARED, DID_SWAP = 5, 6, 7, 8, 9
DID_NUMA, DID_SPURIOUS, DID_ACCESS, DID_HUGE = 10, 11, 12, 13
FAULT_KINDS = (
    "none",
    "anon read",
    "anon write",
    "file read",
    "file private write",
    "file shared write",
    "write-protect: reuse",
    "write-protect: copy",
    "write-protect: shared",
    "swap-in",
    "NUMA hint",
    "spurious",
    "access flag",
    "huge",
)
"""Names of the DID_* values, by number."""

# Bits of a page-table entry (arch/x86/include/asm/pgtable_types.h); the soft ones are the model's.
E_PRESENT, E_RW, E_USER, E_ACCESSED, E_DIRTY, E_PSE, E_PROTNONE = 1, 2, 4, 0x20, 0x40, 0x80, 0x100
E_FILE, E_SWAP, E_GUARD = 0x200, 0x400, 0x800
"""Soft bits: maps the page cache, not an anonymous frame; swapped out; a guard marker (not present)."""
E_BITS = 0xFFF

PG_RESERVED = 1
"""page.flags: not an ordinary page (the zero page)."""
PAGE_FREE, PAGE_TABLE, PAGE_ANON, PAGE_HUGE = 0, 1, 2, 3
"""page.mapping of the model."""

FILE_NOWRITE, FILE_SHMEM, FILE_CLOSES = 1, 2, 4
"""file.flags: not open for writing; an anonymous shared object (never grows, SIGBUS beyond its size); a System V
segment (shmat): its VMAs have vm_ops->close, and its file chooses addresses itself (get_unmapped_area)."""

RULE_ANON_VMA_616, RULE_MREMAP_617, RULE_GUARD_FLAG, RULE_DONTUNMAP_ACCOUNT = 1, 2, 4, 8
RULE_DROPPABLE, RULE_DONTNEED_TABLES, RULE_NOREPLACE_417 = 16, 32, 64
"""Bits of mm.rules: kernel versions differ (see benchframe.mm.machine.Rules)."""

ACCESS_READ, ACCESS_WRITE, ACCESS_EXEC = 1, 2, 4
