"""The build for several threads: the functions it replaces, its records, and RCU grace periods."""

from benchframe.dialect.functions import instances, native
from benchframe.dialect.primitives import (
    READ_ONCE,
    WRITE_ONCE,
    cmpxchg,
    cond_resched,
    cpu_relax,
    cycles,
    fetch_add,
    load_acquire,
    smp_mb,
    store_release,
    wait_then_add,
)
from benchframe.dialect.records import NULL, Field, Slab, Struct
from benchframe.mm.defaults import read_lock, write_lock
from benchframe.mm.layout import (
    ARENA,
    ARENA_PAGE,
    ARENA_VMA,
    FREED,
    MM,
    PAGE,
    arena_alloc,
    arena_free,
    kfree_rcu,
    page_alloc,
    page_free,
    poll_state_synchronize_rcu,
    start_poll_synchronize_rcu,
    synchronize_rcu,
)
from benchframe.mm.locks import (
    IN_THE_WAY,
    INSIDE,
    down_read_slow,
    down_write_slow,
    lock_acquired,
    lock_contended,
    mmap_down_write_trylock,
)
from benchframe.mm.memory import add_rss
from benchframe.mm.pagetable import add_tables, ptl_lock, ptl_trylock, spin_lock
from benchframe.mm.vma import anon_vma_new

# ----------------------------------------------------------------------------------------------------------------------
# Records of a threaded run: the crew, each thread's work and results, RCU's queues, histograms, a trace's order.
#
# One CREW record 0 for all threads, and one per mm with its queue of memory that waits for a grace period. Fields that
# many threads write stand in cache lines of their own: ``align`` begins each.

crew = Struct(
    "crew",
    [
        # Line 0: read by everybody all the time, written by few and seldom.
        Field("thread_base", "i8", "slab THREAD", lock="constant"),
        Field("head_base", "i8", "slab RCU_HEAD", lock="constant"),
        Field("histogram_base", "i8", "slab HISTOGRAM", lock="constant"),
        Field("order_base", "i8", "slab ORDER", lock="constant"),
        Field("go", "i8", "1: the threads may begin", lock="the driver"),
        Field("stop", "i8", "1: come to an end at the end of the round", lock="the driver"),
        Field("gp_started", "i8", "number of the last grace period that began", lock="gp_lock"),
        Field("last_task", "i8", "the highest task that may be in an RCU section", lock="constant"),
        # Line 1
        Field("ready", "i8", "threads that wait for go", lock="atomic", align=64),
        Field("parties", "i8", "threads that meet at the barrier", lock="constant"),
        Field("arrived", "i8", "threads at the barrier", lock="atomic"),
        Field("stopped", "i8", "the last one at the barrier has seen stop", lock="who comes last"),
        # Line 2
        Field("generation", "i8", "how often the barrier has opened", lock="who comes last", align=64),
        # Line 3: RCU
        Field("gp_lock", "i8", "who moves grace periods on", lock="itself", align=64),
        Field("gp_completed", "i8", "number of the last grace period that is over", lock="gp_lock"),
        Field("gp_wanted", "i8", "somebody waits for this one", lock="racy hint"),
        Field("mapped", "i8", "how many mapping operations of an ordered trace have begun", lock="whose turn it is"),
        # Line 4, in the record of an mm: its queue
        Field("queue_lock", "i8", "spinlock of the queue", lock="itself", align=64),
        Field("queue_head", "i8", "oldest record that waits, an index of RCU_HEAD", lock="queue_lock"),
        Field("queue_tail", "i8", "youngest", lock="queue_lock"),
        Field("queued", "i8", "how many", lock="queue_lock"),
        Field("queued_peak", "i8", "most ever", lock="queue_lock"),
        Field("freed", "i8", "how many went back to their slab", lock="queue_lock"),
        Field("reclaims", "i8", "how often a slab was full and its allocation waited for the queue", lock="atomic"),
        # Line 5, likewise: locks that were not free
        Field("ptl_waits", "i8", "page-table locks: how often", lock="atomic", align=64),
        Field("ptl_cycles", "i8", "cycles spent waiting for them, all tasks together", lock="atomic"),
        Field("vma_waits", "i8", "VMAs' locks: how often", lock="atomic"),
        Field("vma_cycles", "i8", "likewise", lock="atomic"),
    ],
    size=384,
)

thread = Struct(
    "thread",
    [
        # Line 0: the task's own, and what RCU looks at.
        Field("rcu_seen", "i8", "grace period seen outside any section; 0: not in any", lock="the task; read by all"),
        Field("pages", "i8", "list of free frames, linked by page.cache", lock="the task"),
        Field("nr_pages", "i8", "how many", lock="the task"),
        Field("lock_waits", "i8", "how often mmap_lock was not free", lock="the task"),
        Field("lock_cycles", "i8", "cycles spent waiting for it", lock="the task"),
        Field("barrier_cycles", "i8", "cycles spent at the barrier", lock="the task"),
        Field("order_cycles", "i8", "cycles spent waiting for the order of a trace", lock="the task"),
        Field("leader", "i8", "the thread that plays this task, a task itself", lock="constant during a lap"),
        # Line 1: the work.
        Field("first", "i8", "first event", lock="constant"),
        Field("last", "i8", "after the last", lock="constant"),
        Field("rounds", "i8", "how often at most", lock="constant"),
        Field("barrier", "i8", "event at which the barrier stands, -1 none", lock="constant"),
        Field("checks", "i8", "1: compare each answer", lock="constant"),
        Field("samples", "i8", "1: time each operation", lock="constant"),
        Field("ordered", "i8", "1: mapping operations in the order of ORDER", lock="constant"),
        Field("total", "i8", "sum of all results: what is used is not left out by the compiler", lock="the task"),
        # Line 2: what was done until stop was seen.
        Field("faults", "i8", "page faults", lock="the task"),
        Field("lookups", "i8", "bare lookups", lock="the task"),
        Field("mappings", "i8", "mapping operations", lock="the task"),
        Field("done", "i8", "rounds, the last one too", lock="the task"),
        Field("began", "i8", "cycle count at the start", lock="the task"),
        Field("ended", "i8", "cycle count at the end of what is counted", lock="the task"),
        Field("checked", "i8", "answers compared", lock="the task"),
        Field("missed", "i8", "answers that differ because a later mapping operation was faster", lock="the task"),
        # Line 3
        Field("wrong", "i8", "answers that are wrong", lock="the task"),
        Field("wrong_event", "i8", "the first of them", lock="the task"),
        Field("wrong_ret", "i8", "what it said", lock="the task"),
        Field("wrong_start", "i8", "likewise", lock="the task"),
        Field("wrong_end", "i8", "likewise", lock="the task"),
        Field("walks", "i8", "walks of all VMAs, as line 2", lock="the task"),
    ],
    size=256,
)

rcu_head = Struct(
    "rcu_head",
    [
        Field("next", "i8", "the next that waits", lock="queue_lock"),
        Field("gp", "i8", "the grace period that must be over", lock="queue_lock"),
        Field("which", "i8", "its slab", lock="queue_lock"),
        Field("slot", "i8", "its index there", lock="queue_lock"),
    ],
)

histogram = Struct("histogram", [Field("count", "i8", "operations of this length", lock="the task")])

order = Struct(
    "order",
    [
        Field("after", "i8", "the mapping operation that must be done before, an event", lock="constant"),
        Field("number", "i8", "how many mapping operations stand before this event in the trace", lock="constant"),
        Field("done", "i8", "1: this mapping operation is done", lock="whoever does it"),
    ],
    size=32,
)

CREW = Slab("CREW", crew, "crew_base", first=0)
THREAD = Slab("THREAD", thread, "thread_base", first=0)
RCU_HEAD = Slab("RCU_HEAD", rcu_head, "head_base", first=0)
HISTOGRAM = Slab("HISTOGRAM", histogram, "histogram_base", first=0)
ORDER = Slab("ORDER", order, "order_base", first=0)

SUB, OCTAVES = 16, 36
"""Histograms: buckets per power of two (so a bucket is at most 1/16 wide), and powers of two above 16."""
BUCKETS = SUB * (OCTAVES + 1)
CLASSES = 4
"""Fault, lookup, mapping operation: CLASS_* of :mod:`benchframe.mm.replay`; and CLASS_WALK."""
CLASS_WALK = 3
"""A WALK. A replay without threads has no class for it: there it is timed as a mapping operation."""


# ----------------------------------------------------------------------------------------------------------------------
# RCU for real threads: quiescent states instead of read-side counters (kernel/rcu/tree.c without preemption).
#
# rcu_read_lock costs nothing: a section never outlives an operation, and between two operations a thread says so
# (:func:`rcu_quiescent`: a load, and one store per grace period). A grace period is over when every thread has been
# between operations, or was waiting for mmap_lock or at a barrier (offline), after it began. Whoever frees moves
# grace periods on; nobody waits for them. x86 and ARMv8: the orderings are named at each step.

QUEUE_LIMIT = 4096
"""Records of one mm that may wait for grace periods before its writer has to wait for them."""


@native
def rcu_quiescent(mm, task):
    """Between two operations: the task has no reference from any section."""
    crew = CREW(mm, 0)
    t = THREAD(crew, task)
    gp = load_acquire(crew, "gp_started")
    if gp != t.rcu_seen:
        store_release(t, "rcu_seen", gp)
        smp_mb()
    return 0


@native
def rcu_offline(mm, task):
    """The task will not read until rcu_online: nobody waits for it."""
    store_release(THREAD(CREW(mm, 0), task), "rcu_seen", 0)
    return 0


@native
def rcu_online(mm, task):
    """The task reads again: it has seen every grace period that had begun."""
    crew = CREW(mm, 0)
    WRITE_ONCE(THREAD(crew, task), "rcu_seen", READ_ONCE(crew, "gp_started"))
    smp_mb()
    return 0


@native
def gp_advance(mm):
    """Do one step unless another task is doing it: end the grace period that all tasks have seen, begin one that is
    needed."""
    crew = CREW(mm, 0)
    if READ_ONCE(crew, "gp_lock") != 0 or cmpxchg(crew, "gp_lock", 0, 1) != 0:
        return 0
    gp = crew.gp_started
    if crew.gp_completed != gp:
        seen = 1
        task = 1
        while task <= crew.last_task:
            at = load_acquire(THREAD(crew, task), "rcu_seen")
            if at != 0 and at < gp:
                seen = 0
                break
            task += 1
        if seen:
            store_release(crew, "gp_completed", gp)
    if crew.gp_completed == gp and READ_ONCE(crew, "gp_wanted") > gp:
        fetch_add(crew, "gp_started", 1)
    store_release(crew, "gp_lock", 0)
    return 0


@native
def kfree_rcu_shared(mm, which, slot):
    """Queue the record for the first grace period that begins after now, and free records that have waited long
    enough."""
    crew = CREW(mm, 0)
    queue = CREW(mm, mm.id)
    node = ARENA(mm, which).stack + slot
    head = RCU_HEAD(crew, node)
    head.which = which
    head.slot = slot
    head.next = NULL
    wait_then_add(queue, "queue_lock", -1, 1)
    smp_mb()  # what made the record unreachable comes before the look at the grace period
    gp = READ_ONCE(crew, "gp_started") + 1
    head.gp = gp
    if queue.queued == 0:
        queue.queue_head = node
    else:
        RCU_HEAD(crew, queue.queue_tail).next = node
    queue.queue_tail = node
    queue.queued += 1
    if queue.queued > queue.queued_peak:
        queue.queued_peak = queue.queued
    if READ_ONCE(crew, "gp_wanted") < gp:
        WRITE_ONCE(crew, "gp_wanted", gp)
    store_release(queue, "queue_lock", 0)
    gp_advance(mm)
    return rcu_give_back(mm)


@native
def synchronize_rcu_shared(mm, task):
    """Wait for a grace period that begins after now. It ends when the others' sections end; this task is quiescent
    meanwhile."""
    crew = CREW(mm, 0)
    me = THREAD(crew, task).leader
    rcu_offline(mm, me)
    smp_mb()
    gp = READ_ONCE(crew, "gp_started") + 1
    if READ_ONCE(crew, "gp_wanted") < gp:
        WRITE_ONCE(crew, "gp_wanted", gp)
    while load_acquire(crew, "gp_completed") < gp:
        gp_advance(mm)
        cpu_relax()
        cond_resched()
    rcu_online(mm, me)
    return 0


@native
def rcu_throttle(mm, task):
    """Between two operations of a task that frees faster than grace periods pass (for instance because a reading thread
    lost its core): wait until half of QUEUE_LIMIT is left. The kernel has memory for more, and hurries the readers
    (qhimark)."""
    queue = CREW(mm, mm.id)
    if READ_ONCE(queue, "queued") <= QUEUE_LIMIT:
        return 0
    rcu_offline(mm, task)
    while READ_ONCE(queue, "queued") > QUEUE_LIMIT // 2:
        gp_advance(mm)
        rcu_give_back(mm)
        cpu_relax()
        cond_resched()
    return rcu_online(mm, task)


@native
def rcu_reclaim(mm, which):
    """Slab ``which`` is full: advance grace periods until one of its records is free, or none is waiting. The caller
    holds mmap_lock for write and has no reference from a section; tasks that wait for the lock are not in a section
    either. The kernel's allocators do the same (kfree_rcu's shrinker, rcu_barrier before an allocation fails)."""
    crew = CREW(mm, 0)
    queue = CREW(mm, mm.id)
    me = THREAD(crew, mm.owner).leader
    fetch_add(queue, "reclaims", 1)
    rcu_offline(mm, me)
    while READ_ONCE(ARENA(mm, which), "free") == 0 and READ_ONCE(queue, "queued") > 0:
        gp_advance(mm)
        rcu_give_back(mm)
        cpu_relax()
        cond_resched()
    return rcu_online(mm, me)


@native
def rcu_give_back(mm):
    """Free the records of ``mm`` whose grace period is over."""
    crew = CREW(mm, 0)
    queue = CREW(mm, mm.id)
    wait_then_add(queue, "queue_lock", -1, 1)
    completed = load_acquire(crew, "gp_completed")
    while queue.queued > 0 and RCU_HEAD(crew, queue.queue_head).gp <= completed:
        head = RCU_HEAD(crew, queue.queue_head)
        queue.queue_head = head.next
        queue.queued -= 1
        queue.freed += 1
        free_queued(mm, head.which, head.slot)
    store_release(queue, "queue_lock", 0)
    return 0


@native
def free_queued(mm, which, slot):
    """Free a record whose grace period is over. The task that does this need not hold mmap_lock."""
    return arena_free(mm, which, slot)


@native
def start_poll_shared(mm):
    """start_poll_synchronize_rcu for several threads."""
    crew = CREW(mm, 0)
    smp_mb()  # what made the record unreachable comes before the look at the grace period
    gp = READ_ONCE(crew, "gp_started") + 1
    if READ_ONCE(crew, "gp_wanted") < gp:
        WRITE_ONCE(crew, "gp_wanted", gp)
    return gp


@native
def poll_state_shared(mm, number):
    """poll_state_synchronize_rcu for several threads; moves grace periods on."""
    crew = CREW(mm, 0)
    if load_acquire(crew, "gp_completed") >= number:
        return 1
    gp_advance(mm)
    return int(load_acquire(crew, "gp_completed") >= number)


# ----------------------------------------------------------------------------------------------------------------------
# The model for several threads: what the threaded build puts in the place of functions that assume one.
#
# The text of faults and mapping operations is the same; :data:`REPLACE` exchanges the few functions below, so the build
# for one thread pays nothing. Slabs get a lock; page frames come from a list of each task's own, filled and emptied in
# batches (the kernel's per-CPU page lists, mm/page_alloc.c); counters that only statistics read are atomic or dropped;
# memory given to kfree_rcu waits for a grace period (:mod:`benchframe.mm.smp`); time spent waiting for mmap_lock,
# for page-table locks and for VMAs' locks is noted.

BATCH, HIGH = 63, 2048
"""Frames moved at once, and the most that a task's list may hold: pcp->batch, and roughly pcp->high on a machine of a
few GiB since 5.13, when it began to follow the zone's size."""

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
    """arena_alloc under the slab's lock. If no VMA is free, wait for those that wait for RCU."""
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
    """A frame from the task's own list; if that is empty, take BATCH frames from the slab first (rmqueue_bulk)."""
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
    """Put the frame on the task's own list; if that is long, return BATCH frames to the slab (free_pcppages_bulk)."""
    t = THREAD(CREW(mm, 0), task)
    PAGE(mm, frame).cache = t.pages
    t.pages = frame
    t.nr_pages += 1
    if t.nr_pages > HIGH:
        pages_drain(mm, task, BATCH)
    return 0


@native
def pages_drain(mm, task, count):
    """Return ``count`` frames of the task's list to the slab, or all if there are fewer."""
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
    """Not kept: since 2.6.34 each task keeps its own count (SPLIT_RSS_COUNTING), and nothing reads the sum here."""
    return 0


@native
def add_tables_shared(mm, tables):
    """Faults add tables concurrently."""
    fetch_add(mm, "nr_ptes", tables)
    return 0


@native
def anon_vma_new_shared(mm):
    """All mms share one counter."""
    return fetch_add(MM(mm, 1), "nr_anon_vmas", 1) + 1


@native
def read_lock_watched(mm, task):
    """read_lock, recording the cost of waiting. A waiting task is quiescent for RCU."""
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
    """write_lock, recording the cost of waiting."""
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
    """spin_lock, recording the cost of waiting in the mm: the function does not know its task."""
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
    """lock_contended: the time now."""
    return cycles()


@native
def lock_acquired_timed(mm, since):
    """lock_acquired: record the time in the mm."""
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
    start_poll_synchronize_rcu: start_poll_shared,
    poll_state_synchronize_rcu: poll_state_shared,
    read_lock: read_lock_watched,
    write_lock: write_lock_watched,
    spin_lock: spin_lock_watched,
    lock_contended: lock_contended_timed,
    lock_acquired: lock_acquired_timed,
}
"""From a function of the model to what a threaded build calls instead. Calls within a replacement are not replaced, so
only replacements may call the originals."""
