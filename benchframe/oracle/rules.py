"""What depends on a kernel's version and configuration, and the flags of calls and VMAs."""

from dataclasses import dataclass, fields, replace
from enum import IntEnum

# ----------------------------------------------------------------------------------------------------------------------
# The numbers that programs and the kernel exchange: PROT_*, MAP_*, MREMAP_*, MADV_*, VM_* and errno.
#
# The oracle keeps its own copy, so that a slip in the model's constants cannot hide in both sides. Values are those
# of x86-64 (include/uapi/asm-generic/mman-common.h, include/linux/mm.h, Linux 6.18). VM_* bits are internal to the
# oracle: only those above the access bits that VmFlags in /proc/PID/smaps shows, or that rules look at, exist here.

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
VM_PKEY = 1 << 32
"""The key of execute-only memory; the kernel has four bits for any key (VM_PKEY_BIT0 to 3)."""

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


# ----------------------------------------------------------------------------------------------------------------------
# The oracle's parameters: the rules of one kernel, as named switches, and the limits of one process.
#
# A field of :class:`Rules` is either a rule that came or went with a kernel version (``benchframe oracle`` finds its
# value by probing the running kernel, never by its name), or a rule that every supported kernel has and that may be
# switched off to see that the comparison with the kernel notices ("ablation").


@dataclass(frozen=True)
class Rules:
    """Named rules; the defaults are those of Linux 6.18. Source files are below mm/ in the kernel tree."""

    merge_conditions: bool = True
    """Two areas merge only if flags, file, offset and anon_vma agree. Off: touching and equal protection are enough."""
    merge_flags: bool = True
    """Flags other than the access bits (NORESERVE, madvise's) must match to merge (vma.c, is_mergeable_vma)."""
    merge_pgoff: bool = True
    """Offsets must be contiguous to merge, for anonymous memory too (vma.c, can_vma_merge_before/after)."""
    merge_file: bool = True
    """The file is compared by open description, not by inode: two opens of one file do not merge (vma.c)."""
    merge_closing: bool = True
    """6.3 and later: an area with vm_ops->close (shmat) may grow in a merge, but a merge never frees one; before, it
    merges with none (vma.c, can_merge_remove_vma; before, mmap.c, is_mergeable_vma)."""
    merge_anon_vma: bool = True
    """Areas with different anon_vmas never merge; an inherited one never merges with none (vma.c)."""
    anon_vma_merge_both_ways: bool = True
    """6.16 and later: a faulted range also merges into an unfaulted neighbour, not only the other way round."""
    mmap_joins_both: bool = True
    """6.12 and later: a new mapping also joins an unfaulted area before it to a faulted one behind it; until then only
    the one behind grew (vma.c, vma_merge_new_range; before, mmap.c, mmap_region)."""
    anon_vma_copied_from: bool = True
    """6.19 and its stable backports: mremap checks that the area it copies was not inherited by fork, and passes its
    anon_vma on."""
    anon_vma_reuse: bool = True
    """A first write fault takes the anon_vma of a compatible neighbour, next before prev (vma.c)."""
    account_history: bool = True
    """VM_ACCOUNT stays when a private mapping loses write permission, unless anonymous and unfaulted (mprotect.c)."""
    account_unfaulted: bool = True
    """6.6 and later: an anonymous private area without anon_vma that loses write permission loses VM_ACCOUNT, too."""
    dontunmap_clears_account: bool = False
    """MREMAP_DONTUNMAP clears VM_ACCOUNT on what stays behind (mremap.c; not in every 6.18)."""
    dontunmap_merges_source: bool = True
    """The copy that MREMAP_DONTUNMAP makes may merge with its source area (vma.c, copy_vma; not in 6.12)."""
    dontunmap_merges_beside_source: bool = True
    """A copy that MREMAP_DONTUNMAP places beside its unfaulted source may merge with the area on its other side. Off,
    it merges with none (mmap.c, copy_vma of 6.1.192)."""
    dontunmap_splits_locked: bool = False
    """MREMAP_DONTUNMAP of a part of a locked area splits it, so that only this part loses VM_LOCKED (mremap.c,
    move_vma of 6.1.192 and 6.12.117)."""
    dontunmap_resets_pgoff: bool = False
    """An anonymous area that MREMAP_DONTUNMAP leaves without anon_vma takes the offset of its address, as new ones
    have (mremap.c, move_vma of 6.1.192 and 6.12.117)."""
    dontunmap_rounds_lengths: bool = True
    """MREMAP_DONTUNMAP compares lengths rounded up to pages; off, as they are given (mremap.c of 6.1.192 and
    6.12.117)."""
    mremap_resets_pgoff: bool = True
    """A moved anonymous area without anon_vma takes the offset of its new address (vma.c, copy_vma)."""
    mremap_many: bool = True
    """6.17 and later: MREMAP_FIXED with equal lengths moves several areas in one call (mremap.c, remap_move)."""
    mremap_checks_first: bool = True
    """6.17 and later: the source range is checked before MREMAP_FIXED unmaps the target (mremap.c, check_prep_vma)."""
    mremap_checks_length_first: bool = True
    """6.17 and later: lengths and addresses are checked before the area (mremap.c, check_mremap_params).

    A new length beyond TASK_SIZE is EINVAL whatever the flags, and EINVAL comes before the EFAULT of a hole.
    """
    mprotect_populates_locked: bool = True
    """mprotect(+W) of a locked private area writes to its pages, so it gets an anon_vma (mprotect.c)."""
    sigbus_past_end: bool = True
    """Access past the end of the object behind a mapping fails: files, and shared anonymous memory grown by mremap."""
    thp_read_prepares_anon_vma: bool = True
    """A read fault that may take a huge page prepares the anon_vma (huge_memory.c)."""
    thp_always: bool = False
    """Huge pages are used without madvise (transparent_hugepage/enabled is always)."""
    dontneed_frees_tables: bool = True
    """6.14 and later: MADV_DONTNEED of a whole 2 MiB range frees its page table (pt_reclaim.c)."""
    execute_only: bool = False
    """Memory protection keys: PROT_EXEC alone takes a key that forbids reads (arch/x86/mm/pkeys.c, execute_only_pkey).

    The key is a flag of the area, so neighbours with and without it share no anon_vma. Off, execution implies reading,
    as on x86 without keys. The processor decides, and the kernel's boot line (nopku).
    """
    thp: bool = True
    """The kernel has transparent huge pages: MADV_HUGEPAGE is known."""
    stack_nohuge: bool = True
    """6.7 and later: MAP_STACK gives VM_NOHUGEPAGE (include/linux/mman.h, calc_vm_flag_bits)."""
    ksm: bool = True
    """The kernel has KSM: MADV_MERGEABLE is known."""
    droppable: bool = True
    """6.11 and later: MAP_DROPPABLE (mmap.c)."""
    swap: bool = True
    """The kernel has swap: MADV_WILLNEED of anonymous memory is 0, else EBADF (madvise.c)."""
    populate_stops_at_hole: bool = True
    """6.2 and later: MADV_POPULATE ends at a hole; before, it continued and returned ENOMEM at the end (madvise.c)."""
    guard: bool = True
    """6.13 and later: MADV_GUARD_INSTALL and _REMOVE on anonymous memory (madvise.c)."""
    guard_file: bool = True
    """6.15 and later: guard regions in file mappings (madvise.c)."""
    guard_prepares_anon_vma: bool = True
    """Installing a guard region in anonymous memory prepares its anon_vma (madvise.c, up to 6.18)."""
    guard_flag: bool = True
    """A guard region leaves VM_MAYBE_GUARD on its area ("gu" in smaps): sticky on merge, ignored when comparing."""


@dataclass(frozen=True)
class Limits:
    """The limits of a process, in bytes unless stated."""

    task_size: int = (1 << 47) - 4096
    """First address that no mapping may reach: TASK_SIZE of x86-64, here with four page-table levels."""
    mmap_base: int = 0x7FFFF7FFF000
    """Where the top-down search for a hole begins."""
    mmap_min_addr: int = 65536
    """vm.mmap_min_addr: hints are rounded up to it, fixed mappings below it need a privilege."""
    may_map_low: bool = False
    """CAP_SYS_RAWIO: fixed mappings below ``mmap_min_addr`` are allowed."""
    max_map_count: int = 65530
    """vm.max_map_count: mmap and brk fail above it, splits at it."""
    stack_guard_gap: int = 256 * 4096
    """The space kept free below an area that grows down."""
    rlimit_stack: int = 8 << 20
    """RLIMIT_STACK: how far an area that grows down may grow."""
    rlimit_memlock: int = 1 << 62
    """RLIMIT_MEMLOCK, or a huge number if CAP_IPC_LOCK lifts it."""
    overcommit_max: int = 1 << 62
    """vm.overcommit_memory 0: one accounted request above this many bytes (all memory and swap) is ENOMEM."""
    map_window: int = (1 << 47) - 4096
    """Searches for a hole end there, and at ``task_size``, unless the hint is above it: DEFAULT_MAP_WINDOW."""

    @property
    def window(self) -> int:
        """The end of a search for a hole whose hint is not above the window."""
        return min(self.task_size, self.map_window)


RULE_NAMES = tuple(field.name for field in fields(Rules))
"""Every switch that :func:`flip` accepts."""


def flip(rules: Rules, name: str) -> Rules:
    """``rules`` with one switch negated.

    Raises:
        ValueError: no such rule; the message names those that exist.

    >>> flip(Rules(), "merge_pgoff").merge_pgoff
    False
    """
    if name not in RULE_NAMES:
        raise ValueError(f"no rule {name!r}: choose one of {', '.join(RULE_NAMES)}")
    return replace(rules, **{name: not getattr(rules, name)})
