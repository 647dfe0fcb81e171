"""Page faults: from the address to a page-table entry (mm/memory.c, arch/x86/mm/fault.c).

``page_fault`` is what a timed run measures: vma_get (the strategy's lookup), the checks, the fault's own work, vma_put.
The work is that of __handle_mm_fault and handle_pte_fault: tables are allocated on the way down, the entry is
decided and set under the PTE page's lock, and at the six places where RFC 3/4 had update_vma_cache the strategy's
``cache_fault`` is called.
"""

from benchframe.dialect import NULL, native
from benchframe.mm.anon import anon_vma_prepare
from benchframe.mm.entry import anon_page, fill_none, fill_swap, fill_wp, touch_present
from benchframe.mm.flags import (
    ACCESS_EXEC,
    ACCESS_READ,
    ACCESS_WRITE,
    DID_HUGE,
    DID_NUMA,
    E_ACCESSED,
    E_DIRTY,
    E_GUARD,
    E_PRESENT,
    E_PROTNONE,
    E_PSE,
    E_RW,
    E_SWAP,
    E_USER,
    FAULT_ACCERR,
    FAULT_MAPERR,
    FAULT_OOM,
    FAULT_RETRY,
    FAULT_SIGBUS,
    PAGE_HUGE,
    VM_ACCESS,
    VM_EXEC,
    VM_HUGEPAGE,
    VM_IO,
    VM_NOHUGEPAGE,
    VM_PFNMAP,
    VM_SHARED,
    VM_WRITE,
)
from benchframe.mm.hooks import (
    COUNT_RETRY,
    SITE_END,
    SITE_TABLE,
    count,
    lookup,
    vma_get,
    vma_get_locked,
    vma_grow,
    vma_put,
    vma_valid,
)
from benchframe.mm.layout import FILE, PAGE, PAGE_SHIFT, PAGE_SIZE, PMD_SIZE, PTE, PTRS_PER_TABLE, TASK, VMA
from benchframe.mm.pagetable import pmd_alloc, pmd_slot, pte_alloc, spin_lock, spin_unlock
from benchframe.mm.zap import add_rss, frame_put


@native
def beyond_object(mm, vma, addr):
    """Is ``addr`` in a page past the end of the file or shared object? Then the touch is a SIGBUS."""
    v = VMA(mm, vma)
    if v.vm_file == 0:
        return 0
    index = v.vm_pgoff + ((addr - v.vm_start) >> PAGE_SHIFT)
    return index >= (FILE(mm, v.vm_file).size + PAGE_SIZE - 1) >> PAGE_SHIFT


@native
def sigbus(mm, vma, access):
    """A touch past the end, where no entry says otherwise: do_cow_fault prepares before it reads the file."""
    if access & ACCESS_WRITE and not VMA(mm, vma).vm_flags & VM_SHARED:
        anon_vma_prepare(mm, vma)
    return FAULT_SIGBUS


HUGE = E_PRESENT | E_PSE | E_USER | E_ACCESSED


@native
def huge_page(mm, task):
    """A fresh 2 MiB page, mapped once; one frame stands for it."""
    frame = anon_page(mm, task)
    if frame != NULL:
        PAGE(mm, frame).mapping = PAGE_HUGE
    return frame


@native
def huge_fault(mm, task, vma, pmd, addr, access):
    """A 2 MiB page where the VMA and the setting allow one (do_huge_pmd_anonymous_page): 1 done, 0 use small pages.

    The RFC's hooks are not here: its cache never sees huge pages, and its lookup mistakes them (bug B5).
    """
    entry = PTE(mm, pmd).entry
    v = VMA(mm, vma)
    if entry & E_PSE:
        if not access & ACCESS_WRITE or entry & E_RW:
            PTE(mm, pmd).entry = entry | E_ACCESSED
        elif PAGE(mm, entry >> 12).mapcount == 1:
            PTE(mm, pmd).entry = entry | E_ACCESSED | E_DIRTY | E_RW
        else:  # copied: the zero page, or shared with a child
            frame = huge_page(mm, task)
            if frame == NULL:
                return 0
            frame_put(mm, task, entry)
            PTE(mm, pmd).entry = (frame << 12) | HUGE | E_RW | E_DIRTY
        TASK(mm, task).fault_kind = DID_HUGE
        return 1
    if entry != 0 or v.vm_file != 0 or v.vm_flags & VM_NOHUGEPAGE:
        return 0
    if mm.thp == 1 and not v.vm_flags & VM_HUGEPAGE:
        return 0
    start = addr & ~(PMD_SIZE - 1)
    if start < v.vm_start or start + PMD_SIZE > v.vm_end:
        return 0
    anon_vma_prepare(mm, vma)
    entry = (mm.zero_page << 12) | HUGE
    if access & ACCESS_WRITE:
        frame = huge_page(mm, task)
        if frame == NULL:
            return 0
        entry = (frame << 12) | HUGE | E_RW | E_DIRTY
    PTE(mm, pmd).entry = entry
    add_rss(mm, PTRS_PER_TABLE)
    TASK(mm, task).fault_kind = DID_HUGE
    return 1


@native
def handle_mm_fault(mm, task, vma, addr, access):
    """Make ``addr``'s entry good for ``access`` in ``vma``, which contains it and allows it.

    0, FAULT_SIGBUS, FAULT_MAPERR (a guard marker), FAULT_OOM or FAULT_RETRY. Caller holds what vma_get took.
    """
    pmd = pmd_slot(mm, addr)
    if pmd == 0:
        if not vma_valid(mm, task, vma, SITE_TABLE):
            return FAULT_RETRY
        pmd = pmd_alloc(mm, addr)
        if pmd == 0:
            return FAULT_OOM
    outside = beyond_object(mm, vma, addr)
    if outside and PTE(mm, pmd).entry == 0:
        return sigbus(mm, vma, access)
    if mm.thp != 0 and huge_fault(mm, task, vma, pmd, addr, access):
        return 0
    table = PTE(mm, pmd).entry >> 12
    if table == NULL:
        if not vma_valid(mm, task, vma, SITE_TABLE):
            return FAULT_RETRY
        table = pte_alloc(mm, pmd)
        if table == NULL:
            return FAULT_OOM
    slot = table * PTRS_PER_TABLE + ((addr >> PAGE_SHIFT) & 511)
    spin_lock(mm, table)
    entry = PTE(mm, slot).entry
    if entry == 0 and outside:
        result = sigbus(mm, vma, access)
    elif entry == 0:
        result = fill_none(mm, task, vma, table, slot, addr, access)
    elif entry & E_PRESENT:
        if access & ACCESS_WRITE and not entry & E_RW:
            result = fill_wp(mm, task, vma, table, slot)
        else:
            result = touch_present(mm, task, vma, table, slot, access)
    elif entry & E_GUARD:
        result = FAULT_MAPERR
    elif entry & E_SWAP:
        result = fill_swap(mm, task, vma, table, slot, access)
    else:  # do_numa_page: newer than the RFC, which has no hook here
        PTE(mm, slot).entry = (entry & ~E_PROTNONE) | E_PRESENT | E_ACCESSED
        PAGE(mm, table).nr_present += 1
        add_rss(mm, 1)
        TASK(mm, task).fault_kind = DID_NUMA
        result = 0
    spin_unlock(mm, table)
    return result


@native
def access_refused(vm_flags, access):
    """access_error: is the right for this access missing?"""
    if access & ACCESS_WRITE:
        return not vm_flags & VM_WRITE
    if access & ACCESS_EXEC:
        return not vm_flags & VM_EXEC
    return not vm_flags & VM_ACCESS


@native
def fault_in_vma(mm, task, vma, addr, access):
    """The part of a fault between vma_get and vma_put: 0 or FAULT_*."""
    if vma == NULL:
        return FAULT_MAPERR
    v = VMA(mm, vma)
    if access == 0:  # a recorder that could not see the error code
        access = ACCESS_READ
    if access_refused(v.vm_flags, access):
        return FAULT_ACCERR
    result = handle_mm_fault(mm, task, vma, addr, access)
    if result == 0 and not vma_valid(mm, task, vma, SITE_END):
        return FAULT_RETRY
    return result


@native
def covering(mm, task, vma, addr):
    """What vma_get gave, if it covers ``addr``; if it lies above, what may have grown to; else NULL."""
    if vma != NULL and VMA(mm, vma).vm_start > addr:
        return vma_grow(mm, task, vma, addr)
    return vma


@native
def page_fault(mm, task, addr, access):
    """A user fault: the VMA that served it, or FAULT_* (negative). ``access``: ACCESS_* bits, 0 unknown."""
    if addr < 0 or addr >= mm.task_size:
        return FAULT_MAPERR
    vma = covering(mm, task, vma_get(mm, task, addr), addr)
    result = fault_in_vma(mm, task, vma, addr, access)
    vma_put(mm, task, vma)
    if result == FAULT_RETRY:
        count(mm, task, COUNT_RETRY)
        vma = covering(mm, task, vma_get_locked(mm, task, addr), addr)
        result = fault_in_vma(mm, task, vma, addr, access)
        vma_put(mm, task, vma)
    if result != 0:
        return result
    return vma


@native
def populate_range(mm, task, start, end, ignore_errors):
    """Fault in every page of [start, end) as get_user_pages does for MAP_POPULATE and mlock (__mm_populate).

    0, or the first FAULT_* (unless ``ignore_errors``). Holes end it. Caller holds mmap_lock.
    """
    addr = start
    while addr < end:
        vma = lookup(mm, task, addr)
        if vma == NULL or VMA(mm, vma).vm_start >= end:
            return 0
        v = VMA(mm, vma)
        addr = max(addr, v.vm_start)
        stop = min(end, v.vm_end)
        access = ACCESS_READ
        if (v.vm_flags & (VM_WRITE | VM_SHARED)) == VM_WRITE:
            access = ACCESS_WRITE
        if v.vm_flags & (VM_IO | VM_PFNMAP):
            addr = stop
            continue
        result = populate_vma(mm, task, vma, addr, stop, access)
        if result != 0 and not ignore_errors:
            return result
        addr = stop
    return 0


@native
def populate_vma(mm, task, vma, start, end, access):
    """Fault in [start, end) of one VMA, stopping at the first page that fails: 0 or FAULT_*."""
    if access_refused(VMA(mm, vma).vm_flags, access):
        return FAULT_ACCERR
    addr = start
    while addr < end:
        result = handle_mm_fault(mm, task, vma, addr, access)
        if result != 0:
            return result
        addr += PAGE_SIZE
    return 0
