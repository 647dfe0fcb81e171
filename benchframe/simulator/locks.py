"""The model in simulated runs: the threaded build, and the surrounding work of a kernel.

mmap_lock's writers spin as in Linux, one at a time (osq_lock); frames, faults and calls cost the declared work; the
comparison with the oracle costs nothing; TLB flushes are reported to the simulator.
"""

from benchframe.dialect import READ_ONCE, native
from benchframe.dialect.functions import Binding, Native, instance, made_from
from benchframe.dialect.primitives import Primitive
from benchframe.mm.hooks import flush_tlb, show_map
from benchframe.mm.kmem import threads
from benchframe.mm.layout import EVENT
from benchframe.mm.locks import READERS, SPINS, WRITER, rwsem_optimistic_spin, rwsem_try_write_lock_unqueued
from benchframe.mm.replay import one_event
from benchframe.mm.slab import page_alloc
from benchframe.mm.smp import CLASSES, REPLACE, page_alloc_shared
from benchframe.mm.smp_replay import compare, thread_class

wait_one = Primitive("wait_one", lambda ref, field, mask, value: 0)
"""wait_until for waiters with a queue of their own: a write wakes the first of them."""
sim_work = Primitive("sim_work", lambda which: 0)
sim_begin = Primitive("sim_begin", lambda which: 0)
sim_end = Primitive("sim_end", lambda which: 0)
sim_uncounted = Primitive("sim_uncounted", lambda on: 0)
sim_shootdown = Primitive("sim_shootdown", lambda mm: 0)
PAGE_WORK, LINE_WORK = CLASSES, CLASSES + 1
"""What ``sim_work`` is told beside the class of an event."""


@native
def rwsem_spin_queued(sem):
    """rwsem_optimistic_spin as in Linux: spinners wait in a queue of their own (osq_lock), and only
    its head reads the lock. If there are readers inside, a writer queues up at once; Linux first spins some
    microseconds on them."""
    looks = 0
    while looks < SPINS:
        if READ_ONCE(sem, "count") & READERS:
            return 0
        wait_one(sem, "count", WRITER, 0)
        if rwsem_try_write_lock_unqueued(sem):
            return 1
        looks += 1
    return 0


@native
def page_alloc_simulated(mm, task):
    """page_alloc_shared, and the kernel's work on a frame: clearing, accounting, LRU, rmap (declared work)."""
    sim_work(PAGE_WORK)
    return page_alloc_shared(mm, task)


@native
def one_event_simulated(root, index):
    """one_event, and the surrounding work: entry and exit of the kernel (declared work)."""
    kind = thread_class(EVENT(root, index).kind)
    sim_begin(kind)
    result = one_event(root, index)
    sim_end(kind)
    return result


@native
def compare_simulated(root, task, index, kind, result):
    """compare, at no cost: every answer of a simulated run is compared."""
    sim_uncounted(1)
    wrong = compare(root, task, index, kind, result)
    sim_uncounted(0)
    return wrong


@native
def flush_tlb_simulated(mm, start, end):
    """flush_tlb_mm_range: interrupts to the CPUs that run the address space."""
    return sim_shootdown(mm.id)


@native
def show_map_simulated(mm, task, start, end):
    """show_map_vma: the text of one line (declared work)."""
    return sim_work(LINE_WORK)


SIMULATED_REPLACE: dict[Native, Native] = {
    **REPLACE,
    page_alloc: page_alloc_simulated,
    one_event: one_event_simulated,
    compare: compare_simulated,
    flush_tlb.default: flush_tlb_simulated,
    show_map.default: show_map_simulated,
    rwsem_optimistic_spin: rwsem_spin_queued,
}
"""From a function of the model to what a simulated build calls instead."""


def replacements(allocator: Binding) -> dict[Native, Native]:
    """SIMULATED_REPLACE with an allocator (empty: none) for every rw_semaphore that exists by now: mmap_lock's, and
    those of strategies."""
    found: dict[Native, Native] = dict(threads(allocator, SIMULATED_REPLACE))
    for made, words in made_from(rwsem_optimistic_spin):
        found[made] = instance(rwsem_spin_queued, words)
    return found
