"""Taking pages away and changing their rights: munmap, MADV_DONTNEED, mprotect, fork (mm/memory.c, mm/mprotect.c)."""

from benchframe.dialect import native
from benchframe.mm.arena import page_free
from benchframe.mm.flags import (
    E_FILE,
    E_GUARD,
    E_PRESENT,
    E_PROTNONE,
    E_PSE,
    E_RW,
    E_SWAP,
    PAGE_FREE,
    PG_RESERVED,
    VM_SHARED,
    VM_WRITE,
)
from benchframe.mm.hooks import flush_tlb
from benchframe.mm.layout import PAGE, PAGE_SHIFT, PMD_SIZE, PTE, PTRS_PER_TABLE, VMA
from benchframe.mm.pagetable import next_step, pmd_slot, spin_lock, spin_unlock

ZAP, PAGE_OUT, NUMA_HINT, WRITE_PROTECT = 0, 1, 2, 3
"""What :func:`change_range` does to each entry."""


@native
def add_rss(mm, pages):
    """``pages`` more are mapped (add_mm_counter)."""
    mm.rss += pages
    return 0


@native
def frame_put(mm, task, entry):
    """One mapping of the frame behind ``entry`` less; the last one frees it."""
    if entry & (E_FILE | E_GUARD):
        return 0
    p = PAGE(mm, entry >> 12)
    if p.flags & PG_RESERVED:
        return 0
    p.mapcount -= 1
    p.refcount -= 1
    if p.refcount == 0:
        p.mapping = PAGE_FREE
        page_free(mm, task, entry >> 12)
    return 0


@native
def change_entry(mm, task, table, slot, what, keep_guards):
    """Apply ``what`` to one non-zero leaf entry. Caller holds the ptl."""
    entry = PTE(mm, slot).entry
    if what == ZAP:
        if entry & E_GUARD and keep_guards:
            return 0
        frame_put(mm, task, entry)
        PTE(mm, slot).entry = 0
        if entry & E_PRESENT:
            PAGE(mm, table).nr_present -= 1
            add_rss(mm, -1)
        return 0
    if not entry & E_PRESENT:
        return 0
    if what == PAGE_OUT:
        if not entry & E_FILE and not PAGE(mm, entry >> 12).flags & PG_RESERVED:
            PTE(mm, slot).entry = (entry & ~(E_PRESENT | E_RW)) | E_SWAP
            PAGE(mm, table).nr_present -= 1
            add_rss(mm, -1)
    elif what == NUMA_HINT:
        PTE(mm, slot).entry = (entry & ~E_PRESENT) | E_PROTNONE
        PAGE(mm, table).nr_present -= 1
        add_rss(mm, -1)
    else:
        PTE(mm, slot).entry = entry & ~E_RW
    return 0


@native
def change_range(mm, task, start, end, what, keep_guards):
    """Apply ``what`` to every entry of [start, end), PTE page by PTE page, each under its ptl, for ``task``."""
    addr = start
    while addr < end:
        pmd = pmd_slot(mm, addr)
        if pmd == 0:
            addr = next_step(mm, addr, end)
            continue
        stop = min(end, (addr & ~(PMD_SIZE - 1)) + PMD_SIZE)
        entry = PTE(mm, pmd).entry
        if entry & E_PSE:
            if what == ZAP:
                frame_put(mm, task, entry)
                PTE(mm, pmd).entry = 0
                add_rss(mm, -PTRS_PER_TABLE)
            elif what == WRITE_PROTECT:
                PTE(mm, pmd).entry = entry & ~E_RW
        elif entry != 0:
            table = entry >> 12
            spin_lock(mm, table)
            slot = table * PTRS_PER_TABLE + ((addr >> PAGE_SHIFT) & 511)
            last = slot + ((stop - addr) >> PAGE_SHIFT)
            while slot < last:
                if PTE(mm, slot).entry != 0:
                    change_entry(mm, task, table, slot, what, keep_guards)
                slot += 1
            spin_unlock(mm, table)
        addr = stop
    flush_tlb(mm, start, end)
    return 0


@native
def change_protection(mm, vma, start, end):
    """mprotect took the write right of [start, end) away (or gave it: then faults raise it page by page)."""
    flags = VMA(mm, vma).vm_flags
    if not flags & VM_WRITE or not flags & VM_SHARED:
        change_range(mm, mm.owner, start, end, WRITE_PROTECT, 1)
    return 0
