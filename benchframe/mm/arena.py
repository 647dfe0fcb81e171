"""Slab allocators: take a record, give it back, both O(1), last freed first.

Freed slots wait on a stack beside the records, so a freed record keeps its contents until it is taken again: what
a stale reference would read (the checker poisons it instead). An allocator that is full sets ``mm.error`` and
gives NULL; the caller returns -ENOMEM and the run is void, so that a too small capacity never passes for a result.
"""

from benchframe.dialect import NULL, native
from benchframe.mm.layout import ARENA, ARENA_PAGE, FREED


@native
def arena_alloc(mm, which):
    """A slot of arena ``which``, contents undefined; NULL if it is full. Caller holds mmap_lock for write (or ptl)."""
    a = ARENA(mm, which)
    if a.free > 0:
        a.free -= 1
        slot = FREED(mm, a.stack + a.free).slot
    else:
        slot = a.top
        if slot >= a.capacity:
            mm.error = which + 1
            return NULL
        a.top = slot + 1
    a.live += 1
    if a.live > a.peak:
        a.peak = a.live
    return slot


@native
def arena_free(mm, which, slot):
    """Give ``slot`` back. Caller holds what :func:`arena_alloc` asks for; nobody may use the slot any more."""
    a = ARENA(mm, which)
    FREED(mm, a.stack + a.free).slot = slot
    a.free += 1
    a.live -= 1
    return 0


@native
def page_alloc(mm, task):
    """A frame for ``task``, contents undefined; NULL if there is none. Caller holds a ptl or mmap_lock."""
    return arena_alloc(mm, ARENA_PAGE)


@native
def page_free(mm, task, frame):
    """``task`` gives a frame back."""
    return arena_free(mm, ARENA_PAGE, frame)
