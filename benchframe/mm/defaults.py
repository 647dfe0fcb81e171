"""The functions that run where a strategy fills no hook: defaults of index, cache and protocol."""

from benchframe.dialect.functions import native
from benchframe.dialect.records import NULL
from benchframe.mm.flags import PAGE_FREE
from benchframe.mm.hooks import (
    COUNT_FALLBACK,
    COUNT_HIT,
    COUNT_LOOKUP,
    COUNT_RETRY,
    find_vma,
    index_find,
    lookup,
    mmap_read_lock,
    mmap_read_unlock,
    vma_start_write,
)
from benchframe.mm.layout import ARENA_TABLE, PAGE, TASK, VMA, arena_free
from benchframe.mm.locks import mmap_down_read, mmap_down_write, mmap_downgrade_write, mmap_up_read, mmap_up_write
from benchframe.mm.madvise import madvise_under_mmap_lock
from benchframe.mm.vma import grow_as_held, start_gap, vma_free_now, vma_next_of, vma_prev_of

# ----------------------------------------------------------------------------------------------------------------------
# The search for a hole for a new mapping, without help from the index.
#
# Linux from 2.6.9 to 3.7 walked the list and remembered where it had last succeeded (free_area_cache and
# cached_hole_size); 3.8 found the highest hole through the augmented rb-tree, 6.1 through the maple tree. Every
# strategy must give the same address, the highest hole that fits, so the memory here is exact:
#
#     no hole of hole_size bytes or more ends above hole_hint (and below mmap_base).


@native
def list_gap_below(mm, length, low, high):
    """Start of the range at the top of the highest hole in [low, high) of ``length`` bytes, -1 if there is none.

    O(VMAs above the hole), or from hole_hint on if that suffices. Caller holds mmap_lock for write.
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
        top = min(high, start_gap(mm, prev))  # only the next VMA's guard gap counts, not that of a VMA further up
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
    """Start of the lowest hole in [low, high) of ``length`` bytes, -1 if there is none. O(VMAs below it)."""
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


# ----------------------------------------------------------------------------------------------------------------------
# Default functions for the hooks where "return 0" is not enough.


@native
def read_lock(mm, task):
    """mmap_read_lock: one atomic add, unless there is a writer or a waiter."""
    return mmap_down_read(mm)


@native
def read_unlock(mm, task):
    """mmap_read_unlock."""
    return mmap_up_read(mm)


@native
def write_lock(mm, task):
    """mmap_write_lock: one compare-and-exchange if the lock is free; otherwise wait, with new readers kept out."""
    mmap_down_write(mm)
    mm.owner = task
    return 0


@native
def write_unlock(mm, task):
    """mmap_write_unlock."""
    mm.owner = 0
    return mmap_up_write(mm)


@native
def write_downgrade(mm, task):
    """mmap_write_downgrade: the writer continues as a reader."""
    mm.owner = 0
    return mmap_downgrade_write(mm)


@native
def table_release_now(mm, table):
    """Free the page at once."""
    PAGE(mm, table).mapping = PAGE_FREE
    return arena_free(mm, ARENA_TABLE, table)


@native
def get_under_mmap_lock(mm, task, addr):
    """do_page_fault of 2.4 to 6.3: mmap_lock for read around the whole fault."""
    mmap_read_lock(mm, task)
    return find_vma(mm, task, addr)


@native
def put_under_mmap_lock(mm, task, vma):
    """The end of do_page_fault."""
    mmap_read_unlock(mm, task)
    return 0


@native
def always_valid(mm, task, vma, site):
    """Always valid: the caller holds mmap_lock."""
    return 1


@native
def count_event(mm, task, what):
    """``count`` in the counted build."""
    t = TASK(mm, task)
    if what == COUNT_LOOKUP:
        t.nr_lookups += 1
    elif what == COUNT_HIT:
        t.nr_hits += 1
    elif what == COUNT_RETRY:
        t.nr_retries += 1
    elif what == COUNT_FALLBACK:
        t.nr_fallbacks += 1
    return 0


@native
def dup_as_write(mm, vma):
    """dup_mmap since 6.5: fork takes the lock for write too (fb49c455323f)."""
    return vma_start_write(mm, vma)


@native
def maps_under_mmap_lock(mm, task):
    """m_start up to 6.16."""
    return mmap_read_lock(mm, task)


@native
def next_in_list(mm, task, vma, addr):
    """m_start's find_vma, then m_next, under mmap_lock. O(1) from one VMA to the next."""
    if vma == NULL:
        return lookup(mm, task, addr)
    return VMA(mm, vma).vm_next


@native
def maps_unlock(mm, task, vma):
    """m_stop up to 6.16."""
    return mmap_read_unlock(mm, task)


DEFAULTS = {
    "index_gap_below": list_gap_below,
    "mmap_read_lock": read_lock,
    "mmap_read_unlock": read_unlock,
    "mmap_write_lock": write_lock,
    "mmap_write_unlock": write_unlock,
    "mmap_write_downgrade": write_downgrade,
    "vma_dup": dup_as_write,
    "vma_grow": grow_as_held,
    "vma_get": get_under_mmap_lock,
    "vma_put": put_under_mmap_lock,
    "vma_get_locked": get_under_mmap_lock,
    "vma_valid": always_valid,
    "vma_free": vma_free_now,
    "table_release": table_release_now,
    "lock_vma_range": maps_under_mmap_lock,
    "get_next_vma": next_in_list,
    "unlock_vma_range": maps_unlock,
    "madvise_pages": madvise_under_mmap_lock,
    "lookup": find_vma,
}
"""Default function by hook name."""
