"""madvise: advice that changes flags, and advice that acts on pages (mm/madvise.c)."""

from benchframe.dialect import NULL, native
from benchframe.mm.flags import (
    ACCESS_READ,
    ACCESS_WRITE,
    E_GUARD,
    E_PSE,
    EACCES,
    EAGAIN,
    EFAULT,
    EINVAL,
    ENOMEM,
    MADV_COLD,
    MADV_COLLAPSE,
    MADV_DODUMP,
    MADV_DOFORK,
    MADV_DONTDUMP,
    MADV_DONTFORK,
    MADV_DONTNEED,
    MADV_DONTNEED_LOCKED,
    MADV_FREE,
    MADV_GUARD_INSTALL,
    MADV_GUARD_REMOVE,
    MADV_HUGEPAGE,
    MADV_KEEPONFORK,
    MADV_MERGEABLE,
    MADV_MODEL_NUMA,
    MADV_NOHUGEPAGE,
    MADV_NORMAL,
    MADV_PAGEOUT,
    MADV_POPULATE_READ,
    MADV_POPULATE_WRITE,
    MADV_RANDOM,
    MADV_REMOVE,
    MADV_SEQUENTIAL,
    MADV_UNMERGEABLE,
    MADV_WILLNEED,
    MADV_WIPEONFORK,
    RULE_DONTNEED_TABLES,
    RULE_GUARD_FLAG,
    VM_DONTCOPY,
    VM_DONTDUMP,
    VM_DROPPABLE,
    VM_GUARD,
    VM_HUGEPAGE,
    VM_HUGETLB,
    VM_IO,
    VM_LOCKED,
    VM_MAYSHARE,
    VM_MAYWRITE,
    VM_MERGEABLE,
    VM_NOHUGEPAGE,
    VM_PFNMAP,
    VM_RAND_READ,
    VM_READ,
    VM_SEQ_READ,
    VM_SHARED,
    VM_SPECIAL,
    VM_WIPEONFORK,
    VM_WRITE,
)
from benchframe.mm.hooks import lookup, mmap_read_lock, mmap_read_unlock
from benchframe.mm.layout import PAGE_SHIFT, PAGE_SIZE, PMD_SIZE, PTE, PTRS_PER_TABLE, VMA
from benchframe.mm.memory import NUMA_HINT, PAGE_OUT, ZAP, change_range, populate_vma
from benchframe.mm.pagetable import pmd_alloc, pmd_slot, pte_alloc, table_free
from benchframe.mm.vma import anon_vma_prepare, page_align, vma_set_flags

NO_FLAGS = -1
"""``advice_flags``: this advice does not change flags."""


@native
def advice_flags(mm, vma, advice):
    """The flags that ``advice`` gives ``vma``; NO_FLAGS for advice that acts on pages; -EINVAL if the VMA does not
    allow it."""
    v = VMA(mm, vma)
    flags = v.vm_flags
    if advice == MADV_NORMAL:
        return flags & ~(VM_RAND_READ | VM_SEQ_READ)
    if advice == MADV_SEQUENTIAL:
        return (flags & ~VM_RAND_READ) | VM_SEQ_READ
    if advice == MADV_RANDOM:
        return (flags & ~VM_SEQ_READ) | VM_RAND_READ
    if advice == MADV_DONTFORK:
        return flags | VM_DONTCOPY
    if advice == MADV_DOFORK:
        if flags & VM_SPECIAL:
            return -EINVAL
        return flags & ~VM_DONTCOPY
    if advice == MADV_WIPEONFORK:
        if v.vm_file != 0 or flags & VM_SHARED:
            return -EINVAL
        return flags | VM_WIPEONFORK
    if advice == MADV_KEEPONFORK:
        if flags & VM_DROPPABLE:
            return -EINVAL
        return flags & ~VM_WIPEONFORK
    if advice == MADV_DONTDUMP:
        return flags | VM_DONTDUMP
    if advice == MADV_DODUMP:
        if flags & (VM_SPECIAL | VM_DROPPABLE):
            return -EINVAL
        return flags & ~VM_DONTDUMP
    if advice == MADV_HUGEPAGE:
        return (flags & ~VM_NOHUGEPAGE) | VM_HUGEPAGE
    if advice == MADV_NOHUGEPAGE:
        return (flags & ~VM_HUGEPAGE) | VM_NOHUGEPAGE
    if advice == MADV_MERGEABLE:
        if flags & (VM_SHARED | VM_MAYSHARE | VM_SPECIAL | VM_HUGETLB | VM_DROPPABLE):
            return flags
        return flags | VM_MERGEABLE
    if advice == MADV_UNMERGEABLE:
        return flags & ~VM_MERGEABLE
    return NO_FLAGS


@native
def guard_install(mm, task, vma, start, end):
    """MADV_GUARD_INSTALL: clear the range, then put a marker in every entry (allocating tables for them)."""
    v = VMA(mm, vma)
    if v.vm_file == 0:
        anon_vma_prepare(mm, task, vma)
    if mm.rules & RULE_GUARD_FLAG:
        v.vm_flags |= VM_GUARD
    change_range(mm, task, start, end, ZAP, 0)
    addr = start
    while addr < end:
        pmd = pmd_alloc(mm, addr)
        if pmd == 0:
            return -ENOMEM
        table = pte_alloc(mm, pmd)
        if table == NULL:
            return -ENOMEM
        PTE(mm, table * PTRS_PER_TABLE + ((addr >> PAGE_SHIFT) & 511)).entry = E_GUARD
        addr += PAGE_SIZE
    return 0


@native
def guard_remove(mm, start, end):
    """MADV_GUARD_REMOVE: remove the markers, keep the pages."""
    addr = start
    while addr < end:
        stop = min(end, (addr & ~(PMD_SIZE - 1)) + PMD_SIZE)
        pmd = pmd_slot(mm, addr)
        if pmd != 0 and PTE(mm, pmd).entry != 0:
            slot = (PTE(mm, pmd).entry >> 12) * PTRS_PER_TABLE + ((addr >> PAGE_SHIFT) & 511)
            last = slot + ((stop - addr) >> PAGE_SHIFT)
            while slot < last:
                if PTE(mm, slot).entry & E_GUARD:
                    PTE(mm, slot).entry = 0
                slot += 1
        addr = stop
    return 0


@native
def advise_populate(mm, task, start, end, advice):
    """MADV_POPULATE_READ and _WRITE, page by page: -ENOMEM at a hole, -EINVAL for a missing permission, -EFAULT where
    an access would get a signal (madvise_populate)."""
    access = ACCESS_READ
    right = VM_READ
    if advice == MADV_POPULATE_WRITE:
        access = ACCESS_WRITE
        right = VM_WRITE
    while start < end:
        vma = lookup(mm, task, start)
        if vma == NULL or VMA(mm, vma).vm_start > start:
            return -ENOMEM
        v = VMA(mm, vma)
        if v.vm_flags & (VM_IO | VM_PFNMAP) or not v.vm_flags & right:
            return -EINVAL
        stop = min(end, v.vm_end)
        if populate_vma(mm, task, vma, start, stop, access) != 0:
            return -EFAULT
        start = stop
    return 0


@native
def reclaim_tables(mm, start, end):
    """6.14: free the PTE pages that MADV_DONTNEED has emptied, where it covered their whole span (pt_reclaim.c)."""
    addr = (start + PMD_SIZE - 1) & ~(PMD_SIZE - 1)
    while addr + PMD_SIZE <= end:
        pmd = pmd_slot(mm, addr)
        if pmd != 0 and PTE(mm, pmd).entry != 0 and not PTE(mm, pmd).entry & E_PSE:
            table = PTE(mm, pmd).entry >> 12
            used = 0
            for index in range(PTRS_PER_TABLE):
                used |= PTE(mm, table * PTRS_PER_TABLE + index).entry
            if used == 0:
                PTE(mm, pmd).entry = 0
                table_free(mm, table)
        addr += PMD_SIZE
    return 0


@native
def advise_pages_error(v, advice):
    """The error for advice that acts on pages of the VMA ``v``: 0 or -errno."""
    flags = v.vm_flags
    if advice == MADV_DONTNEED or advice == MADV_FREE or advice == MADV_DONTNEED_LOCKED:
        forbidden = VM_PFNMAP
        if advice != MADV_DONTNEED_LOCKED:
            forbidden |= VM_LOCKED
        if flags & forbidden or (advice == MADV_FREE and v.vm_file != 0):
            return -EINVAL
    elif advice == MADV_COLD or advice == MADV_PAGEOUT:
        if flags & (VM_LOCKED | VM_PFNMAP | VM_HUGETLB):
            return -EINVAL
    elif advice == MADV_REMOVE:
        if flags & VM_LOCKED or v.vm_file == 0:
            return -EINVAL
        if (flags & (VM_SHARED | VM_MAYWRITE)) != (VM_SHARED | VM_MAYWRITE):
            return -EACCES
    elif advice == MADV_GUARD_INSTALL:
        if flags & (VM_SPECIAL | VM_HUGETLB | VM_LOCKED):
            return -EINVAL
    elif advice == MADV_GUARD_REMOVE:
        if flags & (VM_SPECIAL | VM_HUGETLB):
            return -EINVAL
    return 0


@native
def advise_pages(mm, task, vma, start, end, advice):
    """Advice that acts on the pages of [start, end), all in ``vma``: 0 or -errno. Caller holds mmap_lock for read, or
    ``vma`` against writers where the hook madvise_pages is filled."""
    error = advise_pages_error(VMA(mm, vma), advice)
    if error != 0:
        return error
    if advice == MADV_DONTNEED or advice == MADV_DONTNEED_LOCKED:  # MADV_FREE: pages may stay until memory is scarce
        change_range(mm, task, start, end, ZAP, 1)
        if mm.rules & RULE_DONTNEED_TABLES:
            reclaim_tables(mm, start, end)
    elif advice == MADV_PAGEOUT:
        change_range(mm, task, start, end, PAGE_OUT, 1)
    elif advice == MADV_REMOVE:
        change_range(mm, task, start, end, ZAP, 1)
    elif advice == MADV_GUARD_INSTALL:
        return guard_install(mm, task, vma, start, end)
    elif advice == MADV_GUARD_REMOVE:
        return guard_remove(mm, start, end)
    elif advice == MADV_MODEL_NUMA:
        change_range(mm, task, start, end, NUMA_HINT, 1)
    return 0


@native
def advice_known(advice):
    """madvise_behavior_valid."""
    if advice >= MADV_FREE and advice <= MADV_COLLAPSE:
        return 1
    if advice >= MADV_NORMAL and advice <= MADV_DONTNEED:
        return 1
    return advice == MADV_GUARD_INSTALL or advice == MADV_GUARD_REMOVE or advice == MADV_MODEL_NUMA


@native
def advice_reads(advice):
    """Whether mmap_lock is held for read only: advice that acts on pages does not change VMAs
    (madvise_need_mmap_write)."""
    if advice == MADV_WILLNEED or advice == MADV_DONTNEED or advice == MADV_FREE or advice == MADV_REMOVE:
        return 1
    if advice >= MADV_COLD and advice <= MADV_COLLAPSE:
        return 1
    return advice == MADV_GUARD_INSTALL or advice == MADV_GUARD_REMOVE or advice == MADV_MODEL_NUMA


@native
def madvise_under_mmap_lock(mm, task, start, length, advice):
    """Advice that changes no VMA, up to 6.16."""
    mmap_read_lock(mm, task)
    result = do_madvise(mm, task, start, length, advice)
    mmap_read_unlock(mm, task)
    return result


@native
def do_madvise(mm, task, start, length, advice):
    """madvise(2): 0, -EINVAL, -ENOMEM (holes: the rest is still advised), -EFAULT, -EACCES, -EAGAIN.

    Caller holds mmap_lock: for read if :func:`advice_reads`, else for write.
    """
    if not advice_known(advice) or start & (PAGE_SIZE - 1):
        return -EINVAL
    if start < 0 or length < 0 or length > (1 << 62) - start:
        return -EINVAL
    end = start + page_align(length)
    if advice == MADV_POPULATE_READ or advice == MADV_POPULATE_WRITE:
        return advise_populate(mm, task, start, end, advice)
    hole = 0
    vma = NULL
    if start < end:
        vma = lookup(mm, task, start)
        if vma == NULL:
            return -ENOMEM
    while start < end:
        if vma == NULL:
            return -ENOMEM
        v = VMA(mm, vma)
        if start < v.vm_start:
            hole = -ENOMEM
            start = v.vm_start
            if start >= end:
                return hole
        stop = min(end, v.vm_end)
        flags = advice_flags(mm, vma, advice)
        if flags == NO_FLAGS:
            error = advise_pages(mm, task, vma, start, stop, advice)
            if error != 0:
                return error
        elif flags < 0:
            return flags
        elif flags != v.vm_flags:
            vma = vma_set_flags(mm, vma, start, stop, flags)
            if vma < 0:
                return -EAGAIN
        start = max(stop, min(end, VMA(mm, vma).vm_end))
        vma = VMA(mm, vma).vm_next
    return hole
