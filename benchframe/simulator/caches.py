"""Caches and the directory: which CPUs have a line, how far it must be transferred, and what is evicted for it.

A line is in memory only, shared by some CPUs, or owned by one that may write it. Every CPU has two private caches; a
domain of CPUs shares a last-level cache, which keeps the lines that its CPUs evicted. Writing takes the line away from
all others. The distance of a transfer is a class: the same domain, the same socket, another socket, memory.
"""

from benchframe.dialect import native
from benchframe.simulator.machines import (
    CPU,
    FAR_TAG,
    FIELD,
    KINDS,
    LINE,
    LLC_TAG,
    LOAD,
    MAX_PAIRS,
    MAX_WORDS,
    MEMORY_WAYS,
    NEAR_TAG,
    PAIR,
    REGION,
    SHARERS,
    SOCKET,
    WAYS,
)

DOMAIN, SAME_SOCKET, OTHER_SOCKET, MEMORY, NOWHERE = 0, 1, 2, 3, -1
"""The distance of a line's source."""

GOLDEN_RATIO_32 = 0x61C88647
"""include/linux/hash.h"""


@native
def way(sim, which):
    """The latency of a distance class."""
    if which == DOMAIN:
        return sim.near
    if which == SAME_SOCKET:
        return sim.socket
    return sim.far


@native
def distance(sim, one, other):
    """The distance class of two CPUs."""
    if one // sim.per_domain == other // sim.per_domain:
        return DOMAIN
    if one // sim.per_socket == other // sim.per_socket:
        return SAME_SOCKET
    return OTHER_SOCKET


@native
def farthest(sim, number, me):
    """The distance class of the farthest other CPU than ``me`` that has line ``number``; NOWHERE if there is none."""
    c = CPU(sim, me)
    found = NOWHERE
    for w in range(4):
        mask = SHARERS(sim, number * 16 + w).value
        if w == me >> 6:
            mask = mask & ~(1 << (me & 63))
        if mask != 0:
            near = c.near0
            same = c.same0
            if w == 1:
                near = c.near1
                same = c.same1
            elif w == 2:
                near = c.near2
                same = c.same2
            elif w == 3:
                near = c.near3
                same = c.same3
            if mask & ~same != 0:
                return OTHER_SOCKET
            if mask & ~near != 0:
                found = SAME_SOCKET
            elif found == NOWHERE:
                found = DOMAIN
    return found


@native
def in_llc(line, c):
    """The distance class of the nearest last-level cache with the line; NOWHERE if there is none."""
    if line.llc == 0:
        return NOWHERE
    if line.llc & c.domain != 0:
        return DOMAIN
    if line.llc & c.domains != 0:
        return SAME_SOCKET
    return OTHER_SOCKET


@native
def near_hit(sim, me, number):
    """Whether the line is in the first private cache. Afterwards it is, as the most recent of its set."""
    at = (me * sim.l1_sets + (number & (sim.l1_sets - 1))) * WAYS
    before = NEAR_TAG(sim, at).line
    wanted = number + 1
    if before == wanted:
        return 1
    NEAR_TAG(sim, at).line = wanted
    for i in range(1, WAYS):
        here = NEAR_TAG(sim, at + i).line
        NEAR_TAG(sim, at + i).line = before
        before = here
        if here == wanted:
            return 1
    return 0


@native
def far_hit(sim, me, number):
    """The same for the second private cache: 0 if the line was there, else the evicted line + 1; -1 if none was
    evicted."""
    at = (me * sim.l2_sets + (number & (sim.l2_sets - 1))) * WAYS
    before = FAR_TAG(sim, at).line
    wanted = number + 1
    if before == wanted:
        return 0
    FAR_TAG(sim, at).line = wanted
    for i in range(1, WAYS):
        here = FAR_TAG(sim, at + i).line
        FAR_TAG(sim, at + i).line = before
        before = here
        if here == wanted:
            return 0
    if before == 0:
        return -1
    return before


@native
def keep_in_llc(sim, line, number, c):
    """The last-level cache of ``c``'s domain takes a line; if its set is full, the oldest line is evicted."""
    line.llc = line.llc | c.domain
    if sim.llc_sets == 0:
        return 0
    which = 0
    while c.domain >> which != 1:
        which += 1
    at = (which * sim.llc_sets + (number & (sim.llc_sets - 1))) * MEMORY_WAYS
    before = number + 1
    for i in range(MEMORY_WAYS):
        here = LLC_TAG(sim, at + i).line
        LLC_TAG(sim, at + i).line = before
        before = here
        if here == number + 1 or here == 0:
            return 0
    gone = LINE(sim, before - 1)
    gone.llc = gone.llc & ~c.domain
    return 0


@native
def into_private(sim, me, number):
    """Put the line into both private caches; evicted lines go to the last-level cache."""
    near_hit(sim, me, number)
    victim = far_hit(sim, me, number)
    if victim > 0:
        evict(sim, me, victim - 1)
    return 0


@native
def evict(sim, me, number):
    """``me`` evicts a line for lack of space."""
    mask = SHARERS(sim, number * 16 + (me >> 6))
    bit = 1 << (me & 63)
    if mask.value & bit != 0:
        line = LINE(sim, number)
        mask.value = mask.value & ~bit
        if line.owner == me + 1:
            line.owner = 0
        keep_in_llc(sim, line, number, CPU(sim, me))
    return 0


@native
def from_memory(sim, line, c, at):
    """The latency of a line from memory at time ``at``: its socket's controller serves one line at a time, and memory
    belongs to the socket that touched it first."""
    home = line.region >> 8
    if home == 0:
        home = c.socket + 1
        line.region = line.region | home << 8
    latency = sim.memory
    if home != c.socket + 1:
        latency += sim.far - sim.socket
    if sim.memory_service == 0:
        return latency
    controller = SOCKET(sim, home - 1)
    start = max(at, controller.free_at)
    controller.free_at = start + sim.memory_service
    return latency + start - at


@native
def fill(sim, line, number, me, kind):
    """As :func:`fetch`, without its time: what a round that does not count leaves in the caches."""
    c = CPU(sim, me)
    mask = SHARERS(sim, number * 16 + (me >> 6))
    bit = 1 << (me & 63)
    if line.region >> 8 == 0:
        line.region = line.region | (c.socket + 1) << 8
    have = int(mask.value & bit != 0)
    if not (have and (kind == LOAD or line.owner == me + 1)):
        if line.llc != 0 or line.owner != 0:
            line.moved = 1
        if line.owner != 0 and line.owner != me + 1:
            line.llc = line.llc | CPU(sim, line.owner - 1).domain
            line.owner = 0
        if kind != LOAD:
            for w in range(4):
                SHARERS(sim, number * 16 + w).value = 0
            line.llc = 0
            line.owner = me + 1
        elif line.llc == 0 and farthest(sim, number, me) == NOWHERE:
            line.owner = me + 1
        mask.value = mask.value | bit
    into_private(sim, me, number)
    return 0


@native
def field_of(sim, number, offset):
    """The field at ``offset`` bytes from the first modelled one, of a line of region ``number``: region << 7 | word."""
    r = REGION(sim, number)
    word = ((offset + sim.low - r.base) % r.record) >> 3
    return number * MAX_WORDS + min(word, MAX_WORDS - 1)


@native
def note(sim, line, offset, kind, time, queue, far):
    """Count a transaction for the field at ``offset``, and for its pair with the field written last in the line."""
    number = line.region & 255
    here = field_of(sim, number, offset)
    f = FIELD(sim, here * KINDS + kind)
    f.n += 1
    f.time += time
    f.queue += queue
    f.far += far
    key = (here << 16) + 65536
    if line.written != 0:
        key = (here << 16) + field_of(sim, number, line.written - 1) + 1
    slot = (key * GOLDEN_RATIO_32 >> 12) & (MAX_PAIRS - 1)
    for i in range(64):
        p = PAIR(sim, (slot + i) & (MAX_PAIRS - 1))
        if p.n == 0 or p.key == key:
            p.key = key
            p.n += 1
            p.time += time + queue
            return 0
    return 0


@native
def fetch(sim, line, number, me, kind, start, have):
    """Transfer the line to ``me`` at ``start``: returns its latency << 2 | its class. Updates the directory except for
    the new holder; ``line.free_at`` is when the next request can be served."""
    c = CPU(sim, me)
    if line.owner != 0:
        came = distance(sim, me, line.owner - 1)
        latency = way(sim, came)
        owner = CPU(sim, line.owner - 1)
        owner.keep_line = number
        owner.keep_until = start + min(sim.hold, latency)
        if kind == LOAD:
            line.llc = line.llc | owner.domain
            line.owner = 0
        line.free_at = start + latency
        return latency << 2 | came
    came = in_llc(line, c)
    latency = 0
    if kind == LOAD or not have:
        if came == NOWHERE:
            came = MEMORY
            latency = from_memory(sim, line, c, start)
        elif came == DOMAIN:
            latency = sim.llc
        else:
            latency = way(sim, came)
        if kind == LOAD:
            line.free_at = start + min(sim.read_occupancy, latency)
            if came == MEMORY:
                line.owner = me + 1
            return latency << 2 | came
    far = farthest(sim, number, me)
    if far != NOWHERE:
        if way(sim, far) > latency:
            latency = way(sim, far)
            came = far
    elif have:
        latency = sim.llc
        came = DOMAIN
    line.free_at = start + latency
    return latency << 2 | came
