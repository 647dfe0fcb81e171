"""The functions that compiled code calls: before each load, store and atomic operation, where it waits, and around each
event; and the scheduling of the simulated CPUs.

The CPU with the smallest clock runs. Scheduling decides which CPU gets a busy line next, which CPUs wait for a write,
and which are woken. The effect of an access takes place right after its call returns, and nothing else runs in between.
So a CPU reads what all CPUs with a smaller clock have written.
"""

from benchframe.dialect import native
from benchframe.dialect.primitives import Primitive
from benchframe.mm.replay import CLASS_FAULT, CLASS_LOOKUP
from benchframe.mm.smp import BUCKETS, CLASS_WALK, CLASSES
from benchframe.mm.smp_replay import bucket_of
from benchframe.simulator.caches import (
    MEMORY,
    OTHER_SOCKET,
    distance,
    evict,
    far_hit,
    fetch,
    field_of,
    fill,
    into_private,
    near_hit,
    note,
)
from benchframe.simulator.machines import (
    ATOMIC,
    BREATH,
    COUNTED,
    CPU,
    DEADLOCK,
    DONE,
    ENDED,
    FIELD,
    FREE,
    HEAP,
    KINDS,
    LENGTHS,
    LIMIT,
    LINE,
    LOAD,
    MAIN,
    MIXED,
    PARKED,
    READY,
    REGION,
    REMAP,
    SHARERS,
    STORE,
    UNSEEN,
    WORD,
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


@native
def region_of(sim, address):
    """The slab that contains ``address``; -1 if none does."""
    for i in range(sim.regions):
        r = REGION(sim, i)
        if address >= r.base and address < r.base + r.size:
            return i
    return -1


@native
def placed(sim, number, offset):
    """The line that an access to line ``number`` counts for: itself, another one if its slab has a layout of its own,
    or -1 if it costs nothing. For most lines it is looked up only once."""
    line = LINE(sim, number)
    if line.place == UNSEEN:
        which = region_of(sim, sim.low + offset)
        line.place = FREE
        if which >= 0 and REGION(sim, which).counted:
            line.region = which
            line.place = COUNTED
            if REGION(sim, which).remap >= 0:
                line.place = MIXED
    if line.place == FREE:
        return -1
    if line.place == COUNTED:
        return number
    which = line.region & 255
    r = REGION(sim, which)
    inside = sim.low + offset - r.base
    record = inside // r.record
    where = REMAP(sim, r.remap + ((inside - record * r.record) >> 3)).line
    if where < 0:
        return -1
    if r.first == 0:
        return number
    moved = r.first + record * r.lines + where
    other = LINE(sim, moved)
    if other.place == UNSEEN:
        other.region = which
        other.place = COUNTED
    return moved


@native
def access(sim, address, count, kind):
    """``count`` instructions, then an access to ``address``; returns the number of its line, -1 if it costs nothing."""
    sim.pending += count
    offset = address - sim.low
    if offset < 0 or offset >= sim.span:
        return -1
    number = offset >> 6
    line = LINE(sim, number)
    if line.place != COUNTED:
        number = placed(sim, number, offset)
        if number < 0:
            return -1
        line = LINE(sim, number)
    me = sim.current
    c = CPU(sim, me)
    if sim.free:
        if sim.warming:
            fill(sim, line, number, me, kind)
        if sim.coast:
            sim.idle += 1
            if sim.idle & 65535 == 0:  # a spinning CPU must let others run
                c.clock += 1000000
                give_way(sim, c, me)
        if kind != LOAD and line.waiter != 0:  # last, so that whoever is woken sees the effect
            wake(sim, line, c.clock)
        return number
    spent = sim.pending * sim.insn
    sim.pending = 0
    c.t_instructions += spent
    if c.drift != 0:
        late = max(c.drift, -spent)
        c.drift -= late
        c.t_jitter += late
        spent += late
    c.clock += spent
    c.accesses += 1
    sim.accesses += 1
    if c.stolen != 0:
        c.t_shootdowns += c.stolen
        c.clock += c.stolen
        c.stolen = 0
    sharers = SHARERS(sim, number * 16 + (me >> 6))
    bit = 1 << (me & 63)
    alone = line.owner == me + 1 and line.moved == 0 and line.free_at <= c.clock
    if (
        not (alone and c.clock < (sim.top >> 8) + sim.quantum)
        and not (kind == LOAD and sharers.value & bit != 0 and c.clock < (sim.top >> 8) + sim.quantum_shared)
    ) or sim.ready == 0:
        give_way(sim, c, me)
    if kind == ATOMIC and c.store_last > c.clock:
        c.t_stores += c.store_last - c.clock
        c.clock = c.store_last
        give_way(sim, c, me)
    have = int(sharers.value & bit != 0)
    if c.keep_line == number and c.clock < c.keep_until:
        # Another CPU has requested the line, and it has not left yet.
        if kind == ATOMIC:
            c.t_atomics += sim.atomic
            c.clock += sim.atomic
    elif have and (kind == LOAD or line.owner == me + 1):
        if not near_hit(sim, me, number):
            victim = far_hit(sim, me, number)
            if victim > 0:
                evict(sim, me, victim - 1)
            if kind != STORE:
                c.t_private += sim.l2
                c.clock += sim.l2
        if kind == ATOMIC:
            c.t_atomics += sim.atomic
            c.clock += sim.atomic
    else:
        transact(sim, line, number, offset, kind, me, have)
    if kind != LOAD:
        line.written = offset + 1
        if line.waiter != 0:
            at = c.clock
            if kind == STORE and c.store_last > at:
                at = c.store_last
            wake(sim, line, at)
    return number


@native
def transact(sim, line, number, offset, kind, me, have):
    """The line must be transferred, or others must give it up. A load or an atomic operation waits for it; a store does
    not unless the store buffer is full."""
    c = CPU(sim, me)
    if line.llc != 0 or line.owner != 0:
        line.moved = 1
    asked = c.clock
    if kind == STORE and c.store_last > asked:
        asked = c.store_last
    start = max(asked, line.free_at)
    if sim.batch and kind != STORE and (start > asked or line.head != 0):
        take_turn(sim, line, me)
        start = max(c.clock, line.free_at)
        have = int(SHARERS(sim, number * 16 + (me >> 6)).value & (1 << (me & 63)) != 0)
    else:
        line.served = me + 1
    found = fetch(sim, line, number, me, kind, start, have)
    came = found & 3
    latency = found >> 2
    if kind == ATOMIC:
        latency += sim.atomic
        line.free_at += sim.atomic
    done = start + latency
    note(sim, line, offset, kind, latency, start - asked, int(came == OTHER_SOCKET))
    c.transfers += 1
    if kind == STORE:
        c.store_last = done
        if done > c.clock + sim.store_buffer:
            c.t_stores += done - sim.store_buffer - c.clock
            c.clock = done - sim.store_buffer
    else:
        c.t_queueing += start - asked
        if came == MEMORY:
            c.t_memory += latency
        else:
            c.t_transfers += latency
        c.clock = done
    if kind != LOAD:
        for w in range(4):
            SHARERS(sim, number * 16 + w).value = 0
        line.owner = me + 1
        line.llc = 0
    mask = SHARERS(sim, number * 16 + (me >> 6))
    mask.value = mask.value | 1 << (me & 63)
    into_private(sim, me, number)
    give_way(sim, c, me)  # the effect takes place when the line has arrived
    return 0


@native
def sim_range(sim, address, length, kind, count):
    """Before memset and memcpy: read or write every line of the range."""
    at = address
    more = count
    while at < address + length:
        access(sim, at, more, kind)
        more = 4
        at = (at & ~63) + 64
    return 0


@native
def sim_barrier(sim, count):
    """A full barrier: stores leave the store buffer first."""
    sim.pending += count
    c = CPU(sim, sim.current)
    if not sim.free and c.store_last > c.clock:
        c.t_stores += c.store_last - c.clock
        c.clock = c.store_last
    return 0


@native
def sim_relax(sim):
    """cpu_relax: a short time, and others run first."""
    me = sim.current
    c = CPU(sim, me)
    c.clock += sim.pause
    c.t_waiting += sim.pause
    give_way(sim, c, me)
    return 0


@native
def sim_clock(sim):
    """This CPU's time in ps: the value of cycles() here."""
    c = CPU(sim, sim.current)
    return c.clock + sim.pending * sim.insn


@native
def held_up(value, mask, wanted, unlike):
    """Whether a CPU must wait. ``unlike`` 0: until the masked value is ``wanted``, 1: while it is."""
    if value & mask == wanted:
        return unlike
    return 1 - unlike


@native
def sim_wait(sim, address, mask, wanted, unlike, exclusive):
    """wait_until and wait_while: read once, and if the wait does not end, not again until the line was written. A write
    wakes all waiters, but only one of the exclusive ones. A waiter that still must wait does not read the line, so a
    crowd of waiters costs its queue but no traffic. Returns 0."""
    number = access(sim, address, 2, LOAD)
    word = address >> 3
    if not held_up(WORD(sim, word).value, mask, wanted, unlike):
        return 0
    c = CPU(sim, sim.current)
    since = c.clock
    front = 0
    c.exclusive = exclusive
    while held_up(WORD(sim, word).value, mask, wanted, unlike):
        park(sim, number, address - sim.low, front)
        front = exclusive
        if exclusive:  # it spins: it reads the line after every write, whatever was written
            access(sim, address, 2, LOAD)
    if sim.wake_after and c.clock - since > sim.wake_after:
        c.t_waiting += sim.wake
        c.clock += sim.wake
    access(sim, address, 2, LOAD)
    return 0


@native
def sim_wait_then_add(sim, address, mask, delta):
    """wait_then_add: one atomic operation if the lock is free. If the mask has every bit this is an exclusive lock: a
    queued spinlock, whose first waiter reads it when it is released."""
    word = WORD(sim, address >> 3)
    number = access(sim, address, 2, ATOMIC)
    before = word.value
    if mask == -1:
        if before == 0:
            word.value = delta
            return 0
    else:
        word.value = before + delta
        if before & mask == 0:
            return before
        access(sim, address, 2, ATOMIC)
        word.value -= delta
    c = CPU(sim, sim.current)
    exclusive = int(mask == -1)
    front = 0
    taken = 0
    while not taken:
        access(sim, address, 2, LOAD)
        seen = word.value
        if seen & mask == 0:
            access(sim, address, 2, ATOMIC)
            before = word.value
            if before == seen:
                word.value = seen + delta
                taken = 1
        else:
            c.exclusive = exclusive
            park(sim, number, address - sim.low, front)
            front = exclusive
    return before


@native
def sim_work(sim, which):
    """Declared work: of an event of class ``which``, or PAGE_WORK or LINE_WORK (:mod:`benchframe.simulator.build`)."""
    if sim.free:
        return 0
    c = CPU(sim, sim.current)
    time = sim.work_line
    if which == CLASS_FAULT:
        time = sim.work_fault
    elif which == CLASS_LOOKUP:
        time = sim.work_lookup
    elif which < CLASSES:
        time = sim.work_mapping
    elif which == CLASSES:
        time = sim.work_page
    c.t_work += time
    c.clock += time
    return 0


@native
def sim_begin(sim, which):
    """An event of a class begins: the jitter, then the declared work of entry and exit."""
    c = CPU(sim, sim.current)
    if not sim.free:
        if sim.jitter:
            x = c.random
            x = x ^ (x << 13)
            x = x ^ ((x >> 7) & ((1 << 57) - 1))
            x = x ^ (x << 17)
            c.random = x
            c.drift += ((x >> 33) & ((1 << 30) - 1)) % sim.jitter - sim.jitter // 2
        spent = sim.pending * sim.insn
        sim.pending = 0
        c.t_instructions += spent
        c.clock += spent
    c.began = c.clock
    c.counted_from = c.accesses
    sim_work(sim, which)
    return 0


@native
def sim_end(sim, which):
    """The event ends."""
    c = CPU(sim, sim.current)
    if which == CLASS_FAULT:
        c.done_fault += 1
        c.in_fault += c.accesses - c.counted_from
    elif which == CLASS_LOOKUP:
        c.done_lookup += 1
        c.in_lookup += c.accesses - c.counted_from
    elif which == CLASS_WALK:
        c.done_walk += 1
        c.in_walk += c.accesses - c.counted_from
    else:
        c.done_mapping += 1
        c.in_mapping += c.accesses - c.counted_from
    took = c.clock + sim.pending * sim.insn - c.began
    LENGTHS(sim, which * BUCKETS + bucket_of(took)).count += 1
    return 0


@native
def sim_uncounted(sim, on):
    """1: what follows costs nothing; 0: it costs again."""
    if on:
        c = CPU(sim, sim.current)
        spent = sim.pending * sim.insn
        sim.pending = 0
        if not sim.free:
            c.t_instructions += spent
            c.clock += spent
        sim.free += 1
    else:
        sim.pending = 0
        sim.free -= 1
    return 0


@native
def sim_shootdown(sim, mm):
    """flush_tlb_mm_range: an interrupt to every other CPU that runs a thread of the address space, and an answer from
    each; a waiting CPU is in lazy TLB mode and gets none. They lose the time when they next do anything; the sender
    waits for one handler and both ways."""
    if sim.ipi_send == 0 or sim.free:
        return 0
    c = CPU(sim, sim.current)
    sent = 0
    for i in range(sim.cpus):
        other = CPU(sim, i)
        if i != sim.current and other.state == READY and (other.mm == mm or other.mm == 0):
            other.stolen += sim.ipi_handle
            sent += 1
    if sent:
        time = sent * sim.ipi_send + sim.ipi_handle + 2 * sim.far
        c.t_shootdowns += time
        c.clock += time
    return 0
