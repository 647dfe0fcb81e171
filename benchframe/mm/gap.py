"""Where a mapping goes: the hole search without help from the index.

Linux from 2.6.9 to 3.7 walked the list and remembered where it had last succeeded (free_area_cache and
cached_hole_size); 3.8 found the highest hole through the augmented rb-tree, 6.1 through the maple tree. Every
strategy must give the same address, the highest hole that fits, so the memory here is exact:

    no hole of hole_size bytes or more ends above hole_hint (and below mmap_base).
"""

from benchframe.dialect import NULL, native
from benchframe.mm.hooks import index_find
from benchframe.mm.layout import VMA
from benchframe.mm.records import start_gap, vma_next_of, vma_prev_of


@native
def list_gap_below(mm, length, low, high):
    """Start of the range at the top of the highest hole in [low, high) of ``length`` bytes, -1 if none.

    O(VMAs above the hole), from hole_hint on when that is enough. Caller holds mmap_lock for write.
    """
    limit = high
    known = high == mm.mmap_base
    if known and length >= mm.hole_size and mm.hole_hint < limit:
        limit = mm.hole_hint
    above = index_find(mm, limit)
    top = high
    if above != NULL:
        top = min(high, start_gap(mm, above))
    prev = vma_prev_of(mm, above)
    bottom = low
    if prev != NULL:
        bottom = max(low, VMA(mm, prev).vm_end)
    while top - bottom < length:
        if prev == NULL:
            return -1
        top = min(high, start_gap(mm, prev))  # only the next VMA's guard gap counts, not one that reaches over it
        prev = VMA(mm, prev).vm_prev
        bottom = low
        if prev != NULL:
            bottom = max(low, VMA(mm, prev).vm_end)
    if known:
        mm.hole_hint = top
        mm.hole_size = length
    return top - length


@native
def list_gap_above(mm, length, low, high):
    """Start of the lowest hole in [low, high) of ``length`` bytes, -1 if none. O(VMAs below it)."""
    vma = index_find(mm, low)
    bottom = low
    while bottom + length <= high:
        top = high
        if vma != NULL:
            top = min(high, start_gap(mm, vma))
        if top - bottom >= length:
            return bottom
        if vma == NULL:
            return -1
        bottom = max(bottom, VMA(mm, vma).vm_end)
        vma = vma_next_of(mm, vma)
    return -1
