"""Allocation of records: slabs with free lists, and memory that RCU frees later."""

from benchframe.dialect.functions import native
from benchframe.dialect.records import NULL
from benchframe.mm.layout import ARENA, ARENA_PAGE, FREED

# ----------------------------------------------------------------------------------------------------------------------
# Slab allocators: allocate and free a record, both O(1), last freed first.
#
# Freed slots wait on a stack beside the records, so a freed record keeps its contents until it is taken again: what
# a stale reference would read (the checker poisons it instead). An allocator that is full sets ``mm.error`` and
# gives NULL; the caller returns -ENOMEM and the run is void, so that a too small capacity never passes for a result.


@native
def arena_alloc(mm, which):
    """Allocate a slot of arena ``which``, contents undefined; NULL if it is full. Caller holds mmap_lock for write (or
    ptl)."""
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
    """Free ``slot``. Caller holds the lock that :func:`arena_alloc` needs; no task may use the slot any more."""
    a = ARENA(mm, which)
    FREED(mm, a.stack + a.free).slot = slot
    a.free += 1
    a.live -= 1
    return 0


@native
def arena_room(mm, which):
    """How many more slots can be allocated. A hint where others allocate: the lock is not taken."""
    a = ARENA(mm, which)
    return a.free + a.capacity - a.top


@native
def page_alloc(mm, task):
    """A frame for ``task``, contents undefined; NULL if there is none. Caller holds a ptl or mmap_lock."""
    return arena_alloc(mm, ARENA_PAGE)


@native
def page_free(mm, task, frame):
    """Free a frame of ``task``."""
    return arena_free(mm, ARENA_PAGE, frame)


# ----------------------------------------------------------------------------------------------------------------------
# RCU: readers take no lock, and memory is freed only after they have finished.
#
# One thread is its own grace period: natively the sections cost nothing and kfree_rcu frees at once. The checker puts
# its own in their place, where a freed record waits until every task has been outside a section.


@native
def rcu_read_lock(mm, task):
    """Until rcu_read_unlock, nothing that this task may have seen is freed. Sections nest: the outermost counts."""
    return 0


@native
def rcu_read_unlock(mm, task):
    """End the section: references obtained inside it are invalid, unless something else keeps them alive."""
    return 0


@native
def kfree_rcu(mm, which, slot):
    """arena_free after a grace period. The caller does not wait."""
    return arena_free(mm, which, slot)


@native
def synchronize_rcu(mm, task):
    """Wait until every section that had begun has ended. Must not be called inside a section."""
    return 0


@native
def start_poll_synchronize_rcu(mm):
    """Ask for a grace period that begins after now; the number by which :func:`poll_state_synchronize_rcu` knows it."""
    return 0


@native
def poll_state_synchronize_rcu(mm, number):
    """Whether that grace period is over. With one thread every one is."""
    return 1


@native
def kmem_cache_prefill(mm, which, count):
    """A store that needs up to ``count`` objects of slab ``which`` begins: an allocator takes them now, so that the
    store itself cannot fail. ``kmem_cache_return`` ends it. Nothing where the strategy names no allocator."""
    return 0


@native
def kmem_cache_return(mm, which):
    """The store is over: give back what it did not need."""
    return 0


@native
def free_typesafe_by_rcu(mm, which, slot):
    """kmem_cache_free of a SLAB_TYPESAFE_BY_RCU cache: the slot may be reused at once, but stays a record of its kind
    until a grace period is over. A reader that found it under rcu_read_lock must check again what it is."""
    return arena_free(mm, which, slot)
