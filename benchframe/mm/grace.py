"""RCU for real threads: quiescent states instead of read-side counters (kernel/rcu/tree.c without preemption).

rcu_read_lock costs nothing: a section never outlives an operation, and between two operations a thread says so
(:func:`rcu_quiescent`: a load, and one store per grace period). A grace period is over when every thread has been
between operations, or was waiting for mmap_lock or at a barrier (offline), after it began. Whoever frees moves
grace periods on; nobody waits for them. x86 and ARMv8: the orderings are named at each step.
"""

from benchframe.dialect import (
    NULL,
    READ_ONCE,
    WRITE_ONCE,
    cmpxchg,
    cond_resched,
    cpu_relax,
    fetch_add,
    load_acquire,
    native,
    smp_mb,
    store_release,
    wait_then_add,
)
from benchframe.mm.arena import arena_free
from benchframe.mm.crew import CREW, RCU_HEAD, THREAD
from benchframe.mm.layout import ARENA

QUEUE_LIMIT = 4096
"""Records of one mm that may wait for grace periods before its writer waits for them."""


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
    """One step, if nobody else is at it: end the grace period that everybody has seen, begin one that is wanted."""
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
    """Queue the record for the first grace period that begins after now, and give back what has waited long enough."""
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
    """Wait for a grace period that begins after now; others' sections end it, this task is quiescent meanwhile."""
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
    """Between two operations of a task that frees more than grace periods keep up with (a thread that reads lost its
    core): wait until half of QUEUE_LIMIT is left. The kernel has memory for more, and urges the readers (qhimark)."""
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
    """Slab ``which`` is full: urge grace periods on until one of its records is back, or nothing waits any more. The
    caller holds mmap_lock for write and has no reference from a section; who waits for the lock is in none either. The
    kernel's allocators do likewise (kfree_rcu's shrinker, rcu_barrier before an allocation fails)."""
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
    """The records of ``mm`` whose grace period is over go to their slabs."""
    crew = CREW(mm, 0)
    queue = CREW(mm, mm.id)
    wait_then_add(queue, "queue_lock", -1, 1)
    completed = load_acquire(crew, "gp_completed")
    while queue.queued > 0 and RCU_HEAD(crew, queue.queue_head).gp <= completed:
        head = RCU_HEAD(crew, queue.queue_head)
        queue.queue_head = head.next
        queue.queued -= 1
        queue.freed += 1
        arena_free(mm, head.which, head.slot)
    store_release(queue, "queue_lock", 0)
    return 0
