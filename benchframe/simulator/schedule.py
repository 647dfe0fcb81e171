"""Scheduling: the CPU with the smallest clock runs; which CPU gets a busy line next; which CPUs wait for a write, and
are woken."""

from benchframe.dialect import native
from benchframe.dialect.primitives import Primitive
from benchframe.simulator.caches import distance, field_of
from benchframe.simulator.records import (
    BREATH,
    CPU,
    DEADLOCK,
    DONE,
    ENDED,
    FIELD,
    HEAP,
    KINDS,
    LIMIT,
    LINE,
    MAIN,
    PARKED,
    READY,
)

LATEST = (1 << 63) - 1
"""A key after all others."""
switch_stack = Primitive("switch_stack", lambda one, other: 0)
"""switch_stack(a, b): save this stack in CPU record ``a`` and continue with that of ``b``."""
run_thread = Primitive("run_thread", lambda sim, task: 0)
"""run_thread(sim, task): the whole thread."""


@native
def heap_push(sim, key):
    """A CPU is ready. O(log CPUs)."""
    at = sim.ready + 1
    sim.ready = at
    while at > 1 and HEAP(sim, at >> 1).key > key:
        HEAP(sim, at).key = HEAP(sim, at >> 1).key
        at = at >> 1
    HEAP(sim, at).key = key
    sim.top = HEAP(sim, 1).key
    return 0


@native
def heap_down(sim, key):
    """Replace the smallest key by ``key``."""
    at = 1
    child = 2
    while child <= sim.ready:
        if child < sim.ready and HEAP(sim, child + 1).key < HEAP(sim, child).key:
            child += 1
        if HEAP(sim, child).key >= key:
            child = sim.ready + 1
        else:
            HEAP(sim, at).key = HEAP(sim, child).key
            at = child
            child = 2 * at
    HEAP(sim, at).key = key
    sim.top = HEAP(sim, 1).key
    return 0


@native
def heap_pop(sim):
    """Remove and return the smallest key."""
    first = HEAP(sim, 1).key
    last = HEAP(sim, sim.ready).key
    sim.ready -= 1
    if sim.ready > 0:
        heap_down(sim, last)
    else:
        sim.top = LATEST
    return first


@native
def tell_host(sim, why):
    """Return to the host for a moment; it returns to the current CPU."""
    sim.reason = why
    switch_stack(CPU(sim, sim.current), CPU(sim, MAIN))
    return 0


@native
def pass_time(sim, now):
    """The smallest clock is ``now``: check whether the host wants to be called."""
    if now >= sim.mark:
        tell_host(sim, LIMIT)
    if sim.accesses >= sim.breath:
        tell_host(sim, BREATH)
    return 0


@native
def run_next(sim, to):
    """Continue with CPU ``to``, on its own stack."""
    one = sim.current
    sim.current = to
    sim.stepped += 1
    if to != one:
        switch_stack(CPU(sim, one), CPU(sim, to))
    return 0


@native
def give_way(sim, c, me):
    """Let all CPUs with a smaller clock run first."""
    key = c.clock << 8 | me
    if key > sim.top:
        first = HEAP(sim, 1).key
        heap_down(sim, key)
        pass_time(sim, first >> 8)
        run_next(sim, first & 255)
    elif sim.ready == 0:
        pass_time(sim, c.clock)
    return 0


@native
def leave(sim):
    """Run others until this CPU has been put into the heap and is first there. If all wait, that is a deadlock: then
    the host does not return."""
    while sim.ready == 0:
        tell_host(sim, DEADLOCK)
    first = heap_pop(sim)
    pass_time(sim, first >> 8)
    run_next(sim, first & 255)
    return 0


@native
def take_turn(sim, line, me):
    """The line is busy: queue for it until it is this CPU's turn; the clock is then that time.

    The order of the queue is: the CPU nearest to the last owner, ``batch`` times in a row; then the oldest request.
    """
    c = CPU(sim, me)
    c.granted = 0
    c.next_request = 0
    if line.head != 0:
        CPU(sim, line.tail - 1).next_request = me + 1
        line.tail = me + 1
        leave(sim)
    else:
        line.head = me + 1
        line.tail = me + 1
    while c.granted != 1:
        if line.free_at > c.clock:
            c.clock = line.free_at
            key = c.clock << 8 | me
            if key > sim.top:
                heap_push(sim, key)
                leave(sim)
        else:
            best = choose(sim, line)
            if best == me:
                if line.head != 0:
                    other = CPU(sim, line.head - 1)
                    other.granted = 2
                    other.clock = max(c.clock + 1, other.clock)
                    heap_push(sim, other.clock << 8 | line.head - 1)
                return 0
            other = CPU(sim, best)
            other.granted = 1
            other.clock = c.clock
            heap_push(sim, c.clock << 8 | best)
            c.clock += 1
            heap_push(sim, c.clock << 8 | me)
            leave(sim)
    return 0


@native
def choose(sim, line):
    """Remove the next request from the line's queue: returns its CPU."""
    best = line.head - 1
    before = -1
    if line.served != 0 and line.run < sim.batch:
        nearest = 9
        previous = -1
        at = line.head - 1
        while at >= 0:
            d = distance(sim, line.served - 1, at)
            if d < nearest:
                nearest = d
                best = at
                before = previous
            previous = at
            at = CPU(sim, at).next_request - 1
    if before < 0:
        line.run = 0
        line.head = CPU(sim, best).next_request
    else:
        line.run += 1
        CPU(sim, before).next_request = CPU(sim, best).next_request
    if line.tail == best + 1:
        line.tail = before + 1
    line.served = best + 1
    return best


@native
def park(sim, number, offset, front):
    """Wait for a write to the line. Nothing else runs between reading its value and this."""
    me = sim.current
    c = CPU(sim, me)
    line = LINE(sim, number)
    c.state = PARKED
    c.parked_at = c.clock
    c.parked_field = field_of(sim, line.region & 255, offset)
    if front or line.waiter == 0:
        c.next_waiter = line.waiter
        line.waiter = me + 1
    else:
        at = line.waiter - 1
        while CPU(sim, at).next_waiter != 0:
            at = CPU(sim, at).next_waiter - 1
        CPU(sim, at).next_waiter = me + 1
        c.next_waiter = 0
    leave(sim)
    return 0


@native
def wake(sim, line, at):
    """A write at time ``at``: all waiters read the line again; of those that wait for their turn only one does."""
    waiting = line.waiter - 1
    line.waiter = 0
    kept = 0
    last = -1
    woken = 0
    while waiting >= 0:
        c = CPU(sim, waiting)
        following = c.next_waiter - 1
        if c.exclusive and woken:
            c.next_waiter = 0
            if last < 0:
                kept = waiting + 1
            else:
                CPU(sim, last).next_waiter = waiting + 1
            last = waiting
        else:
            woken = woken | c.exclusive
            now = max(at, c.clock)
            FIELD(sim, c.parked_field * KINDS).wait += now - c.parked_at
            c.t_waiting += now - c.clock
            c.clock = now
            c.state = READY
            heap_push(sim, now << 8 | waiting)
        waiting = following
    line.waiter = kept
    return 0


@native
def live(sim):
    """A simulated CPU: its thread from beginning to end. Runs on a stack of its own and never returns."""
    me = sim.current
    CPU(sim, me).state = READY
    run_thread(sim, CPU(sim, me).task)
    CPU(sim, me).state = DONE
    sim.alive -= 1
    if sim.alive == 0:
        tell_host(sim, ENDED)
    leave(sim)
    return 0


@native
def resume(sim):
    """The host continues the simulation, which returns why it stopped: BREATH, ENDED, DEADLOCK or LIMIT."""
    if sim.current == MAIN:
        first = heap_pop(sim)
        sim.current = first & 255
    switch_stack(CPU(sim, MAIN), CPU(sim, sim.current))
    return sim.reason
