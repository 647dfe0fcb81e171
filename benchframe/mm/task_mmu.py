"""Reading all VMAs of an mm, as /proc/PID/maps and PROCMAP_QUERY do (fs/proc/task_mmu.c)."""

from benchframe.dialect import NULL, READ_ONCE, native
from benchframe.mm.hooks import SITE_MAPS, get_next_vma, lock_vma_range, show_map, unlock_vma_range, vma_valid
from benchframe.mm.layout import PAGE_SHIFT, VMA

COUNT_SHIFT = 32
"""The answer of a walk: the number of VMAs from this bit on, below it the checksum of their ranges."""
CHECKSUM = (1 << COUNT_SHIFT) - 1
PRIME = 16777619
"""The multiplier of FNV-1, which the checksum follows with words of pages in the place of bytes."""


@native
def checksum_of(seen, start, end):
    """The checksum ``seen`` of the VMAs before, with one more."""
    seen = ((seen ^ (start >> PAGE_SHIFT)) * PRIME) & CHECKSUM
    return ((seen ^ (end >> PAGE_SHIFT)) * PRIME) & CHECKSUM


@native
def read_maps(mm, task, low, length, lines):
    """Read every VMA in the order of addresses; ``lines`` VMAs with each read(2), all with one if 0.

    Returns the number of VMAs and the checksum of their ranges (COUNT_SHIFT) without those inside [low, low + length),
    which other tasks may change meanwhile; -1 if the addresses went backwards. Between two reads nothing is held. The
    kernel's promise (Documentation/filesystems/proc.rst): addresses never go backwards, and what is mapped all the time
    is shown. O(VMAs) under mmap_lock, O(VMAs log VMAs) if each is looked up.
    """
    addr = 0
    count = 0
    seen = 0
    backwards = 0
    vma = 1
    while vma != NULL:
        left = lines
        lock_vma_range(mm, task)
        vma = get_next_vma(mm, task, NULL, addr)
        while vma != NULL:
            v = VMA(mm, vma)
            start = READ_ONCE(v, "vm_start")
            end = READ_ONCE(v, "vm_end")
            if vma_valid(mm, task, vma, SITE_MAPS):
                show_map(mm, task, start, end)
                if end <= addr:
                    backwards = 1
                if start < low or end > low + length:
                    count += 1
                    seen = checksum_of(seen, start, end)
                addr = end
                left -= 1
                if left == 0:
                    break
            vma = get_next_vma(mm, task, vma, addr)
        unlock_vma_range(mm, task, vma)
    if backwards:
        return -1
    return count << COUNT_SHIFT | seen
