"""Stack growth: a fault below a VM_GROWSDOWN VMA (mm/mmap.c expand_downwards, acct_stack_growth; 4.12 guard gap)."""

from benchframe.dialect import NULL, native
from benchframe.mm.anon import anon_vma_prepare
from benchframe.mm.find import find_vma
from benchframe.mm.flags import VM_ACCESS, VM_GROWSDOWN
from benchframe.mm.hooks import mmap_read_unlock, mmap_write_downgrade, mmap_write_lock, vma_start_write
from benchframe.mm.layout import PAGE_SHIFT, PAGE_SIZE, VMA
from benchframe.mm.pagetable import spin_lock, spin_unlock
from benchframe.mm.records import vma_resize


@native
def expand_stack(mm, vma, addr):
    """Grow ``vma`` down to ``addr``'s page: 1 if it now covers it, 0 if anything forbids it (the fault is a SIGSEGV).

    Refused: not VM_GROWSDOWN, below mmap_min_addr, within stack_guard_gap of an accessible VMA that is not itself a
    stack, more than RLIMIT_STACK, or more than vm_pgoff pages. The anon_vma is made before the limits are looked
    at, so a refused growth leaves one behind.
    """
    v = VMA(mm, vma)
    addr &= ~(PAGE_SIZE - 1)
    if not v.vm_flags & VM_GROWSDOWN or addr < mm.mmap_min_addr:
        return 0
    prev = v.vm_prev
    if prev != NULL:
        p = VMA(mm, prev)
        if not p.vm_flags & VM_GROWSDOWN and p.vm_flags & VM_ACCESS and addr - p.vm_end < mm.stack_guard_gap:
            return 0
        if p.vm_end > addr:
            return 0
    anon_vma_prepare(mm, vma)
    vma_start_write(mm, vma)
    spin_lock(mm, mm.pgd)
    grown = 1
    if addr < v.vm_start:  # nobody else was faster
        grown = grow_down(mm, vma, addr)
    spin_unlock(mm, mm.pgd)
    return grown


@native
def grow_down(mm, vma, addr):
    """The part of expand_stack under page_table_lock, which keeps two faults from growing one stack at once."""
    v = VMA(mm, vma)
    if v.vm_end - addr > mm.stack_limit or (v.vm_start - addr) >> PAGE_SHIFT > v.vm_pgoff:
        return 0
    vma_resize(mm, vma, addr, v.vm_end)
    return 1


@native
def grow_as_held(mm, task, vma, addr):
    """vma_grow up to 6.4: under whatever the fault holds, mmap_lock for read."""
    if expand_stack(mm, vma, addr):
        return vma
    return NULL


@native
def grow_under_write_lock(mm, task, vma, addr):
    """vma_grow since 6.5 (lock_mm_and_find_vma): give mmap_lock back, take it for write, look again, grow, downgrade.

    The lock cannot be upgraded: whatever was found under it may be gone, so ``vma`` is not used.
    """
    mmap_read_unlock(mm, task)
    mmap_write_lock(mm, task)
    vma = find_vma(mm, task, addr)
    if vma != NULL and VMA(mm, vma).vm_start > addr and not expand_stack(mm, vma, addr):
        vma = NULL
    mmap_write_downgrade(mm, task)
    return vma
