"""What one thread of a threaded run does: replay its events, round after round, with its checks and its clock.

Compiled with :data:`benchframe.mm.smp.REPLACE`. Threads are tasks: thread ``task`` has TASK and THREAD of that number;
its events name their own tasks (a thread may replay several recorded ones). A round leaves the address space as it
found it, so a thread always finishes its last round; counting ends where it sees ``stop``.
"""

from benchframe.dialect import (
    NULL,
    READ_ONCE,
    WRITE_ONCE,
    cycles,
    fetch_add,
    fls,
    native,
    store_release,
    wait_until,
)
from benchframe.events import UNKNOWN
from benchframe.mm.layout import ANSWER, EVENT, MM, VMA
from benchframe.mm.replay import CLASS_FAULT, CLASS_LOOKUP, CLASS_MAPPING, WALK, class_of, one_event
from benchframe.mm.smp import (
    BUCKETS,
    CLASS_WALK,
    CLASSES,
    CREW,
    HISTOGRAM,
    OCTAVES,
    ORDER,
    SUB,
    THREAD,
    gp_advance,
    pages_drain,
    rcu_give_back,
    rcu_offline,
    rcu_online,
    rcu_quiescent,
    rcu_throttle,
)

UNTOLD = UNKNOWN
"""The result in ANSWER if any result is acceptable."""
RUN, CLOCK, DRAIN, COST = 0, 1, 2, 3


@native
def bucket_of(value):
    """Histogram bucket of ``value`` cycles: exact below SUB, then SUB per power of two. O(1)."""
    if value < SUB:
        return max(value, 0)
    log = fls(value) - 1
    if log >= OCTAVES + 4:
        return BUCKETS - 1
    return (log - 3) * SUB + ((value >> (log - 4)) & (SUB - 1))


@native
def thread_class(kind):
    """CLASS_* of an event kind, CLASS_WALK included."""
    if kind == WALK:
        return CLASS_WALK
    return class_of(kind)


@native
def note_length(root, task, kind, length):
    """Add one operation of class ``kind`` that took ``length`` cycles."""
    HISTOGRAM(CREW(root, 0), (task * CLASSES + kind) * BUCKETS + bucket_of(length)).count += 1
    return 0


@native
def meet(root, task):
    """The barrier: wait for all threads. 1 if the last one saw ``stop``: then all end after this round."""
    crew = CREW(root, 0)
    start = cycles()
    generation = READ_ONCE(crew, "generation")
    if fetch_add(crew, "arrived", 1) == crew.parties - 1:
        WRITE_ONCE(crew, "arrived", 0)
        WRITE_ONCE(crew, "stopped", READ_ONCE(crew, "stop"))
        store_release(crew, "generation", generation + 1)
    else:
        rcu_offline(root, task)
        wait_until(crew, "generation", -1, generation + 1)
        rcu_online(root, task)
    THREAD(crew, task).barrier_cycles += cycles() - start
    return READ_ONCE(crew, "stopped")


@native
def await_turn(root, task, index):
    """In an ordered run: wait until all mapping operations before event ``index`` in the trace are done."""
    crew = CREW(root, 0)
    o = ORDER(crew, index)
    if o.after >= 0 and READ_ONCE(ORDER(crew, o.after), "done") == 0:
        start = cycles()
        rcu_offline(root, task)
        wait_until(ORDER(crew, o.after), "done", 1, 1)
        rcu_online(root, task)
        THREAD(crew, task).order_cycles += cycles() - start
    if class_of(EVENT(root, index).kind) == CLASS_MAPPING:
        WRITE_ONCE(crew, "mapped", o.number + 1)
    return 0


@native
def compare(root, task, index, kind, result):
    """Whether ``result`` is what ANSWER has for event ``index``. In an ordered run it may differ if a mapping operation
    that comes later in the trace has already begun."""
    crew = CREW(root, 0)
    t = THREAD(crew, task)
    a = ANSWER(root, index)
    t.checked += 1
    vm_start = -1
    vm_end = -1
    ret = result
    if kind < CLASS_MAPPING:
        if result > NULL:
            mm = MM(root, EVENT(root, index).mm + 1)
            vm_start = READ_ONCE(VMA(mm, result), "vm_start")
            vm_end = READ_ONCE(VMA(mm, result), "vm_end")
        if result >= 0 or kind == CLASS_LOOKUP:
            ret = 0
    if a.ret == UNTOLD:
        return 0
    if ret == a.ret and (kind >= CLASS_MAPPING or result <= NULL or (vm_start == a.vm_start and vm_end == a.vm_end)):
        return 0
    if t.ordered and kind < CLASS_MAPPING and READ_ONCE(crew, "mapped") > ORDER(crew, index).number:
        t.missed += 1
        return 0
    if t.wrong == 0:
        t.wrong_event = index
        t.wrong_ret = ret
        t.wrong_start = vm_start
        t.wrong_end = vm_end
    t.wrong += 1
    return 1


@native
def drive(root, task):
    """The main function of a thread: wait for ``go``, then do rounds until ``stop`` or ``rounds`` are done. Returns the
    number of rounds."""
    crew = CREW(root, 0)
    t = THREAD(crew, task)
    first = t.first
    last = t.last
    barrier = t.barrier
    ordered = t.ordered
    checks = t.checks
    samples = t.samples
    faults = 0
    lookups = 0
    mappings = 0
    walks = 0
    done = 0
    total = 0
    stopped = 0
    fetch_add(crew, "ready", 1)
    wait_until(crew, "go", 1, 1)
    rcu_online(root, task)
    began = cycles()
    start = began
    while done < t.rounds and stopped == 0:
        index = first
        while index < last:
            if stopped == 0:
                if index == barrier:
                    stopped = meet(root, task)
                elif barrier < 0:
                    stopped = READ_ONCE(crew, "stop")
                if stopped != 0:
                    t.ended = cycles()
                    t.faults = faults
                    t.lookups = lookups
                    t.mappings = mappings
                    t.walks = walks
            kind = thread_class(EVENT(root, index).kind)
            if ordered:
                await_turn(root, task, index)
            if samples:
                start = cycles()
            result = one_event(root, index)
            total += result
            if samples:
                note_length(root, task, kind, cycles() - start)
            if ordered and kind >= CLASS_MAPPING:
                store_release(ORDER(crew, index), "done", 1)
            if checks:
                compare(root, task, index, kind, result)
            rcu_quiescent(root, task)
            if kind == CLASS_FAULT:
                faults += 1
            elif kind == CLASS_LOOKUP:
                lookups += 1
            elif kind == CLASS_WALK:
                walks += 1
            else:
                mappings += 1
                rcu_throttle(MM(root, EVENT(root, index).mm + 1), task)
            index += 1
        done += 1
    if stopped == 0:
        t.ended = cycles()
        t.faults = faults
        t.lookups = lookups
        t.mappings = mappings
        t.walks = walks
    t.began = began
    t.done = done
    t.total = total
    rcu_offline(root, task)
    return done


@native
def drain(root, mms):
    """With every thread at rest: end grace periods until no record waits, and return the tasks' lists of frames to the
    slab. Returns the number of records that still wait: 0."""
    crew = CREW(root, 0)
    for _ in range(4):
        gp_advance(root)
    left = 0
    for number in range(1, mms + 1):
        mm = MM(root, number)
        if mm.id == number:
            rcu_give_back(mm)
            left += CREW(root, number).queued
    for task in range(1, crew.last_task + 1):
        pages_drain(root, task, THREAD(crew, task).nr_pages)
    return left


@native
def thread_entry(root, number, what):
    """The threaded unit: RUN task ``number``; CLOCK, the cycle counter; COST, what reading it costs; DRAIN the first
    ``number`` mms."""
    if what == CLOCK:
        return cycles()
    if what == COST:
        start = cycles()
        return cycles() - start
    if what == DRAIN:
        return drain(root, number)
    return drive(root, number)
