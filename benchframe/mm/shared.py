"""The model for several threads: what the threaded build puts in the place of functions that assume one.

The text of faults and mapping operations is the same; :data:`REPLACE` exchanges the few functions below, so the build
for one thread pays nothing. Slabs get a lock; page frames come from a list of each task's own, filled and emptied in
batches (the kernel's per-CPU page lists, mm/page_alloc.c); counters that only statistics read are atomic or dropped;
memory given to kfree_rcu waits for a grace period (:mod:`benchframe.mm.grace`); time spent waiting for mmap_lock,
for page-table locks and for VMAs' locks is noted.
"""

from benchframe.dialect import NULL, cycles, fetch_add, native, store_release, wait_then_add
from benchframe.dialect.instance import instances
from benchframe.mm.anon import anon_vma_new
from benchframe.mm.arena import arena_alloc, arena_free, page_alloc, page_free
from benchframe.mm.crew import CREW, THREAD
from benchframe.mm.defaults import read_lock, write_lock
from benchframe.mm.grace import kfree_rcu_shared, rcu_offline, rcu_online, rcu_reclaim, synchronize_rcu_shared
from benchframe.mm.layout import ARENA, ARENA_PAGE, ARENA_VMA, FREED, MM, PAGE
from benchframe.mm.pagetable import add_tables, ptl_lock, ptl_trylock, spin_lock
from benchframe.mm.rcu import kfree_rcu, synchronize_rcu
from benchframe.mm.sync.lockstat import lock_acquired, lock_contended
from benchframe.mm.sync.mmap_lock import mmap_down_write_trylock
from benchframe.mm.sync.rwsem import IN_THE_WAY, INSIDE, down_read_slow, down_write_slow
from benchframe.mm.zap import add_rss

BATCH, HIGH = 63, 2048
"""Frames moved at once, and how many a task's list may hold: pcp->batch, and about what pcp->high comes to on a machine
of a few GiB since 5.13, when it began to follow the zone's size."""

mmap_down_read_slow, mmap_down_write_slow = instances(
    {"count": "mmap_lock", "tail": "mmap_lock_tail", "head": "mmap_lock_head"}, down_read_slow, down_write_slow
)
"""The parts of mmap_lock that wait."""


@native
def arena_lock(mm, which):
    """The lock of slab ``which`` (list_lock of a slab cache)."""
    wait_then_add(ARENA(mm, which), "lock", -1, 1)
    return 0


@native
def arena_unlock(mm, which):
    """Release it."""
    store_release(ARENA(mm, which), "lock", 0)
    return 0


@native
def arena_alloc_shared(mm, which):
    """arena_alloc under the slab's lock. A VMA that is not to be had waits for those that wait for RCU."""
    arena_lock(mm, which)
    a = ARENA(mm, which)
    if which == ARENA_VMA and a.free == 0 and a.top >= a.capacity and mm.owner != 0:
        arena_unlock(mm, which)
        rcu_reclaim(mm, which)
        arena_lock(mm, which)
    slot = arena_alloc(mm, which)
    arena_unlock(mm, which)
    return slot


@native
def arena_free_shared(mm, which, slot):
    """arena_free under the slab's lock."""
    arena_lock(mm, which)
    arena_free(mm, which, slot)
    arena_unlock(mm, which)
    return 0


@native
def page_alloc_shared(mm, task):
    """A frame from the task's own list; when that is empty, BATCH frames come from the slab first (rmqueue_bulk)."""
    t = THREAD(CREW(mm, 0), task)
    if t.pages == NULL:
        pages_refill(mm, task)
        if t.pages == NULL:
            mm.error = ARENA_PAGE + 1
            return NULL
    frame = t.pages
    t.pages = PAGE(mm, frame).cache
    t.nr_pages -= 1
    return frame


@native
def pages_refill(mm, task):
    """Up to BATCH frames for the task's list, linked through page.cache, which is freelist and cache in one union."""
    t = THREAD(CREW(mm, 0), task)
    arena_lock(mm, ARENA_PAGE)
    a = ARENA(mm, ARENA_PAGE)
    while t.nr_pages < BATCH and (a.free > 0 or a.top < a.capacity):
        if a.free > 0:
            a.free -= 1
            frame = FREED(mm, a.stack + a.free).slot
        else:
            frame = a.top
            a.top = frame + 1
        PAGE(mm, frame).cache = t.pages
        t.pages = frame
        t.nr_pages += 1
        a.live += 1
    if a.live > a.peak:
        a.peak = a.live
    arena_unlock(mm, ARENA_PAGE)
    return 0


@native
def page_free_shared(mm, task, frame):
    """To the task's own list; when that is long, BATCH frames go to the slab (free_pcppages_bulk)."""
    t = THREAD(CREW(mm, 0), task)
    PAGE(mm, frame).cache = t.pages
    t.pages = frame
    t.nr_pages += 1
    if t.nr_pages > HIGH:
        pages_drain(mm, task, BATCH)
    return 0


@native
def pages_drain(mm, task, count):
    """``count`` frames of the task's list, or all there are, go back to the slab."""
    t = THREAD(CREW(mm, 0), task)
    arena_lock(mm, ARENA_PAGE)
    a = ARENA(mm, ARENA_PAGE)
    while count > 0 and t.pages != NULL:
        frame = t.pages
        t.pages = PAGE(mm, frame).cache
        t.nr_pages -= 1
        FREED(mm, a.stack + a.free).slot = frame
        a.free += 1
        a.live -= 1
        count -= 1
    arena_unlock(mm, ARENA_PAGE)
    return 0


@native
def add_rss_shared(mm, pages):
    """Not kept: tasks count for themselves since 2.6.34 (SPLIT_RSS_COUNTING), and nobody reads the sum here."""
    return 0


@native
def add_tables_shared(mm, tables):
    """Faults add tables side by side."""
    fetch_add(mm, "nr_ptes", tables)
    return 0


@native
def anon_vma_new_shared(mm):
    """All mms count in one word."""
    return fetch_add(MM(mm, 1), "nr_anon_vmas", 1) + 1


@native
def read_lock_watched(mm, task):
    """read_lock; what waiting costs is noted. Who waits is quiescent for RCU."""
    before = fetch_add(mm, "mmap_lock", 1)
    if before & IN_THE_WAY and before & INSIDE:
        me = THREAD(CREW(mm, 0), task).leader
        t = THREAD(CREW(mm, 0), me)
        start = cycles()
        rcu_offline(mm, me)
        mmap_down_read_slow(mm)
        rcu_online(mm, me)
        t.lock_waits += 1
        t.lock_cycles += cycles() - start
    return 0


@native
def write_lock_watched(mm, task):
    """write_lock, likewise."""
    if not mmap_down_write_trylock(mm):
        me = THREAD(CREW(mm, 0), task).leader
        t = THREAD(CREW(mm, 0), me)
        start = cycles()
        rcu_offline(mm, me)
        mmap_down_write_slow(mm)
        rcu_online(mm, me)
        t.lock_waits += 1
        t.lock_cycles += cycles() - start
    mm.owner = task
    return 0


@native
def spin_lock_watched(mm, table):
    """spin_lock; what waiting costs is noted with the mm: nobody is told which task it is."""
    page = PAGE(mm, table)
    if not ptl_trylock(page):
        queue = CREW(mm, mm.id)
        start = cycles()
        ptl_lock(page)
        fetch_add(queue, "ptl_waits", 1)
        fetch_add(queue, "ptl_cycles", cycles() - start)
    return 0


@native
def lock_contended_timed(mm):
    """lock_contended: now."""
    return cycles()


@native
def lock_acquired_timed(mm, since):
    """lock_acquired: noted with the mm."""
    queue = CREW(mm, mm.id)
    fetch_add(queue, "vma_waits", 1)
    fetch_add(queue, "vma_cycles", cycles() - since)
    return 0


REPLACE = {
    arena_alloc: arena_alloc_shared,
    arena_free: arena_free_shared,
    page_alloc: page_alloc_shared,
    page_free: page_free_shared,
    add_rss: add_rss_shared,
    add_tables: add_tables_shared,
    anon_vma_new: anon_vma_new_shared,
    kfree_rcu: kfree_rcu_shared,
    synchronize_rcu: synchronize_rcu_shared,
    read_lock: read_lock_watched,
    write_lock: write_lock_watched,
    spin_lock: spin_lock_watched,
    lock_contended: lock_contended_timed,
    lock_acquired: lock_acquired_timed,
}
"""Function of the model to what a threaded build calls instead. What a replacement calls is not replaced again, so
only replacements may call the originals."""
