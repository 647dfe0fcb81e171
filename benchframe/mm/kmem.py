"""Caches of objects for an allocator: their records, and how arena_alloc and its kin reach it (mm/slub.c, 6.12, 6.18).

A cache's objects are slots of one slab of the model. An allocator groups them into *slabs*, and keeps free ones per
CPU, per node, and in *sheaves*. The records here have room for all of that; which of them an allocator uses is its own
matter. What is free stands in exactly one place (:func:`benchframe.mm.validate.free_objects`).
"""

from benchframe.dialect.functions import Binding, Native, Replacements, native
from benchframe.dialect.records import NULL, Field, Slab, Struct
from benchframe.mm import hooks
from benchframe.mm.layout import (
    ARENA,
    FREED,
    arena_alloc,
    arena_free,
    arena_room,
    kfree_rcu,
    kmem_cache_prefill,
    kmem_cache_return,
)
from benchframe.mm.smp import (
    CREW,
    REPLACE,
    THREAD,
    arena_alloc_shared,
    arena_free_shared,
    arena_lock,
    arena_unlock,
    free_queued,
    kfree_rcu_shared,
)

# ----------------------------------------------------------------------------------------------------------------------
# Records. ARENA's record 0 leads to KMEM, and each record of KMEM to the others.

SHEAF_CAPACITY = 32
"""Objects of a sheaf: sheaf_capacity of maple_node and vm_area_struct, 59faa4da7cd4 and 3accabda4da1 (6.18)."""
PARKED = 2048
"""Objects of each cache, per CPU, that may be free in the allocator or wait for a grace period."""
NODES = 8
"""Most memory nodes. Without simulated CPUs there is one."""

kmem_cache = Struct(
    "kmem_cache",
    [
        Field("node_base", "i8", "slab KMEM_NODE", lock="constant", model=True),
        Field("cpu_base", "i8", "slab KMEM_CPU", lock="constant", model=True),
        Field("object_base", "i8", "slab KMEM_OBJECT", lock="constant", model=True),
        Field("slabs_base", "i8", "slab KMEM_SLAB", lock="constant", model=True),
        Field("sheaf_base", "i8", "slab KMEM_SHEAF", lock="constant", model=True),
        Field("in_sheaf_base", "i8", "slab IN_SHEAF", lock="constant", model=True),
        Field(
            "objects", "i8", "objects of a slab (oo_objects); 0: no cache; -n: on the stack, n per CPU", lock="constant"
        ),
        Field("cpu_partial_slabs", "i8", "partial slabs that a CPU keeps (slub_set_cpu_partial)", lock="constant"),
        Field("first_node", "i8", "its first record in KMEM_NODE", lock="constant", model=True),
        Field("first_cpu", "i8", "... in KMEM_CPU", lock="constant", model=True),
        Field(
            "first_object", "i8", "... in KMEM_OBJECT; on the stack: the record of CPU 1", lock="constant", model=True
        ),
        Field("first_slab", "i8", "... in KMEM_SLAB", lock="constant", model=True),
        Field("first_sheaf", "i8", "... in KMEM_SHEAF", lock="constant", model=True),
        Field(
            "max_sheaves",
            "i8",
            "no more are made; one per CPU is left for those that looked before",
            lock="constant",
            model=True,
        ),
        Field("nr_slabs", "i8", "slabs made so far", lock="the lock in ARENA", model=True, align=64),
        Field("nr_sheaves", "i8", "sheaves made so far", lock="atomic", model=True),
    ],
)

kmem_cache_node = Struct(
    "kmem_cache_node",
    [
        Field("list_lock", "i8", "spinlock of the partial slabs", lock="itself"),
        Field("nr_partial", "i8", "how many there are", lock="list_lock; a racy hint without"),
        Field("partial", "i8", "the first of them", lock="list_lock"),
        Field("partial_tail", "i8", "the last", lock="list_lock"),
        Field("barn_lock", "i8", "spinlock of the barn", lock="itself", align=64),
        Field("nr_full", "i8", "full sheaves", lock="barn_lock; a racy hint without"),
        Field("full", "i8", "the first of them", lock="barn_lock"),
        Field("nr_empty", "i8", "empty sheaves", lock="barn_lock; a racy hint without"),
        Field("empty", "i8", "the first of them", lock="barn_lock"),
    ],
    size=128,
)

kmem_cache_cpu = Struct(
    "kmem_cache_cpu",
    [
        Field("freelist", "i8", "free objects of the CPU's slab, linked by their next", lock="the CPU"),
        Field("page", "i8", "the slab from which the CPU allocates, frozen", lock="the CPU"),
        Field("partial", "i8", "partial slabs of the CPU's own, linked by their next", lock="the CPU"),
        Field("nr_partial", "i8", "how many", lock="the CPU"),
        Field("node", "i8", "its memory node", lock="constant"),
        Field("prefilled", "i8", "what kmem_cache_prefill took: objects linked by next, or a sheaf", lock="the CPU"),
        Field("pages", "i8", "empty slabs that went back to the CPU's list of pages", lock="the CPU"),
        Field("main", "i8", "the sheaf that serves", lock="the CPU", align=64),
        Field("spare", "i8", "a second one", lock="the CPU"),
        Field("rcu_free", "i8", "the sheaf that kfree_rcu fills", lock="the CPU"),
        Field("sheaves", "i8", "sheaves that kfree took back, linked by their next", lock="the CPU"),
        Field("rcu_head", "i8", "the objects that wait for rcu_gp, linked by their next", lock="the CPU", align=64),
        Field("rcu_gp", "i8", "a grace period", lock="the CPU"),
        Field("rcu_next_head", "i8", "the objects that will wait for a later one", lock="the CPU"),
        Field("rcu_next_tail", "i8", "the youngest", lock="the CPU"),
        Field("rcu_next", "i8", "how many", lock="the CPU"),
        Field("rcu_sheaf_head", "i8", "the oldest sheaf that does", lock="the CPU"),
        Field("rcu_sheaf_tail", "i8", "the youngest", lock="the CPU"),
        Field("rcu_waiting", "i8", "how many objects wait, those in sheaves too", lock="the CPU"),
    ],
    size=192,
)

kmem_object = Struct(
    "kmem_object",
    [
        Field(
            "next", "i8", "the free pointer: in the kernel within the object, so a line of its own", lock="its place"
        ),
        Field("page", "i8", "its slab, in the kernel known by its address", lock="constant", model=True),
    ],
    size=64,
)

slab = Struct(
    "slab",
    [
        Field("freelist", "i8", "first free object << 32 | objects not in this list << 1 | frozen", lock="atomic"),
        Field("next", "i8", "the next slab of the list", lock="list_lock, or the CPU whose list it is"),
        Field("prev", "i8", "the one before in the node's list", lock="list_lock"),
        Field("node_partial", "i8", "1: on the node's list (SL_partial)", lock="list_lock"),
        Field("node", "i8", "its memory node", lock="constant"),
        Field("objects", "i8", "how many it has", lock="constant"),
    ],
    size=64,
)

slab_sheaf = Struct(
    "slab_sheaf",
    [
        Field("size", "i8", "objects in it", lock="the CPU, or who took it from the barn"),
        Field("next", "i8", "the next sheaf of its list", lock="barn_lock, or the CPU whose list it is"),
        Field("gp", "i8", "the grace period for which it waits (rcu_head)", lock="the CPU"),
    ],
    size=64,
)

in_sheaf = Struct("in_sheaf", [Field("slot", "i8", "a free object", lock="as its sheaf's size")])

KMEM = Slab("KMEM", kmem_cache, "kmem_base", first=0)
KMEM_NODE = Slab("KMEM_NODE", kmem_cache_node, "node_base", first=0)
KMEM_CPU = Slab("KMEM_CPU", kmem_cache_cpu, "cpu_base", first=0)
KMEM_OBJECT = Slab("KMEM_OBJECT", kmem_object, "object_base")
KMEM_SLAB = Slab("KMEM_SLAB", slab, "slabs_base")
KMEM_SHEAF = Slab("KMEM_SHEAF", slab_sheaf, "sheaf_base")
IN_SHEAF = Slab("IN_SHEAF", in_sheaf, "in_sheaf_base", first=SHEAF_CAPACITY)
SLABS = (KMEM, KMEM_NODE, KMEM_CPU, KMEM_OBJECT, KMEM_SLAB, KMEM_SHEAF, IN_SHEAF)
"""Every slab of an allocator."""
NAMES = {
    KMEM.base: "kmem_cache", KMEM_NODE.base: "kmem_node", KMEM_CPU.base: "kmem_cpu", KMEM_OBJECT.base: "object",
    KMEM_SLAB.base: "slab_page", KMEM_SHEAF.base: "sheaf", IN_SHEAF.base: "in_sheaf",
}  # fmt: skip
"""Their names in figures."""


def order_objects(size: int, cpus: int) -> int:
    """Objects of a slab in a cache of ``size`` bytes an object: calculate_order, with slub_max_order 3.

    >>> order_objects(256, 1), order_objects(256, 192), order_objects(192, 192)
    (16, 64, 42)
    """
    wanted = 4 * (cpus.bit_length() + 1)
    order = next((order for order in range(4) if (4096 << order) // size >= wanted), 3)
    return (4096 << order) // size


def cpu_partial(size: int) -> int:
    """Objects that the partial slabs of a CPU should have together (set_cpu_partial)."""
    return 6 if size >= 4096 else 24 if size >= 1024 else 52 if size >= 256 else 120


# ----------------------------------------------------------------------------------------------------------------------
# From the calls of the model and of strategies to the allocator's hooks.


@native
def plain_alloc(mm, which):
    """arena_alloc, for what is no object of a cache."""
    return arena_alloc(mm, which)


@native
def plain_room(mm, which):
    """arena_room, likewise."""
    return arena_room(mm, which)


@native
def plain_free(mm, which, slot):
    """arena_free, likewise."""
    return arena_free(mm, which, slot)


@native
def plain_kfree_rcu(mm, which, slot):
    """kfree_rcu, likewise."""
    return kfree_rcu(mm, which, slot)


@native
def cpu_of(mm, task):
    """The CPU on which ``task`` runs: without threads there is one."""
    return 1


@native
def cpu_of_thread(mm, task):
    """The thread that plays ``task``; 0 for task 0, nobody."""
    return THREAD(CREW(mm, 0), task).leader


alloc: Native = hooks.kmem_cache_alloc.default
free: Native = hooks.kmem_cache_free.default
free_rcu: Native = hooks.kfree_rcu.default
prefill: Native = hooks.kmem_cache_prefill.default
give_back: Native = hooks.kmem_cache_return.default


@native
def alloc_object(mm, which):
    """arena_alloc in a build with an allocator. What the kernel has on the stack costs nothing, and each CPU has its
    own."""
    k = KMEM(ARENA(mm, 0), which)
    if k.objects <= 0:
        if k.objects < 0 and cpu_of(mm, mm.owner) != 0:
            return k.first_object - k.objects * (cpu_of(mm, mm.owner) - 1)
        return plain_alloc(mm, which)
    slot = alloc(mm, cpu_of(mm, mm.owner), which)
    if slot == NULL:
        mm.error = which + 1
    return slot


@native
def room_of_cache(mm, which):
    """arena_room in a build with an allocator: what is free stands in many places, and nobody counts it. Enough: a full
    cache makes the run invalid."""
    if KMEM(ARENA(mm, 0), which).objects == 0:
        return plain_room(mm, which)
    return PARKED


@native
def free_object(mm, which, slot):
    """arena_free in a build with an allocator."""
    k = KMEM(ARENA(mm, 0), which)
    if k.objects <= 0:
        if k.objects < 0 and slot >= k.first_object:
            return 0
        return plain_free(mm, which, slot)
    return free(mm, cpu_of(mm, mm.owner), which, slot)


@native
def free_object_queued(mm, which, slot):
    """free_queued in a build with an allocator: on no particular CPU."""
    if KMEM(ARENA(mm, 0), which).objects <= 0:
        return plain_free(mm, which, slot)
    return free(mm, 0, which, slot)


@native
def free_object_rcu(mm, which, slot):
    """kfree_rcu in a build with an allocator."""
    cpu = cpu_of(mm, mm.owner)
    if cpu == 0 or KMEM(ARENA(mm, 0), which).objects <= 0:
        return plain_kfree_rcu(mm, which, slot)
    return free_rcu(mm, cpu, which, slot)


@native
def prefill_objects(mm, which, count):
    """kmem_cache_prefill in a build with an allocator."""
    cpu = cpu_of(mm, mm.owner)
    if cpu == 0:
        return 0
    return prefill(mm, cpu, which, count)


@native
def return_objects(mm, which):
    """kmem_cache_return in a build with an allocator."""
    cpu = cpu_of(mm, mm.owner)
    if cpu == 0:
        return 0
    return give_back(mm, cpu, which)


@native
def grab_objects(mm, cpu, which):
    """A new slab of cache ``which`` (allocate_slab): slots of the model's slab, linked in the order in which it gives
    them. Its number, NULL if the model's slab is full. Its lock stands for the page allocator's."""
    k = KMEM(ARENA(mm, 0), which)
    node = KMEM_CPU(k, k.first_cpu + cpu).node
    a = ARENA(mm, which)
    arena_lock(mm, which)
    count = 0
    last = NULL
    first = NULL
    number = k.first_slab + k.nr_slabs + 1
    while count < k.objects and (a.free > 0 or a.top < a.capacity):
        if a.free > 0:
            a.free -= 1
            slot = FREED(mm, a.stack + a.free).slot
        else:
            slot = a.top
            a.top = slot + 1
        KMEM_OBJECT(k, k.first_object + slot).page = number
        KMEM_OBJECT(k, k.first_object + slot).next = NULL
        if last == NULL:
            first = slot
        else:
            KMEM_OBJECT(k, k.first_object + last).next = slot
        last = slot
        count += 1
    a.live += count
    if a.live > a.peak:
        a.peak = a.live
    if count > 0:
        k.nr_slabs += 1
    arena_unlock(mm, which)
    if count == 0:
        return NULL
    s = KMEM_SLAB(k, number)
    s.freelist = first << 32
    s.next = NULL
    s.prev = NULL
    s.node_partial = 0
    s.node = node
    s.objects = count
    return number


def _calls(allocator: Binding) -> dict[Native, Native]:
    """What a build with an allocator puts in the place of calls, with or without threads. Functions that stand for
    themselves may call what is replaced."""
    found: dict[Native, Native] = {
        arena_alloc: alloc_object,
        arena_free: free_object,
        arena_room: room_of_cache,
        free_queued: free_object_queued,
        alloc: allocator["kmem_cache_alloc"],
        free: allocator["kmem_cache_free"],
    }
    if "kfree_rcu" in allocator:
        found.update({kfree_rcu: free_object_rcu, free_rcu: allocator["kfree_rcu"]})
    if "kmem_cache_prefill" in allocator:
        found.update({kmem_cache_prefill: prefill_objects, prefill: allocator["kmem_cache_prefill"]})
        found.update({kmem_cache_return: return_objects, give_back: allocator["kmem_cache_return"]})
    return found


def one_thread(allocator: Binding) -> Replacements | None:
    """What the build for one thread replaces; None where there is no allocator: today's text."""
    if not allocator:
        return None
    return {
        **_calls(allocator),
        plain_alloc: plain_alloc,
        plain_room: plain_room,
        plain_free: plain_free,
        plain_kfree_rcu: plain_kfree_rcu,
    }


def threads(allocator: Binding, replace: Replacements = REPLACE) -> Replacements:
    """``replace``, of a build for several threads, with the allocator."""
    if not allocator:
        return replace
    return {
        **replace,
        **_calls(allocator),
        plain_alloc: arena_alloc_shared,
        plain_room: plain_room,
        plain_free: arena_free_shared,
        plain_kfree_rcu: kfree_rcu_shared,
        arena_alloc_shared: arena_alloc_shared,
        arena_free_shared: arena_free_shared,
        cpu_of: cpu_of_thread,
    }
