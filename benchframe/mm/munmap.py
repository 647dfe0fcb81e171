"""munmap (mm/mmap.c do_munmap, 2.6.32 to 6.0; the same steps in mm/vma.c since)."""

from benchframe.dialect import NULL, native
from benchframe.mm.flags import EINVAL, ENOMEM
from benchframe.mm.hooks import cache_detached, cache_munmap, index_erase, lookup, vma_detach, vma_free, vma_start_write
from benchframe.mm.layout import PAGE_SIZE, VMA
from benchframe.mm.pagetable import free_pgtables
from benchframe.mm.records import list_remove, note_hole, vma_next_of
from benchframe.mm.vma import split_vma_unchecked
from benchframe.mm.zap import ZAP, change_range


@native
def page_align(length):
    """Round up to whole pages."""
    return (length + PAGE_SIZE - 1) & ~(PAGE_SIZE - 1)


@native
def do_munmap(mm, task, start, length):
    """Unmap [start, start + length): 0, -EINVAL, or -ENOMEM (a hole in one VMA at the map_count limit).

    Cut the first and the last VMA, take all between out of the index, clear their entries, free the tables that
    nobody else needs, free the VMAs. O(VMAs and pages in the range + log n). Caller holds mmap_lock for write.
    """
    if start & (PAGE_SIZE - 1) or start < 0 or start > mm.task_size or length < 0 or length > mm.task_size - start:
        return -EINVAL
    length = page_align(length)
    if length == 0:
        return -EINVAL
    end = start + length
    vma = lookup(mm, task, start)
    if vma == NULL or VMA(mm, vma).vm_start >= end:
        return 0
    cache_munmap(mm, start, end, vma)
    prev = VMA(mm, vma).vm_prev
    if start > VMA(mm, vma).vm_start:
        if end < VMA(mm, vma).vm_end and mm.map_count >= mm.max_map_count:
            return -ENOMEM
        error = split_vma_unchecked(mm, vma, start, 0)
        if error != 0:
            return error
        prev = vma
    last = lookup(mm, task, end)
    if last != NULL and end > VMA(mm, last).vm_start:
        error = split_vma_unchecked(mm, last, end, 1)
        if error != 0:
            return error
    detach_range(mm, prev, start, end)
    return 0


@native
def detach_range(mm, prev, start, end):
    """Remove every VMA after ``prev`` that begins below ``end``; none reaches beyond it."""
    first = vma_next_of(mm, prev)
    vma = first
    while vma != NULL and VMA(mm, vma).vm_start < end:
        vma_start_write(mm, vma)
        following = VMA(mm, vma).vm_next
        list_remove(mm, vma)
        index_erase(mm, vma)
        VMA(mm, vma).detached = 1
        vma_detach(mm, vma)
        mm.map_count -= 1
        vma = following
    following = vma
    cache_detached(mm)
    change_range(mm, mm.owner, start, end, ZAP, 0)
    floor = 0
    if prev != NULL:
        floor = VMA(mm, prev).vm_end
    ceiling = 0
    if following != NULL:
        ceiling = VMA(mm, following).vm_start
    free_pgtables(mm, start, end, floor, ceiling)
    vma = first
    while vma != following:
        after = VMA(mm, vma).vm_next
        vma_free(mm, vma)
        vma = after
    note_hole(mm, following)
    return 0
